//! Kernels to WGSL, specialised to their shapes. A shader is a generated head (bindings, sizes,
//! index functions) on top of its family's file in `shaders/`.

mod bindings;
mod chain;
mod index;
mod join;
pub mod matmul;
pub(super) mod optimizer;
mod reduce;
mod rows;

use super::kernel::{Body, Kernel};
use matmul::Tile;

/// A compute shader and how many workgroups cover its output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shader {
    /// Names the family and the shapes, for errors and traces.
    pub label: String,
    /// WGSL with the entry point `main` and bindings from 0 on in group 0.
    pub source: String,
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
}

/// Most workgroups along one dimension of a dispatch, on every adapter.
pub(super) const MOST_WORKGROUPS: usize = 65_535;

/// The shader of a kernel; a product is cut into `tile`s.
pub(super) fn shader(kernel: &Kernel, tile: Option<&Tile>) -> Shader {
    match &kernel.body {
        Body::Chain(chain) => chain::chain(kernel, chain),
        Body::Matmul(_) => matmul::matmul(kernel, tile.expect("a product has a tile")),
        Body::Sum(_) | Body::ArgMax(_) | Body::ArgMin(_) => reduce::reduce(kernel),
        Body::Softmax | Body::SoftmaxGradient | Body::LogSoftmax | Body::LogSoftmaxGradient => {
            rows::rows(kernel)
        }
        Body::LayerNorm(_) | Body::LayerNormGradient(_) | Body::LayerNormGradientGamma(_) => {
            rows::rows(kernel)
        }
        Body::Embedding | Body::EmbeddingGradient | Body::Gather(_) | Body::ScatterAdd(_) => {
            index::index(kernel)
        }
        Body::Concatenate(_) | Body::Pad { .. } => join::join(kernel),
    }
}
