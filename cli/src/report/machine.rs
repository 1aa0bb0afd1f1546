//! What a run ran on.

use std::fs;
use std::thread;

use sysinfo::System;

use crate::devices::{gpu_lines, memory, processor};
use crate::drawing::{bytes, counted};

/// Names and values: the system, the processor, and every device of `devices` that is a GPU.
pub fn machine(devices: &[String]) -> Vec<(String, String)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut rows = vec![
        ("System".to_owned(), system()),
        ("Processor".to_owned(), format!("{}, {}", processor(), counted(cores, "core"))),
    ];
    rows.extend(memory().map(|total| ("Memory".to_owned(), bytes(total))));
    rows.extend(adapters(devices));
    rows
}

/// Every adapter once, however many of its queues are devices.
fn adapters(devices: &[String]) -> Vec<(String, String)> {
    let index = |device: &String| device.strip_prefix("gpu:")?.split('/').next()?.parse().ok();
    let mut used: Vec<usize> = devices.iter().filter_map(index).collect();
    used.sort_unstable();
    used.dedup();
    if used.is_empty() {
        return Vec::new();
    }
    let gpus = gpu_lines();
    let row = |index: usize| Some((format!("gpu:{index}"), gpus.get(index)?.clone()));
    used.into_iter().filter_map(row).collect()
}

fn system() -> String {
    // What a distribution calls itself is more than its name and version.
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let named = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let named = named.map(|name| name.trim_matches('"').to_owned());
    let name = named.or_else(System::long_os_version);
    let name = name.unwrap_or_else(|| std::env::consts::OS.to_owned());
    format!("{name} on {}", std::env::consts::ARCH)
}
