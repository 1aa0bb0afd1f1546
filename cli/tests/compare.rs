//! Promise: `compare` measures every schedule that fits, says why one does not, and names a command
//! that trains as the fastest did.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TINY: &str = "compare --devices cpux2 --layers 2 --width 16 --heads 2 --context 8 \
                    --microbatch-size 1 --steps 1";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_zerobubble"))
}

fn run(more: &[&str]) -> Output {
    program().args(TINY.split_whitespace()).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_table_has_every_variant_and_the_command_of_the_fastest_runs() {
    let output = run(&["--json", "--schedules", "1f1b,zb-v,interleaved-1f1b", "--chunks", "2,60"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = found["variants"].as_array().unwrap();
    // Each with and without recomputation; only one leaves a choice of chunks.
    assert_eq!(rows.len(), 2 + 2 + 4);
    let (mut faults, mut last) = (0, f64::INFINITY);
    for row in rows {
        if let Some(fault) = row["fault"].as_str() {
            faults += 1;
            assert!(row["tokens_per_second"].is_null() && row["chunks"] == 60, "{row}");
            assert!(fault.contains("cannot fill 120 stages"), "{row}");
            continue;
        }
        let speed = row["tokens_per_second"].as_f64().unwrap();
        assert!(faults == 0 && speed > 0.0 && speed <= last, "{row}");
        last = speed;
        for field in ["bubble", "peak_bytes"] {
            assert!(row[field]["predicted"].is_number() && row[field]["measured"].is_number());
        }
        assert!(row["moved_bytes"].as_u64().unwrap() > 0 && row["microbatches"] == 8, "{row}");
        assert_eq!(row["step_seconds"].as_array().unwrap().len(), 1);
    }
    assert!(faults == 2 && found["interrupted"] == false, "{found}");
    let command = found["command"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    let trained = program().args(&words[1..]).args(["--steps", "1", "--json"]).output().unwrap();
    assert!(trained.status.success(), "{command}: {}", text(&trained.stderr));
    let trained: Value = serde_json::from_slice(&trained.stdout).unwrap();
    assert_eq!(trained["schedule"], rows[0]["schedule"]);
}

#[test]
fn people_read_a_table_the_faults_and_the_command() {
    let output = run(&["--schedules", "gpipe,interleaved-1f1b", "--chunks", "2,60"]);
    let (shown, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    for part in
        ["tokens/s", "not compared\n", "fastest   ", "\n          zerobubble train --devices"]
    {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(told.contains("step 1/") && told.contains("ETA"), "{told}");
}

#[test]
fn where_nothing_fits_it_says_what_to_try() {
    let output = run(&["--schedules", "gpipe", "--memory-limit-per-device", "20000"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().count() == 1 && error.contains("(try: "), "{error}");
}

#[test]
fn what_is_no_option_of_it_is_wrong_usage() {
    let rows: [(&[&str], &str); 5] = [
        (&["--schedules", "1f1b,zb"], "v-min, dualpipe-v, auto, dynamic)"),
        (&["--recompute", "some"], "none, stage or auto"),
        (&["--microbatches", "4,0"], "invalid value '0' for '--microbatches"),
        (&["--checkpoint", "folder"], "unexpected argument '--checkpoint'"),
        (&["--trace", "file"], "unexpected argument '--trace'"),
    ];
    for (more, expected) in rows {
        let output = run(more);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.lines().count() == 1 && error.contains(expected), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_gives_the_table_so_far() {
    let mut child = program()
        .args(TINY.trim_end_matches(" --steps 1").split_whitespace())
        .args(["--schedules", "1f1b,zb-v", "--steps", "10000", "--json"])
        .args(["--recompute", "none"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first step warms up; a line later there are steps that count.
    let told = |line: &std::io::Result<String>| line.as_ref().unwrap().starts_with("step ");
    assert!(lines.by_ref().filter(told).nth(1).is_some());
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let last = lines.map(Result::unwrap).last().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{last}");
    assert!(last.starts_with("interrupted"), "{last}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["interrupted"], true);
    let rows = found["variants"].as_array().unwrap();
    assert!(rows[0]["tokens_per_second"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["command"].as_str().unwrap().contains("--schedule 1f1b"), "{found}");
}
