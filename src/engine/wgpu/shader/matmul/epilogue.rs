//! What follows a product of `shaders/matmul.wgsl`: `finish_product` of one or two elements.

use crate::engine::wgpu::kernel::{Chain, Kernel};
use crate::engine::wgpu::shader::chain::{finish, finished};
use crate::graph::DType;

/// How many elements of the output are finished together, and how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Epilogue {
    /// One.
    One,
    /// Two neighbours, one after the other.
    Two,
    /// Two neighbours at once, by `w0_put_two`: to store a 64-bit integer takes llvmpipe as long as
    /// one of its halves.
    Together,
}

impl Epilogue {
    /// For the kernel's results: those that are stored together are the floats of one buffer.
    pub fn new(kernel: &Kernel, paired: bool) -> Self {
        match &kernel.writes[..] {
            [write] if paired && DType::from(write.element) == DType::F32 => Self::Together,
            _ if paired => Self::Two,
            _ => Self::One,
        }
    }

    /// `finish_product`, and what it calls.
    pub fn wgsl(self, kernel: &Kernel, chain: &Chain) -> String {
        match self {
            Self::One => {
                finish(kernel, chain)
                    + "fn finish_product(i: u32, product: f32) { finish(i, product); }\n"
            }
            Self::Two => {
                finish(kernel, chain)
                    + "fn finish_product(i: u32, products: vec2<f32>) {\n    \
                       finish(i, products.x);\n    finish(i + 1u, products.y);\n}\n"
            }
            Self::Together => {
                finished(kernel, chain)
                    + "fn finish_product(i: u32, products: vec2<f32>) {\n    \
                       let x = finished(i, products.x);\n    \
                       let y = finished(i + 1u, products.y);\n    \
                       w0_put_two(i, vec2(x, y));\n}\n"
            }
        }
    }
}
