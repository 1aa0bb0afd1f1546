//! What follows a product of `shaders/matmul.wgsl`: `finish_product` of one or two elements.

use crate::engine::wgpu::kernel::Kernel;
use crate::graph::DType;

/// Whether two neighbours of the output are stored at once: they are the floats of one buffer. To
/// store a 64-bit integer takes llvmpipe as long as one of its halves.
pub(super) fn stores_two(kernel: &Kernel) -> bool {
    matches!(&kernel.writes[..], [write] if DType::from(write.element) == DType::F32)
}

/// `finish_product` of one element.
pub(super) fn alone() -> &'static str {
    "fn finish_product(i: u32, product: f32) { finish(i, product); }\n"
}

/// `finish_product` of the elements i and i + 1.
pub(super) fn pairs(kernel: &Kernel) -> &'static str {
    if stores_two(kernel) {
        "fn finish_product(i: u32, products: vec2<f32>) {\n    \
         let x = finished(i, products.x);\n    let y = finished(i + 1u, products.y);\n    \
         w0_put_two(i, vec2(x, y));\n}\n"
    } else {
        "fn finish_product(i: u32, products: vec2<f32>) {\n    \
         finish(i, products.x);\n    finish(i + 1u, products.y);\n}\n"
    }
}
