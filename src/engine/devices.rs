//! The devices that a run may name, such as `cpux2`.

use burn::tensor::Device;

use crate::error::{Error, Result};

/// Most devices in one run; more is a typing error.
const MOST_DEVICES: usize = 64;

/// Most CPU devices that `auto` takes.
const AUTO_DEVICES: usize = 4;

/// A device that a stage can be put on.
#[derive(Debug, Clone)]
pub struct NamedDevice {
    /// Its name, such as `cpu:0`.
    pub name: String,
    /// Where Burn computes.
    pub device: Device,
}

/// The devices of a comma list of `cpu` or `cpuxK`, or of `auto`: one CPU device per core, at
/// most four. Each CPU device is one thread.
///
/// # Errors
///
/// Says which item is not a device and what would be.
pub fn devices(spec: &str) -> Result<Vec<NamedDevice>> {
    let count = match spec.trim() {
        "auto" => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            cores.min(AUTO_DEVICES)
        }
        list => list.split(',').map(|item| count(item.trim())).sum::<Result<usize>>()?,
    };
    if count > MOST_DEVICES {
        return Err(Error::config(format!("{count} devices, at most {MOST_DEVICES} are allowed"))
            .hint("cpux2, or auto"));
    }
    Ok((0..count)
        .map(|index| NamedDevice { name: format!("cpu:{index}"), device: Device::flex() })
        .collect())
}

/// How many devices one item of the list asks for.
fn count(item: &str) -> Result<usize> {
    let unknown = |problem: String| Err(Error::config(problem).hint("cpu, cpux2, or auto"));
    let (name, times) = match item.split_once('x') {
        Some((name, times)) => (name, times),
        None => (item, "1"),
    };
    // CPU devices are alike: which one an id names makes no difference.
    let name = match name.strip_prefix("cpu:") {
        Some(index) if index.parse::<u32>().is_ok() => "cpu",
        _ => name,
    };
    match (name, times.parse::<usize>()) {
        ("cpu", Ok(times @ 1..)) => Ok(times),
        ("cpu", _) => unknown(format!("'{times}' in '{item}' is not a number of devices")),
        (name, _) if name.starts_with("gpu") => {
            unknown(format!("'{item}': this version trains on CPU devices only"))
        }
        _ => unknown(format!("'{item}' is not a device")),
    }
}

#[cfg(test)]
mod tests {
    use super::devices;

    #[test]
    fn a_list_counts_every_item() {
        let names = |spec| devices(spec).unwrap().into_iter().map(|d| d.name).collect::<Vec<_>>();
        assert_eq!(names("cpu"), ["cpu:0"]);
        assert_eq!(names("cpux2"), ["cpu:0", "cpu:1"]);
        assert_eq!(names("cpu, cpux2"), ["cpu:0", "cpu:1", "cpu:2"]);
        assert_eq!(names("cpu:0,cpu:1"), ["cpu:0", "cpu:1"]);
        assert!(!names("auto").is_empty());
    }

    #[test]
    fn what_is_not_a_device_is_named() {
        for spec in
            ["", "cpux0", "cpux", "cpuxx2", "tpu", "gpu:0", "cpux65", "cpu,", "cpu:", "cpu:a"]
        {
            let error = devices(spec).unwrap_err().to_string();
            assert!(error.contains("try:"), "{spec}: {error}");
        }
    }
}
