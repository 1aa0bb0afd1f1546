//! The tile of every product on a device: the remembered one, the one that a timed search finds, or
//! the one that is likely best.

use std::time::{Duration, Instant};

use wgpu::{Buffer, DeviceType};

use super::buffers::STORAGE;
use super::context::Context;
use super::element::Element;
use super::kernel::{Argument, Body, Chain, Kernel, Operand, Target, View, Write};
use super::layout::KEY_BYTES;
use super::shader::matmul::Tile;
use super::shader::{Abilities, Shader, shader};
use super::tile_cache::{AdapterKey, TileCache, default_tile, folder};
use crate::error::Result;
use crate::graph::NodeId;

/// Products with fewer operations take no time worth a measurement.
const LEAST_FLOPS: usize = 4_000_000;

/// Timed runs of every tile, after one that warms up.
const RUNS: usize = 3;

/// A run that takes longer is not worth waiting for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Selects tiles on one device.
#[derive(Debug)]
pub(super) struct TileSelector {
    cache: TileCache,
    abilities: Abilities,
}

impl TileSelector {
    /// Reads what is remembered for the device.
    pub(super) fn new(context: &Context) -> Self {
        let info = context.device.adapter_info();
        let features = context.device.features();
        let one_size = info.subgroup_min_size == info.subgroup_max_size;
        let subgroup = (features.contains(wgpu::Features::SUBGROUP) && one_size)
            .then_some(info.subgroup_min_size as usize);
        let abilities = Abilities {
            cpu: info.device_type == DeviceType::Cpu,
            subgroup,
            wide: features.contains(wgpu::Features::SHADER_INT64),
            uniform_bytes: if info.device_type == DeviceType::Cpu {
                context.device.limits().max_uniform_buffer_binding_size
            } else {
                0
            },
        };
        let adapter = AdapterKey::new(&info.name, &info.driver, &info.driver_info);
        Self { cache: TileCache::read(folder().as_deref(), adapter), abilities }
    }

    /// The tile of a kernel, if it is a product.
    pub(super) fn of(&mut self, context: &Context, kernel: &Kernel) -> Result<Option<Tile>> {
        let Body::Matmul(chain) = &kernel.body else { return Ok(None) };
        let inner = kernel.reads[0].view.shape.last().copied().unwrap_or(1);
        if context.checks() {
            return Ok(Some(Tile::SMALL));
        }
        if 2 * chain.elements * inner < LEAST_FLOPS {
            return Ok(Some(default_tile(kernel, &self.abilities)));
        }
        let measured =
            self.cache.measured(kernel, &self.abilities, |shader| seconds(context, kernel, shader));
        // Without memory or time for a measurement the model may still train.
        let default = || default_tile(kernel, &self.abilities);
        context.check().map(|()| Some(measured.unwrap_or_else(|_| default())))
    }

    /// What matters about the device.
    pub(super) fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// Remembers what was measured.
    pub(super) fn remember(&self) {
        self.cache.write();
    }
}

/// How long a device takes for the product of a `[rows, inner]` and an `[inner, columns]` matrix:
/// the shortest of a few runs, with the best tile.
///
/// # Errors
///
/// When the device fails.
pub fn product_seconds(
    context: &Context,
    rows: usize,
    inner: usize,
    columns: usize,
) -> Result<f64> {
    let read = |node: u32, shape: [usize; 2]| Operand {
        node: NodeId(node),
        view: View::dense(&shape),
        element: Element::F32,
    };
    let shape = vec![rows, columns];
    let chain =
        Chain { elements: rows * columns, steps: Vec::new(), results: vec![Argument::Product] };
    let kernel = Kernel {
        reads: vec![read(0, [rows, inner]), read(1, [inner, columns])],
        writes: vec![Write { target: Target::Value(NodeId(2)), shape, element: Element::F32 }],
        body: Body::Matmul(chain),
    };
    let mut tiles = TileSelector::new(context);
    let tile = tiles.of(context, &kernel)?;
    tiles.remember();
    seconds(context, &kernel, &shader(&kernel, tile.as_ref(), tiles.abilities()))
}

/// The shortest of a few runs on buffers of its own.
fn seconds(context: &Context, kernel: &Kernel, shader: &Shader) -> Result<f64> {
    let elements = |view: &View| {
        let last = view.shape.iter().zip(&view.strides).map(|(size, stride)| (size - 1) * stride);
        view.offset + last.sum::<usize>() + 1
    };
    let reads = kernel.reads.iter().map(|read| read.element.bytes_of(elements(&read.view)));
    let writes = kernel.writes.iter();
    let writes = writes.map(|write| write.element.bytes_of(write.shape.iter().product()));
    let key = kernel.uses_key().then_some(KEY_BYTES);
    let buffers: Vec<Buffer> = reads
        .chain(writes)
        .chain(key)
        .map(|bytes| context.buffer_once("a measurement", bytes.next_multiple_of(16), STORAGE))
        .collect::<Result<_>>()?;
    let written = kernel.written();
    let pipeline = context.compile(shader, &written)?;
    let bindings = bindings(&buffers, shader);
    let mut best = f64::INFINITY;
    for _ in 0..=RUNS {
        let start = Instant::now();
        let mut encoder = context.encoder();
        record(context, &mut encoder, &pipeline, &bindings, shader.workgroups);
        let submission = context.submit(encoder);
        if !context.wait(&submission, TIMEOUT)? {
            return Err(context.error(format!("{} takes more than {TIMEOUT:?}", shader.label)));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The whole buffers, as a shader binds them.
pub(super) fn bindings<'a>(buffers: &'a [Buffer], shader: &Shader) -> Vec<wgpu::BufferBinding<'a>> {
    let whole = buffers.iter().map(Buffer::as_entire_buffer_binding);
    whole.enumerate().map(|(at, binding)| shader.bound(at, binding)).collect()
}

/// Records one dispatch.
pub(super) fn record(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    pipeline: &wgpu::ComputePipeline,
    bindings: &[wgpu::BufferBinding<'_>],
    [x, y, z]: [u32; 3],
) {
    let group = context.bind_once(pipeline, bindings);
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(x, y, z);
}
