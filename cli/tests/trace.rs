//! Promise: the trace of a run says of it what the run says itself.

#[path = "../../plan/tests/trace/reader.rs"]
mod reader;

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use reader::{id, read};

#[test]
fn the_bubble_of_the_trace_is_the_one_that_the_run_reports() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("trace.json");
    let options = "train --json --devices cpux2 --schedule zb-v --steps 30 --layers 4 --width 16 \
                   --heads 2 --context 8 --microbatches 12 --microbatch-size 1 --trace";
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    let output = command.args(options.split_whitespace()).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trace: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let read = read(&trace);
    read.check();

    let other = &trace["otherData"];
    let of = id(other, "figures_of_step");
    let steps: Vec<u64> =
        other["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect();
    let last: Vec<u64> = (11..=30).collect();
    assert!(steps.ends_with(&last) && steps.contains(&of) && steps.len() <= 21, "{steps:?}");

    let start = read.of_step("action", of).map(|(_, s)| s.start).fold(f64::INFINITY, f64::min);
    let end = read.of_step("action", of).map(|(_, s)| s.end).fold(0.0, f64::max);
    let length = |cat: &str, device: u64| -> f64 {
        let slices = read.of_step(cat, of).filter(|(pid, _)| *pid == device);
        slices.map(|(_, slice)| slice.end - slice.start).sum()
    };
    let devices = [2, 3];
    let whole = 2.0 * (end - start);
    let busy: f64 = devices.iter().map(|device| length("action", *device)).sum();
    let idle: f64 = devices.iter().map(|device| length("idle", *device)).sum();
    let span_idle = |device: u64| {
        let slices = || read.of_step("action", of).filter(|(pid, _)| *pid == device);
        let first = slices().map(|(_, s)| s.start).fold(f64::INFINITY, f64::min);
        let last = slices().map(|(_, s)| s.end).fold(0.0, f64::max);
        1.0 - length("action", device) / (last - first)
    };
    let bubble = |key: &str| report["bubble"][key].as_f64().unwrap();
    // Both ends of every slice are rounded to nanoseconds; times are in microseconds.
    let slices = read.of_step("action", of).count() + read.of_step("idle", of).count();
    let rounding = 1e-3 * (slices + 1) as f64 / (end - start);
    let near = |a: f64, b: f64| assert!((a - b).abs() < rounding, "{a} is not {b}");
    // A device that is done may update while another one still acts: no bubble counts that as busy.
    let before_end = |slice: &reader::Slice| (slice.end.min(end) - slice.start).max(0.0);
    let updating: f64 = read.of_step("update", of).map(|(_, slice)| before_end(slice)).sum();
    near((idle + updating) / whole, bubble("step"));
    near(1.0 - busy / whole, bubble("step"));
    near(devices.map(span_idle).into_iter().fold(0.0, f64::max), bubble("span"));
    assert_eq!(read.of_step("update", of).count(), 2);
    // Four stages, F, B and W of each; three boundaries, one of them within a device.
    let actions: Vec<&str> = read.of_step("action", of).map(|(_, s)| s.name.as_str()).collect();
    assert_eq!(actions.len(), 4 * 3 * 12);
    assert_eq!(actions.iter().collect::<HashSet<_>>().len(), actions.len());
    assert_eq!(read.arrows.len(), steps.len() * 2 * 2 * 12);
    assert_eq!(read.counters.len(), devices.len());
}
