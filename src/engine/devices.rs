//! The devices that a run may name, such as `cpux2`.

use burn::tensor::Device;

use super::wgpu::{Gpu, WgpuDevice};
use super::{BurnDevice, EngineDevice};
use crate::error::{Error, Result};

/// Most devices in one run; more is a typing error.
const MOST_DEVICES: usize = 64;

/// Most CPU devices that `auto` takes.
const AUTO_DEVICES: usize = 4;

/// The devices of a comma list of `cpu` or `gpu:N`, each with an optional `xK` for K of them, or of
/// `auto`: the hardware GPUs, or else one CPU device per core, at most four.
///
/// Each CPU device is one thread. `gpu:N` counts as [`gpus`](super::wgpu::gpus) lists, and
/// `gpu:0x2` is two queues of one adapter, each a device of its own.
///
/// # Errors
///
/// Says which item is not a device and what would be.
pub fn devices(spec: &str) -> Result<Vec<Box<dyn EngineDevice>>> {
    let items = match spec.trim() {
        "auto" => auto(),
        list => items(list)?,
    };
    let mut devices: Vec<Box<dyn EngineDevice>> = Vec::new();
    let mut cpus = 0;
    for Item { kind, times } in items {
        for queue in 0..times {
            devices.push(match kind {
                Kind::Cpu => {
                    let name = format!("cpu:{cpus}");
                    cpus += 1;
                    Box::new(BurnDevice::new(name, Device::flex()))
                }
                Kind::Gpu(index) => {
                    let name = match times {
                        1 => format!("gpu:{index}"),
                        _ => format!("gpu:{index}/{queue}"),
                    };
                    Box::new(WgpuDevice::new(name, Gpu::at(index)?))
                }
            });
        }
    }
    Ok(devices)
}

/// How often a list names one device.
struct Item {
    kind: Kind,
    times: usize,
}

/// A device that a list can name.
#[derive(Clone, Copy)]
enum Kind {
    Cpu,
    /// The adapter of this number.
    Gpu(usize),
}

fn auto() -> Vec<Item> {
    let once = |index: usize| Item { kind: Kind::Gpu(index), times: 1 };
    let gpus: Vec<Item> = Gpu::hardware().into_iter().map(once).collect();
    if !gpus.is_empty() {
        return gpus;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![Item { kind: Kind::Cpu, times: cores.min(AUTO_DEVICES) }]
}

/// What a list names, none of it looked for yet.
fn items(list: &str) -> Result<Vec<Item>> {
    let items = list.split(',').map(|text| item(text.trim())).collect::<Result<Vec<_>>>()?;
    let count: usize = items.iter().map(|item| item.times).sum();
    if count > MOST_DEVICES {
        return Err(Error::config(format!("{count} devices, at most {MOST_DEVICES} are allowed"))
            .hint("cpux2, or auto"));
    }
    Ok(items)
}

fn item(text: &str) -> Result<Item> {
    let unknown =
        |problem: String| Error::config(problem).hint("cpu, cpux2, gpu:0, gpu:0x2, or auto");
    let (name, times) = text.split_once('x').unwrap_or((text, "1"));
    let kind = match name.split_once(':') {
        // CPU devices are alike: which one an id names makes no difference.
        Some(("cpu", index)) if index.parse::<u32>().is_ok() => Kind::Cpu,
        Some(("gpu", index)) => {
            let index = index.parse::<usize>();
            Kind::Gpu(index.map_err(|_| unknown(format!("'{text}' does not say which GPU")))?)
        }
        None if name == "cpu" => Kind::Cpu,
        None if name == "gpu" => {
            return Err(unknown(format!("'{text}' does not say which GPU")));
        }
        _ => return Err(unknown(format!("'{text}' is not a device"))),
    };
    match times.parse::<usize>() {
        Ok(times @ 1..) if times <= MOST_DEVICES => Ok(Item { kind, times }),
        Ok(times @ 1..) => Err(Error::config(format!(
            "{times} devices in '{text}', at most {MOST_DEVICES} are allowed"
        ))
        .hint("cpux2, or auto")),
        _ => Err(unknown(format!("'{times}' in '{text}' is not a number of devices"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_DEVICES, devices, items};

    #[test]
    fn any_text_is_devices_or_an_error_that_says_what_would_be() {
        crate::harness::run("devices", 10_000, |input| {
            match items(&String::from_utf8_lossy(input)) {
                Ok(items) => {
                    let count: usize = items.iter().map(|item| item.times).sum();
                    assert!((1..=MOST_DEVICES).contains(&count), "{count} devices");
                }
                Err(error) => assert!(error.to_string().contains("(try: "), "{error}"),
            }
        });
    }

    #[test]
    fn a_list_counts_every_item() {
        let names = |spec| -> Vec<String> {
            devices(spec).unwrap().iter().map(|device| device.name().to_owned()).collect()
        };
        assert_eq!(names("cpu"), ["cpu:0"]);
        assert_eq!(names("cpux2"), ["cpu:0", "cpu:1"]);
        assert_eq!(names("cpu, cpux2"), ["cpu:0", "cpu:1", "cpu:2"]);
        assert_eq!(names("cpu:0,cpu:1"), ["cpu:0", "cpu:1"]);
        assert!(!names("auto").is_empty());
    }

    #[test]
    fn what_is_not_a_device_is_named() {
        for spec in [
            "", "cpux0", "cpux", "cpuxx2", "tpu", "gpu", "gpu:", "gpu:a", "gpu:99", "gpu:0x0",
            "cpux65", "cpu,", "cpu:", "cpu:a",
        ] {
            let error = devices(spec).unwrap_err().to_string();
            assert!(error.contains("try:"), "{spec}: {error}");
        }
    }
}
