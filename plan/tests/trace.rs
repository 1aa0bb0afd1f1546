//! Promise: a trace is in Chrome's trace event format, and shows what its timeline says.

#[path = "trace/reader.rs"]
mod reader;

use std::io::{self, Write};

use serde_json::Value;
use zerobubble_plan::trace::{Label, RecordedStep, Recording, Span, Timeline, chrome};
use zerobubble_plan::{
    BufferBytes, CheckedPlan, Costs, FAMILIES, PerWork, check, generate, simulate,
};

use reader::read;

fn written(recording: &Recording) -> String {
    let mut trace = Vec::new();
    chrome(recording, &mut trace).unwrap();
    String::from_utf8(trace).unwrap()
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
    // The sum of no times is -0.0.
    let steps = [step(7, -0.0), step(8, 1e4)];
    let recording =
        Recording { plan, costs, devices: &devices, steps: &steps, figures_of: Some(7) };
    let text = written(&recording);
    assert_eq!(text, written(&recording));
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
    let recording = Recording {
        plan: &plan,
        costs: &costs,
        devices: &devices,
        steps: &[step],
        figures_of: Some(1),
    };
    let trace = read(&serde_json::from_str(&written(&recording)).unwrap());
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

/// The largest piece that was written at once.
#[derive(Default)]
struct Largest(usize);

impl Write for Largest {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0 = self.0.max(piece.len());
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_is_never_held_as_a_whole() {
    let plan = check(generate(FAMILIES[0], 4, None, 64).unwrap()).unwrap();
    let costs = Costs::unit(plan.plan().placement.stage_count());
    let timeline = simulate(&plan, &costs).unwrap().timeline;
    let devices: Vec<String> = (0..4).map(|device| format!("cpu:{device}")).collect();
    let step = |number| RecordedStep {
        number,
        start: 1e4 * number as f64,
        seconds: 1e4,
        loss: 0.5,
        timeline: &timeline,
    };
    let steps: Vec<_> = (1..9).map(step).collect();
    let (costs, devices) = (&costs, &devices);
    let recording = Recording { plan: &plan, costs, devices, steps: &steps, figures_of: Some(1) };
    let mut largest = Largest::default();
    chrome(&recording, &mut largest).unwrap();
    assert!(largest.0 < 1024, "{} bytes at once", largest.0);
}
