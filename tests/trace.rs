//! Promise: a trace is in Chrome's trace event format, and says of a run what the run says itself.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use zerobubble::plan::{
    BufferBytes, CheckedPlan, Costs, FAMILIES, PerWork, check, generate, simulate,
};
use zerobubble::trace::{Label, RecordedStep, Recording, Span, Timeline, chrome};

/// A nanosecond, in microseconds: times are rounded to it.
const ROUNDING: f64 = 1e-3;

/// A span of a track.
#[derive(Debug, Clone)]
struct Slice {
    name: String,
    cat: String,
    start: f64,
    end: f64,
    args: Value,
}

/// Process and thread.
type Track = (u64, u64);

/// A trace whose every event was found to be one that viewers read.
#[derive(Debug, Default)]
struct Trace {
    slices: BTreeMap<Track, Vec<Slice>>,
    /// Where and when each arrow starts, and where and when it ends.
    arrows: BTreeMap<u64, [Option<(Track, f64)>; 2]>,
    counters: BTreeMap<u64, Vec<u64>>,
    /// Names of processes and threads.
    names: HashMap<(u64, Option<u64>), String>,
}

fn number(event: &Value, key: &str) -> f64 {
    let number = event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"));
    assert!(number.is_finite() && number >= 0.0, "{key} of {event}");
    number
}

fn id(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

fn read(trace: &Value) -> Trace {
    let mut read = Trace::default();
    let mut latest: HashMap<Track, f64> = HashMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        let name = event["name"].as_str().unwrap().to_owned();
        let (ts, track) = (number(event, "ts"), (id(event, "pid"), id(event, "tid")));
        assert!(event["args"].is_object() && track.0 > 0, "{event}");
        let ph = event["ph"].as_str().unwrap();
        if ph == "M" {
            let thread = (name == "thread_name").then_some(track.1);
            if name != "process_sort_index" {
                assert!(["process_name", "thread_name"].contains(&name.as_str()), "{event}");
                let name = event["args"]["name"].as_str().unwrap().to_owned();
                assert_eq!(read.names.insert((track.0, thread), name), None, "{event}");
            }
            continue;
        }
        let before = latest.insert(track, ts).unwrap_or(0.0);
        assert!(before <= ts, "{event} comes after {before}");
        match ph {
            "X" => read.slices.entry(track).or_default().push(Slice {
                name,
                cat: event["cat"].as_str().unwrap().to_owned(),
                start: ts,
                end: ts + number(event, "dur"),
                args: event["args"].clone(),
            }),
            "C" => {
                let values = event["args"].as_object().unwrap().values();
                let values = values.map(|value| value.as_u64().expect("a number, not negative"));
                read.counters.entry(track.0).or_default().extend(values);
            }
            "s" | "f" => {
                assert_eq!(event["cat"], "parcel");
                assert_eq!(event["bp"].as_str(), (ph == "f").then_some("e"));
                let end = usize::from(ph == "f");
                let ends = read.arrows.entry(id(event, "id")).or_default();
                assert_eq!(ends[end].replace((track, ts)), None, "{event}");
            }
            _ => panic!("{event}"),
        }
    }
    read
}

impl Trace {
    /// The span in which an arrow has an end.
    fn slice(&self, (track, ts): (Track, f64)) -> &Slice {
        let mut open = self.slices[&track].iter().filter(|s| s.start <= ts && ts < s.end);
        open.next().unwrap_or_else(|| panic!("no span at {ts} of {track:?}"))
    }

    fn check(&self) {
        for (track, slices) in &self.slices {
            assert!(self.names.contains_key(&(track.0, Some(track.1))), "{track:?} has no name");
            assert!(self.names.contains_key(&(track.0, None)), "{track:?} has no process");
            for pair in slices.windows(2) {
                assert!(pair[0].end <= pair[1].start + ROUNDING, "{pair:?} overlap");
            }
        }
        for ends in self.arrows.values() {
            let [Some(from), Some(to)] = *ends else { panic!("half an arrow: {ends:?}") };
            let (made, taken) = (self.slice(from), self.slice(to));
            assert!(from.1 <= to.1 && from.0 != to.0, "{made:?} to {taken:?}");
            assert!((made.end - from.1).abs() <= 2.0 * ROUNDING && taken.start == to.1);
            let [stage, next] = [made, taken].map(|slice| id(&slice.args, "stage"));
            assert_eq!(stage.abs_diff(next), 1, "{made:?} to {taken:?}");
            for key in ["step", "microbatch"] {
                assert_eq!(made.args[key], taken.args[key], "{made:?} to {taken:?}");
            }
        }
    }

    /// The spans of a category in a step, with their process.
    fn of_step<'a>(
        &'a self,
        cat: &'a str,
        step: u64,
    ) -> impl Iterator<Item = (u64, &'a Slice)> + 'a {
        let slices = self.slices.iter().flat_map(|((pid, _), all)| all.iter().map(|s| (*pid, s)));
        slices.filter(move |(_, slice)| slice.cat == cat && slice.args["step"] == step)
    }
}

