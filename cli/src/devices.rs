//! `zerobubble devices`: what can be trained on.

use std::fmt;
use std::thread;

use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};
use zerobubble::engine::wgpu::{GpuInfo, gpus};
use zerobubble::error::{Error, Result};

use super::drawing::bytes;

/// What can be trained on.
#[derive(Serialize)]
pub struct Devices {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    id: String,
    name: String,
    backend: &'static str,
    driver: String,
    kind: &'static str,
    /// In bytes, where the system tells. CPU devices share it.
    memory: Option<u64>,
    /// Most bytes of one tensor on a GPU.
    buffer_bytes: Option<u64>,
    /// Whether activations may be stored as f16.
    f16: bool,
}

/// Lists the GPUs, software ones included, and one CPU device per core that this process may use.
pub fn run() -> Result<Devices> {
    let cores = thread::available_parallelism()
        .map_err(|error| Error::run(format!("the number of CPU cores is unknown: {error}")))?;
    let (name, memory) = (processor(), memory());
    let device = |core| Device {
        id: format!("cpu:{core}"),
        name: name.clone(),
        backend: "flex",
        driver: "burn-flex".to_owned(),
        kind: "cpu",
        memory,
        buffer_bytes: None,
        f16: false,
    };
    let gpu = |(index, gpu): (usize, GpuInfo)| Device {
        id: format!("gpu:{index}"),
        name: gpu.name,
        backend: gpu.backend,
        driver: gpu.driver,
        kind: gpu.kind,
        // wgpu does not tell, on any of its backends.
        memory: None,
        buffer_bytes: Some(gpu.buffer_bytes),
        f16: gpu.f16,
    };
    let gpus = gpus().into_iter().enumerate().map(gpu);
    Ok(Devices { devices: (0..cores.get()).map(device).chain(gpus).collect() })
}

/// Every GPU in a line, in the order that `gpu:N` counts.
pub fn gpu_lines() -> Vec<String> {
    let line = |gpu: GpuInfo| {
        format!("{} ({}, {}, {})", gpu.name, gpu.kind, gpu.backend, gpu.driver.trim())
    };
    gpus().into_iter().map(line).collect()
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["id", "name", "backend", "driver", "kind", "memory", "tensor at most", "f16"];
        let header = header.map(str::to_owned);
        let mut rows = vec![header];
        rows.extend(self.devices.iter().map(|device| {
            let memory = device.memory.map_or("unknown".to_owned(), bytes);
            let most = device.buffer_bytes.map_or(String::new(), bytes);
            let words = [device.backend, &device.driver, device.kind].map(str::to_owned);
            let [backend, driver, kind] = words;
            let halves = if device.f16 { "yes" } else { "" }.to_owned();
            [device.id.clone(), device.name.clone(), backend, driver, kind, memory, most, halves]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..8).map(|column| width(column).unwrap_or(0)).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The processor's name, where the system tells, or else its architecture.
pub fn processor() -> String {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let mut names = system.cpus().iter().map(|cpu| cpu.brand().trim());
    let named = names.find(|name| !name.is_empty());
    named.map_or_else(|| format!("{} processor", std::env::consts::ARCH), str::to_owned)
}

/// The machine's memory in bytes, where the system tells.
pub fn memory() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    Some(system.total_memory()).filter(|&total| total > 0)
}
