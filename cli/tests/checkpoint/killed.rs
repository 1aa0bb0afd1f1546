//! Ends that nothing can prepare for.

use std::collections::HashSet;
use std::process::Stdio;

use crate::harness::{Folder, hash};

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// While it prepares.
    Start,
    /// While it writes a checkpoint of this step or a later one.
    Write(u64),
    /// When it has written a checkpoint of this step or a later one.
    Written(u64),
}

impl Moment {
    /// Whether it has come, judged by the names in the folder.
    fn has_come(self, names: &[String]) -> bool {
        let step = |name: &str| name.split(['-', '.']).find_map(|part| part.parse().ok());
        let reached = |name: &&String, from: u64| step(name).is_some_and(|step: u64| step >= from);
        match self {
            Moment::Start => true,
            Moment::Write(from) => {
                names.iter().any(|name| name.ends_with(".partial") && reached(&name, from))
            }
            Moment::Written(from) => {
                names.iter().any(|name| name.starts_with("step-") && reached(&name, from))
            }
        }
    }
}

/// Kills runs, each of which continues the one before, at moments that `seed` decides, and compares
/// the weights at the end with those of a run that was left alone.
fn killed(devices: &str, kills: u64, seed: u64) {
    let folder = Folder::new(&format!("killed-{}", devices.replace(':', "-")));
    let steps = (4 * kills).to_string();
    let common = ["--devices", devices, "--steps", &steps];
    let saving = ["--checkpoint-every", "1", "--checkpoint-keep", "2", "--resume"];
    let arguments = [&common[..], &saving].concat();
    let mut torn = HashSet::new();
    let mut state = seed;
    for kill in 0..kills {
        let last = folder
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix("step-")?.parse().ok())
            .max()
            .unwrap_or(0);
        // Knuth's generator (1997, "Seminumerical Algorithms", 3.3.4).
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = last + 1 + (state >> 60) % 3;
        let moment = match kill % 5 {
            0 => Moment::Start,
            1 => Moment::Written(from),
            _ => Moment::Write(from),
        };
        let mut command = folder.saving(&arguments);
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !moment.has_come(&folder.names()) {
            let ended = run.try_wait().unwrap();
            assert!(ended.is_none(), "kill {kill}: the run ended before {moment:?}");
            std::thread::yield_now();
        }
        run.kill().unwrap();
        run.wait().unwrap();
        torn.extend(folder.names().into_iter().filter(|name| name.ends_with(".partial")));
    }
    // Each of these was killed inside its write, or the next one would have cleared it away.
    assert!(torn.len() as u64 >= kills / 4, "{torn:?}");
    let resumed = hash(&folder.saving(&arguments).output().unwrap());
    assert_eq!(resumed, folder.hash(&common), "{devices}");
    // Nothing stays but the checkpoints that are kept.
    let steps = 4 * kills;
    let kept = [steps - 1, steps].map(|step| format!("step-{step:08}"));
    assert_eq!(folder.names(), kept);
}

#[test]
fn a_run_that_is_killed_20_times_ends_with_the_same_bits() {
    killed("cpu", 20, 1);
}

#[test]
fn a_run_on_a_gpu_that_is_killed_20_times_ends_with_the_same_bits() {
    killed("gpu:0", 20, 2);
}
