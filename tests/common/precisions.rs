//! What the GPU that tests train on stores activations in: SwiftShader, for one, has no halves.

use zerobubble::Precision;
use zerobubble::engine::wgpu::gpus;

/// Every precision of `gpu:0`.
pub fn precisions() -> Vec<Precision> {
    let gpu = gpus().into_iter().next().expect("these tests need a GPU or software Vulkan");
    let halves = gpu.f16.then_some(Precision::F16);
    [Precision::F32].into_iter().chain(halves).collect()
}
