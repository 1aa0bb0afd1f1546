//! For tests alone, which are outside of the crate: they judge kernels one by one.

use wgpu::{Buffer, BufferUsages};

use super::buffers::STORAGE;
use super::context::Context;
use super::kernel::{Kernel, Target, Write};
use super::play::check_status;
use super::shader::matmul::Tile;
use super::shader::{Abilities, shader};
use super::tile_timing::{TIMEOUT, TileSelector, bindings, record};
use crate::error::Result;

/// What matters about the device.
pub fn abilities(context: &Context) -> Abilities {
    *TileSelector::new(context).abilities()
}

/// The tile that an engine on the device gives a kernel, if it is a product.
///
/// # Errors
///
/// When the device fails.
pub fn tile_of(context: &Context, kernel: &Kernel) -> Result<Option<Tile>> {
    TileSelector::new(context).of(context, kernel)
}

/// Runs one kernel by itself: the words of its operands' buffers in, the words of its results out.
/// Results that are added to start from 1.
///
/// # Errors
///
/// When the device fails, or an index is out of range.
pub fn compute(
    context: &Context,
    kernel: &Kernel,
    tile: Option<&Tile>,
    operands: &[Vec<u32>],
    key: [u32; 8],
) -> Result<Vec<Vec<u32>>> {
    let shader = shader(kernel, tile, &abilities(context));
    let ones = |write: &Write| {
        let sum = matches!(write.target, Target::Sum(_));
        let word = if sum { 1f32.to_bits() } else { f32::NAN.to_bits() };
        vec![word; write.element.bytes_of(write.shape.iter().product()) as usize / 4]
    };
    let mut contents: Vec<Vec<u32>> = operands.to_vec();
    contents.extend(kernel.writes.iter().map(ones));
    contents.extend(kernel.uses_key().then(|| key.to_vec()));
    contents.extend(kernel.uses_status().then(|| vec![0]));
    let buffer = |usage: BufferUsages, words: usize| {
        context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("a kernel's own"),
            size: (words as u64 * 4).next_multiple_of(16),
            usage,
            mapped_at_creation: false,
        })
    };
    let buffers: Vec<Buffer> =
        contents.iter().map(|content| buffer(STORAGE, content.len())).collect();
    for (buffer, content) in buffers.iter().zip(&contents) {
        context.queue.write_buffer(buffer, 0, bytemuck::cast_slice(content));
    }
    let pipeline = context.compile(&shader, &kernel.written())?;
    let bindings = bindings(&buffers, &shader);
    let mut encoder = context.encoder();
    record(context, &mut encoder, &pipeline, &bindings, shader.workgroups);
    let mut results = Vec::new();
    for (buffer_of, content) in buffers.iter().zip(&contents).skip(kernel.reads.len()) {
        let down = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST, content.len());
        encoder.copy_buffer_to_buffer(buffer_of, 0, &down, 0, down.size());
        results.push((down, content.len()));
    }
    let submission = context.submit(encoder);
    results.iter().for_each(|(down, _)| down.map_async(wgpu::MapMode::Read, .., |_| {}));
    context.wait(&submission, TIMEOUT)?;
    let mut words = Vec::new();
    for (down, count) in &results {
        let view = down.get_mapped_range(..).map_err(|error| context.error(error))?;
        let mut all = bytemuck::pod_collect_to_vec::<u8, u32>(&view);
        all.truncate(*count);
        words.push(all);
    }
    if kernel.uses_status() {
        check_status(words.pop().map_or(0, |status| status[0]))?;
    }
    words.truncate(kernel.writes.len());
    Ok(words)
}