/// A plan on paper as if it had been measured, twice.
fn simulated(plan: &CheckedPlan, costs: &Costs) -> (Timeline, Value) {
    let timeline = simulate(plan, costs).unwrap().timeline;
    let devices: Vec<String> = (0..timeline.lanes.len()).map(|k| format!("cpu:{k}")).collect();
    let step = |number: u64, start: f64| RecordedStep {
        number,
        start,
        seconds: 1e4,
        loss: 0.5,
        timeline: &timeline,
    };
    let steps = [step(7, 0.0), step(8, 1e4)];
    let recording = Recording { plan, costs, devices: &devices, steps: &steps, figures_of: 7 };
    let text = chrome(&recording);
    assert_eq!(text, chrome(&recording));
    let trace = serde_json::from_str(&text).unwrap();
    (timeline, trace)
}

#[test]
fn every_family_makes_events_that_viewers_read() {
    for family in FAMILIES {
        for (p, m) in [(1, 1), (2, 3), (4, 12)] {
            let plan = check(generate(family, p, None, m).unwrap()).unwrap();
            let mut costs = Costs::unit(plan.plan().placement.stage_count());
            costs.stages.iter_mut().for_each(|stage| stage.bytes.forward_for_w = 10);
            costs.buffers = vec![Some(BufferBytes { fixed: 1, stash: 77 })];
            let (timeline, trace) = simulated(&plan, &costs);
            let read = read(&trace);
            read.check();
            let actions = timeline.lanes.iter().flatten().count();
            for step in [7, 8] {
                assert_eq!(read.of_step("action", step).count(), actions, "{family}");
            }
            let crossing = plan.plan().placement.links().count();
            let ways = if plan.is_forward_only() { crossing / 2 } else { crossing };
            assert_eq!(read.arrows.len(), 2 * ways * m as usize, "{family}");
            assert!(read.counters[&2].iter().all(|bytes| *bytes == 77), "{family}");
        }
    }
}

#[test]
fn the_counter_is_the_stash_that_the_plan_was_predicted_to_have() {
    let lanes = "device 0: 0F0 0F1 0B0 0W0 0BW1\n";
    let text = format!("schedule test\nmicrobatches 2\nplacement 0\n{lanes}");
    let plan = check(text.parse().unwrap()).unwrap();
    let mut costs = Costs::unit(1);
    let bytes = &mut costs.stages[0].bytes;
    (bytes.forward_for_b, bytes.forward_for_w, bytes.backward_for_w) = (1, 10, 100);
    bytes.working = PerWork([1000, 2000, 3000]);
    let read = read(&simulated(&plan, &costs).1);
    let pairs = [[1000, 11], [1011, 22], [2022, 121], [3121, 11], [3110, 0]].concat();
    assert_eq!(read.counters[&2], [&pairs[..], &pairs[..]].concat());
}

#[test]
fn transfers_and_updates_have_their_places() {
    let text = "schedule test\nmicrobatches 1\nplacement 0\ndevice 0: 0F0 0BW0\n";
    let plan = check(text.parse().unwrap()).unwrap();
    let span = |label: Label, start: f64, end: f64| Span { label, start, end };
    let action = |name: &str| Label::Action(name.parse().unwrap());
    let timeline = Timeline {
        lanes: vec![vec![
            span(action("0F0"), 0.5, 1.0),
            span(action("0BW0"), 1.5, 2.0),
            span(Label::Update, 2.25, 2.5),
        ]],
        transfers: vec![vec![span(Label::Transfer, 0.25, 0.75)]],
    };
    let step =
        RecordedStep { number: 1, start: 10.0, seconds: 3.0, loss: 1.0, timeline: &timeline };
    let costs = Costs::unit(1);
    let devices = ["gpu:0".to_owned()];
    let recording =
        Recording { plan: &plan, costs: &costs, devices: &devices, steps: &[step], figures_of: 1 };
    let trace = read(&serde_json::from_str(&chrome(&recording)).unwrap());
    trace.check();
    let shown: Vec<(u64, &str, f64, f64)> = trace
        .slices
        .iter()
        .flat_map(|((_, tid), all)| all.iter().map(move |s| (*tid, &*s.name, s.start, s.end)))
        .collect();
    let expected = [
        (1, "step 1", 10e6, 13e6),
        (1, "0F0", 10.5e6, 11e6),
        (1, "idle", 11e6, 11.5e6),
        (1, "0BW0", 11.5e6, 12e6),
        (1, "update", 12.25e6, 12.5e6),
        (2, "transfer", 10.25e6, 10.75e6),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_bubble_of_the_trace_is_the_one_that_the_run_reports() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trace.json");
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
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    near(idle / whole, bubble("step"));
    near(1.0 - busy / whole, bubble("step"));
    near(devices.map(span_idle).into_iter().fold(0.0, f64::max), bubble("span"));
    assert_eq!(read.of_step("update", of).count(), 2);
    // Four stages, F, B and W of each; three boundaries, one of them within a device.
    assert_eq!(read.of_step("action", of).count(), 4 * 3 * 12);
    assert_eq!(read.arrows.len(), steps.len() * 2 * 2 * 12);
}
