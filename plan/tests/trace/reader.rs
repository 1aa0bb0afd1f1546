//! Chrome's trace events as spans, arrows and counters; what viewers would not read is refused.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// A nanosecond, in microseconds: times are rounded to it.
const ROUNDING: f64 = 1e-3;

/// A span of a track.
#[derive(Debug, Clone)]
pub struct Slice {
    pub name: String,
    pub cat: String,
    pub start: f64,
    pub end: f64,
    pub args: Value,
}

/// Process and thread.
pub type Track = (u64, u64);

/// A trace whose every event was found to be one that viewers read.
#[derive(Debug, Default)]
pub struct Trace {
    pub slices: BTreeMap<Track, Vec<Slice>>,
    /// Where and when each arrow starts, and where and when it ends.
    pub arrows: BTreeMap<u64, [Option<(Track, f64)>; 2]>,
    pub counters: BTreeMap<u64, Vec<u64>>,
    /// Names of processes and threads.
    pub names: HashMap<(u64, Option<u64>), String>,
}

fn number(event: &Value, key: &str) -> f64 {
    let number = event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"));
    assert!(number.is_finite() && number.is_sign_positive(), "{key} of {event}");
    number
}

pub fn id(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

pub fn read(trace: &Value) -> Trace {
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

    pub fn check(&self) {
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
    pub fn of_step<'a>(
        &'a self,
        cat: &'a str,
        step: u64,
    ) -> impl Iterator<Item = (u64, &'a Slice)> + 'a {
        let slices = self.slices.iter().flat_map(|((pid, _), all)| all.iter().map(|s| (*pid, s)));
        slices.filter(move |(_, slice)| slice.cat == cat && slice.args["step"] == step)
    }
}
