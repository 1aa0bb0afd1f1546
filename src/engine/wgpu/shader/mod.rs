//! Kernels to WGSL, specialised to their shapes. A shader is a generated head (bindings, sizes,
//! index functions) on top of its family's file in `shaders/`.

mod abilities;
mod bindings;
mod chain;
mod index;
mod join;
pub mod matmul;
pub(super) mod optimizer;
mod reduce;
mod rows;
mod window;

use super::kernel::{Body, Kernel};
pub use abilities::Abilities;
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
    /// Bytes of every read that is bound as a uniform buffer, 0 of those that are not; reads beyond
    /// the list are not. Threads on a CPU load from those much faster.
    pub uniforms: Vec<u64>,
}

impl Shader {
    /// Whether a binding is a uniform buffer.
    pub(super) fn is_uniform(&self, binding: usize) -> bool {
        self.uniforms.get(binding).is_some_and(|&bytes| bytes > 0)
    }

    /// The binding, as small as a uniform buffer has to be.
    pub(super) fn bound<'a>(
        &self,
        at: usize,
        binding: wgpu::BufferBinding<'a>,
    ) -> wgpu::BufferBinding<'a> {
        match self.uniforms.get(at) {
            Some(&bytes) if bytes > 0 => {
                wgpu::BufferBinding { size: std::num::NonZeroU64::new(bytes), ..binding }
            }
            _ => binding,
        }
    }
}

/// Most workgroups along one dimension of a dispatch, on every adapter.
pub(super) const MOST_WORKGROUPS: usize = 65_535;

/// The shader of a kernel; a product is cut into `tile`s.
pub(super) fn shader(kernel: &Kernel, tile: Option<&Tile>, abilities: &Abilities) -> Shader {
    match &kernel.body {
        Body::Chain(chain) => chain::chain(kernel, chain, abilities),
        Body::Matmul(_) => matmul::matmul(kernel, tile.expect("a product has a tile")),
        Body::Reduction(op) => reduce::reduce(kernel, op, abilities),
        Body::Join(op) => join::join(kernel, *op, abilities),
        Body::Indexing(op) => index::index(kernel, *op, abilities),
        Body::RowWise(op) => rows::rows(kernel, *op, abilities),
        Body::Windowed(op) => window::window(kernel, *op, abilities),
    }
}

/// About how often a thread goes round its loops, at most.
pub(super) fn rounds(kernel: &Kernel) -> usize {
    match &kernel.body {
        Body::Chain(_) | Body::Join(_) => 0,
        Body::Matmul(_) => kernel.reads[0].view.columns(),
        Body::Reduction(op) => reduce::rounds(kernel, op),
        Body::Indexing(op) => index::rounds(kernel, *op),
        Body::RowWise(op) => rows::rounds(kernel, *op),
        Body::Windowed(op) => window::rounds(kernel, *op),
    }
}
