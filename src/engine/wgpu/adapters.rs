//! The GPUs of this machine, through Vulkan, Metal or DX12.

use wgpu::{Adapter, Backends, DeviceType, Instance, InstanceDescriptor};

use crate::error::{Error, Result};

/// A GPU that a device of a pipeline can be opened on.
#[derive(Debug, Clone)]
pub struct Gpu {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// The adapter at a position of the list; every device gets an instance of its own, so that
    /// two devices of a software adapter do not share its threads.
    Adapter(usize),
    /// What the caller opened.
    Opened(wgpu::Device, wgpu::Queue),
}

/// What is known of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// What it is called.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Most bytes of one buffer that a kernel can bind.
    pub buffer_bytes: u64,
    /// Whether activations may be stored as f16.
    pub f16: bool,
}

/// All adapters, in the order that `gpu:N` counts.
pub fn gpus() -> Vec<GpuInfo> {
    adapters().iter().map(info).collect()
}

impl Gpu {
    /// The adapter at a position of [`gpus`].
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn at(index: usize) -> Result<Self> {
        let count = adapters().len();
        if index < count {
            return Ok(Self { source: Source::Adapter(index) });
        }
        let found = match count {
            0 => "there is no GPU".to_string(),
            1 => "there is only gpu:0".to_string(),
            _ => format!("there are gpu:0 to gpu:{}", count - 1),
        };
        Err(Error::config(format!("gpu:{index}: {found}")).hint(
            "`engine::wgpu::gpus()`, or a Vulkan, Metal or DX12 driver (mesa-vulkan-drivers \
             renders in software), or cpux2",
        ))
    }

    /// A device that the caller opened. It should have the limits of its adapter.
    pub fn opened(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self { source: Source::Opened(device, queue) }
    }

    /// What queues of one adapter have in common; none for what the caller opened.
    pub(crate) fn adapter(&self) -> Option<String> {
        match self.source {
            Source::Adapter(index) => Some(format!("gpu:{index}")),
            Source::Opened(..) => None,
        }
    }

    /// Positions of the adapters that are hardware.
    pub(crate) fn hardware() -> Vec<usize> {
        let is_hardware = |adapter: &Adapter| {
            use DeviceType::{DiscreteGpu, IntegratedGpu, VirtualGpu};
            matches!(adapter.get_info().device_type, DiscreteGpu | IntegratedGpu | VirtualGpu)
        };
        let all = adapters();
        // One GPU may be there through several backends.
        let backend = all.iter().find(|adapter| is_hardware(adapter));
        let backend = backend.map(|adapter| adapter.get_info().backend);
        let usable =
            |adapter: &Adapter| is_hardware(adapter) && Some(adapter.get_info().backend) == backend;
        (0..all.len()).filter(|&at| usable(&all[at])).collect()
    }

    /// The device and its queue, with everything that the adapter allows.
    pub(super) fn open(self) -> Result<(wgpu::Device, wgpu::Queue)> {
        let index = match self.source {
            Source::Opened(device, queue) => return Ok((device, queue)),
            Source::Adapter(index) => index,
        };
        let gone = || Error::run(format!("gpu:{index} is gone")).hint("`engine::wgpu::gpus()`");
        let adapter = adapters().into_iter().nth(index).ok_or_else(gone)?;
        let wanted = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::SHADER_F16;
        let opened = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("zerobubble"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            ..Default::default()
        });
        pollster::block_on(opened).map_err(|error| {
            Error::run(format!("gpu:{index} cannot be opened: {error}"))
                .hint("another device, or fewer of them at once")
        })
    }
}

/// Without GL: its drivers print to stderr on machines without a display, and it has no compute
/// on many.
fn adapters() -> Vec<Adapter> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let descriptor =
        InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() };
    pollster::block_on(Instance::new(descriptor).enumerate_adapters(backends))
}

fn info(adapter: &Adapter) -> GpuInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    GpuInfo {
        name: info.name,
        backend: match info.backend {
            wgpu::Backend::Vulkan => "vulkan",
            wgpu::Backend::Metal => "metal",
            wgpu::Backend::Dx12 => "dx12",
            wgpu::Backend::Gl => "gl",
            wgpu::Backend::BrowserWebGpu => "webgpu",
            wgpu::Backend::Noop => "none",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "discrete",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        },
        buffer_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        f16: adapter.features().contains(wgpu::Features::SHADER_F16),
    }
}
