//! Promise: `plan --stash` says what a microbatch stashes after F and after B, and limits and peaks
//! are counted by it. With 1,1, the default, a microbatch counts whole until its W ends.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn plan(line: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    program.arg("plan").args(line.split_whitespace()).output().unwrap()
}

fn json(line: &str) -> Value {
    let output = plan(&format!("{line} --json"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(line: &str) -> (Option<i32>, String) {
    let output = plan(line);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn peaks(plan: &Value) -> Vec<f64> {
    plan["peak_stash"].as_array().unwrap().iter().map(|peak| peak.as_f64().unwrap()).collect()
}

/// The peak of every device whose chunks have even shares, from the lanes.
fn by_hand(plan: &Value, after_f: f64, after_b: f64) -> Vec<f64> {
    let lane = |lane: &Value| {
        let actions: Vec<&str> =
            lane.as_array().unwrap().iter().map(|action| action.as_str().unwrap()).collect();
        let stage = |action: &&str| action.split(['F', 'B', 'W']).next().unwrap().to_owned();
        let chunks = actions.iter().map(stage).collect::<BTreeSet<_>>().len();
        let forward_only = actions.iter().all(|action| action.contains('F'));
        let (mut held, mut most) = (0.0, 0.0f64);
        for action in actions {
            if action.contains('F') {
                held += after_f;
            }
            most = most.max(held);
            if action.contains('B') {
                held += after_b - after_f;
            }
            most = most.max(held);
            if action.contains('W') {
                held -= after_b;
            }
            if forward_only {
                held = 0.0;
            }
        }
        most / chunks as f64
    };
    plan["lanes"].as_array().unwrap().iter().map(lane).collect()
}

fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
    let same = found.len() == expected.len() && found.iter().zip(expected).all(near);
    assert!(same, "{what}: {found:?}, by hand {expected:?}");
}

const SCHEDULES: [&str; 11] = [
    "gpipe",
    "1f1b",
    "interleaved-1f1b --chunks 3",
    "zb-h1",
    "zb-h2",
    "zb-v",
    "v-half",
    "v-min",
    "dualpipe-v",
    "forward-only",
    "forward-only --chunks 3",
];

#[test]
fn where_all_is_freed_at_w_a_microbatch_counts_whole_until_then() {
    for schedule in SCHEDULES.into_iter().chain(["dynamic", "auto --memory-limit 3"]) {
        for format in ["text", "json", "svg", "csv"] {
            let line = format!("--schedule {schedule} --stages 5 --format {format}");
            let all_at_w = plan(&format!("{line} --stash 1,1"));
            assert_eq!(plan(&line), all_at_w, "{line}");
        }
    }
    for schedule in SCHEDULES {
        let plan = json(&format!("--schedule {schedule} --stages 5"));
        assert_eq!(peaks(&plan), by_hand(&plan, 1.0, 1.0), "{schedule}");
    }
}

#[test]
fn a_peak_is_what_a_calculation_by_hand_gives() {
    // Device i runs 7 - 2i forwards ahead, and then keeps 2i microbatches for W.
    let zb_h2 = json("--schedule zb-h2 --stash 1,0.35");
    assert_eq!(peaks(&zb_h2), [7.0, 5.7, 4.4, 3.1]);
    // Each device fills up with 8 halves of which B has freed none.
    let zb_v = json("--schedule zb-v --stash 1,0.35");
    assert_eq!(peaks(&zb_v), [4.0; 4]);
    for schedule in SCHEDULES {
        for (after_f, after_b) in [(1.0, 0.35), (1.0, 0.0), (1.0, 1.5), (350.0, 122.5)] {
            let line = format!("--schedule {schedule} --stages 5 --stash {after_f},{after_b}");
            let plan = json(&line);
            assert_near(&peaks(&plan), &by_hand(&plan, after_f, after_b), &line);
        }
    }
}

#[test]
fn every_output_states_the_peak_by_it() {
    let text = |line: &str| String::from_utf8(plan(line).stdout).unwrap();
    let zb_h2 = "--schedule zb-h2 --stash";
    let printed = text(&format!("{zb_h2} 1,0.35"));
    assert!(
        printed.ends_with("\npeak stash   7 5.7 4.4 3.1 (microbatches of each device)\n"),
        "{printed}"
    );
    let printed = text(&format!("{zb_h2} 2,0.7"));
    assert!(
        printed.ends_with("\npeak stash   14 11.4 8.8 6.2 (units of --stash of each device)\n"),
        "{printed}"
    );
    let picture = text(&format!("{zb_h2} 1,0.35 --format svg"));
    assert!(picture.contains(">peak stash 5.7<"), "{picture}");
}

#[test]
fn a_limit_accepts_what_fits_thanks_to_what_b_frees() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late-w.plan");
    let lane = "0F0 0B0 0F1 0B1 0F2 0B2 0W0 0W1 0W2";
    let text = format!("schedule late-w\nmicrobatches 3\nplacement 0\ndevice 0: {lane}\n");
    fs::write(&file, text).unwrap();
    let line = format!("--check {} --memory-limit 1.7", file.display());
    assert_eq!(peaks(&json(&format!("{line} --stash 1,0.35"))), [1.7]);
    let refused = "device 0 stashes 3 microbatches, the limit is 1.7 (try: a limit of 3, ";
    let (code, problem) = error(&line);
    assert!(code == Some(1) && problem.contains(refused), "{problem}");
    let line = format!("{line} --stash");
    let refused = "device 0 stashes 1.71 microbatches, the limit is 1.7 (try: a limit of 1.71, ";
    let (code, problem) = error(&format!("{line} 1,0.355"));
    assert!(code == Some(1) && problem.contains(refused), "{problem}");
    // What is printed is rounded, but never to a limit that would be refused again.
    let (_, problem) = error(&format!("{line} 1,0.35505"));
    assert!(problem.contains("(try: a limit of 1.711, "), "{problem}");
}

#[test]
fn what_is_no_stash_is_an_error_that_says_what_to_try() {
    for value in ["1", "0,1", "1,0.5,0.2", "1,-0.1", "inf,1", "1,much", "1e7,1"] {
        let (code, problem) = error(&format!("--stash={value}"));
        assert_eq!(code, Some(2), "{value}");
        assert_eq!(problem.lines().count(), 1, "{problem}");
        assert!(problem.contains("'--stash <AFTER_F,AFTER_B>'"), "{problem}");
        assert!(problem.ends_with("(try: 1,0.35)\n"), "{problem}");
    }
}
