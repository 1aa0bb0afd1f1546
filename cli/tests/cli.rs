//! Promise: the command line keeps its contract: one JSON object or text on stdout, progress and
//! one-line errors on stderr, exit code 0, 1 or 2.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A run that ends in a moment: two steps of a tiny model.
const TINY: [&str; 15] = [
    "train",
    "--steps",
    "2",
    "--layers",
    "2",
    "--width",
    "16",
    "--heads",
    "2",
    "--context",
    "8",
    "--microbatches",
    "3",
    "--microbatch-size",
    "1",
];

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zerobubble")).args(arguments).output().unwrap()
}

fn tiny(arguments: &[&str]) -> Output {
    run(&[&TINY[..], arguments].concat())
}

/// So many steps.
fn longer(steps: &str, arguments: &[&str]) -> Output {
    run(&[&["train", "--steps", steps], &TINY[3..], arguments].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one JSON object on the stdout of a run that succeeded.
fn json(output: &Output) -> Value {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let value: Value = serde_json::from_str(stdout).unwrap();
    assert!(value.is_object(), "{value}");
    value
}

fn numbers(value: &Value) -> Vec<f64> {
    let array = value.as_array().unwrap_or_else(|| panic!("{value} is no array"));
    array.iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The run must fail with `code`, nothing on stdout, and one line that contains `expected`.
fn check_failure(output: &Output, code: i32, expected: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{expected}: {stderr}");
    assert_eq!(stdout, "", "{expected}");
    assert_eq!(stderr.lines().count(), 1, "{expected}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(expected), "{expected}: {stderr}");
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn file(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let rows: [(&[&str], &str); 36] = [
        (&["retrain"], "unrecognized subcommand 'retrain'"),
        (&["--fast"], "unexpected argument '--fast'"),
        (&["--json", "--steps", "3"], "'--steps' without a command (try: train --steps)"),
        (&["plan", "--schedul", "1f1b"], "a similar argument exists: '--schedule'"),
        (
            &["plan", "--schedule", "zb"],
            "there is no schedule 'zb' (try: gpipe, 1f1b, interleaved-1f1b, looped",
        ),
        (&["plan", "--stages", "0"], "invalid value '0' for '--stages"),
        (&["plan", "--stages", "four"], "invalid value 'four' for '--stages"),
        (
            &["plan", "--stages", "1000", "--microbatches", "1000"],
            "(try: fewer --stages or --microbatches: their product at most 65536)",
        ),
        (
            &["plan", "--schedule", "auto", "--stages", "1000", "--microbatches", "1000"],
            "(try: fewer --stages or --microbatches: their product at most 524288)",
        ),
        (&["plan", "--schedule", "dynamic", "--chunks", "3"], "dynamic with 3 chunks per device"),
        (&["train", "--schedule", "dynamic", "--chunks", "3"], "it takes 1 or 2"),
        (&["plan", "--cost", "1,2"], "'1,2' has 2 times, F,B,W are three"),
        (&["plan", "--cost", "1,-1,1"], "'-1' is not a time"),
        (&["plan", "--cost", "1,nan,1"], "'nan' is not a time"),
        (&["plan", "--cost", "1,1,1;2,2,2"], "--cost has 2 triples for 4 devices"),
        (&["plan", "--cost", "1e308,1e308,1e308"], "more than a number can hold"),
        (&["plan", "--format", "text", "--json"], "contradict"),
        (&["train", "--microbatches", "0"], "invalid value '0' for '--microbatches"),
        (&["train", "--microbatch-size", "0"], "invalid value '0' for '--microbatch-size"),
        (&["train", "--steps", "0"], "invalid value '0' for '--steps"),
        (&["train", "--schedule", "zb"], "v-min, dualpipe-v, auto, dynamic)"),
        (&["train", "--schedule", "forward-only"], "forward-only has no backward work"),
        (&["train", "--report", "new.html", "--trace", "./new.html"], "--report and --trace"),
        (&["bench", "--devices", "gpu:99"], "or bench without --devices)"),
        (&["bench", "plan", "--steps", "3"], "cannot be used with '--steps <N>'"),
        (&["train", "--learning-rate=-1"], "'-1' is not a learning rate, 0 or more"),
        (&["train", "--max-skips", "3"], "no step is skipped (try: --on-nan skip)"),
        (&["train", "--steps", "3", "--warmup", "3"], "a warm-up of 3 in 3 steps"),
        (&["train", "--min-learning-rate", "1e-4"], "--learning-rate-schedule cosine"),
        (
            &["train", "--learning-rate", "2", "--learning-rate-schedule", "cosine"],
            "learning rate must be greater than 0 and at most 1",
        ),
        (&["train", "--on-nan", "ignore"], "invalid value 'ignore' for '--on-nan"),
        (&["train", "--clip-norm", "0"], "'0' is not a norm above 0"),
        (&["train", "--post-validation"], "--clip-norm <R>"),
        (&["train", "--width", "10", "--heads", "4"], "cannot be divided among 4 heads"),
        (&["train", "--activations", "f64"], "activations are not stored as 'f64'"),
        (&["train", "--devices", "cpu", "--activations", "f16"], "cpu:0 stores no activations"),
    ];
    for (arguments, expected) in rows {
        check_failure(&run(arguments), 2, expected);
    }
}

#[test]
fn an_unknown_device_is_named() {
    let rows = [
        ("tpu", "error: 'tpu' is not a device (try: "),
        ("cpu,tpu", "error: 'tpu' is not a device (try: "),
        ("cpux0", "error: '0' in 'cpux0' is not a number of devices (try: "),
        ("cpux", "error: '' in 'cpux' is not a number of devices (try: "),
        ("gpu:99", "error: gpu:99: there "),
        ("", "error: '' is not a device (try: "),
    ];
    for (spec, expected) in rows {
        check_failure(&tiny(&["--devices", spec]), 2, expected);
    }
}

#[test]
fn an_unusable_text_is_named() {
    let folder = folder();
    let rows: [(PathBuf, &str); 4] = [
        (file(&folder, "empty.txt", b""), "the text is empty"),
        (file(&folder, "latin1.txt", b"caf\xe9"), "not UTF-8 text: byte 3"),
        (
            file(&folder, "short.txt", "ab".repeat(40).as_bytes()),
            "a context of 8 is too long for the held-out part of 8",
        ),
        (folder.path().join("absent.txt"), "cannot be read"),
    ];
    for (path, expected) in rows {
        let path = path.to_str().unwrap();
        let output = tiny(&["--text", path]);
        check_failure(&output, 1, expected);
        check_failure(&output, 1, path);
    }
    // Other files that are read are named alike.
    for option in ["--config", "--plan"] {
        for name in ["absent.txt", "latin1.txt"] {
            let path = folder.path().join(name);
            let output = tiny(&[option, path.to_str().unwrap()]);
            check_failure(&output, 1, &format!("{name}: cannot be read: "));
            check_failure(&output, 1, "(try: ");
        }
    }
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    check_failure(&tiny(&["--devices", "cpux64"]), 2, "6 blocks cannot fill 64 stages");
    check_failure(&tiny(&["--memory-limit-per-device", "1000"]), 1, "the limit is 1000");
    check_failure(&run(&["plan", "--memory-limit", "3"]), 1, "a limit of 4");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_with_the_step() {
    let output = tiny(&["--learning-rate", "1e30", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("step ")).collect();
    assert!(matches!(errors[..], [line] if line.starts_with("error: step ")), "{stderr}");
    assert!(errors[0].contains("stage "), "{stderr}");
}

#[test]
fn a_skipped_step_is_told_and_the_run_goes_on() {
    let output = longer("4", &["--learning-rate", "1e30", "--on-nan", "skip", "--json"]);
    let stderr = text(&output.stderr);
    let skipped = stderr.lines().filter(|line| line.starts_with("skipped: step "));
    assert_eq!(skipped.count(), 3, "{stderr}");
    // The weights are no numbers, and so the last evaluation is none either.
    assert_eq!(json(&output)["held_out"]["loss"], Value::Null, "{stderr}");
}

#[test]
fn evaluations_are_told_and_change_nothing_that_is_learned() {
    let plain = json(&longer("5", &["--json"]));
    let output = longer("5", &["--evaluate-every", "2", "--devices", "cpux2", "--json"]);
    let evaluated = json(&output);
    for same in ["weights_hash", "losses", "held_out", "skipped"] {
        assert_eq!(plain[same], evaluated[same], "{same}");
    }
    let steps = |report: &Value| {
        let all = report["evaluations"].as_array().unwrap();
        let step = |of: &Value| (of["step"].as_u64().unwrap(), of["loss"].as_f64().unwrap());
        all.iter().map(step).collect::<Vec<_>>()
    };
    let (few, more) = (steps(&plain), steps(&evaluated));
    assert_eq!(more.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 4, 5]);
    assert_eq!([few[0], few[1]], [more[0], more[3]]);
    let stderr = text(&output.stderr);
    for step in [2, 4] {
        let line = format!("step {step}/5  held-out loss {:.4}", more[step / 2].1);
        assert!(stderr.lines().any(|told| told == line), "no '{line}' in\n{stderr}");
    }
}

#[test]
fn a_file_of_options_is_as_the_options_themselves() {
    let learned = |arguments: &[&str]| {
        let report = json(&run(&[&["train", "--json"], arguments].concat()));
        (report["weights_hash"].clone(), report["schedule"].clone())
    };
    let options = [
        ("steps", "2"),
        ("layers", "2"),
        ("width", "16"),
        ("heads", "2"),
        ("context", "8"),
        ("microbatches", "3"),
        ("microbatch-size", "1"),
        ("schedule", "\"gpipe\""),
        ("learning-rate-schedule", "\"cosine\""),
        ("warmup", "1"),
    ];
    let lines = options.map(|(name, value)| format!("{name} = {value}\n")).concat();
    let folder = folder();
    let file = file(&folder, "options.toml", lines.as_bytes());
    let file = ["--config", file.to_str().unwrap()];
    let flags = options.map(|(name, value)| format!("--{name}={}", value.trim_matches('"')));
    let flags = flags.each_ref().map(String::as_str);
    let one = learned(&flags);
    assert_eq!(learned(&file), one);
    let (hash, schedule) = learned(&[&file[..], &["--warmup", "0", "--schedule", "1f1b"]].concat());
    assert_eq!(schedule, "1f1b");
    assert_ne!(hash, one.0);
}

#[test]
fn an_unknown_option_in_a_file_is_wrong_usage_on_its_line() {
    let folder = folder();
    for (line, expected) in [
        ("config = \"x\"", "options.toml:1: a file names no other (try: "),
        ("json = true", "options.toml:1: '--json' is for the command line alone (try: "),
        ("\0", "options.toml:1: "),
    ] {
        let file = file(&folder, "options.toml", line.as_bytes());
        let output = run(&["train", "--config", file.to_str().unwrap()]);
        check_failure(&output, 2, expected);
        check_failure(&output, 2, "(try: ");
    }
    let file = file(&folder, "unknown.toml", b"# a run\nsteps = 2\nwidht = 16\n");
    let output = run(&["train", "--config", file.to_str().unwrap()]);
    check_failure(&output, 2, "unknown.toml:3: unexpected argument '--widht'");
    check_failure(&output, 2, "'--width'");
}

#[test]
fn help_and_version_are_on_stdout() {
    for arguments in [&["--help"][..], &["help", "plan"], &["train", "--help"], &["--version"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("zerobubble"));
        assert_eq!(text(&output.stderr), "");
        let offers = text(&output.stdout).contains("forward-only");
        assert_eq!(offers, arguments == ["help", "plan"], "{arguments:?}");
    }
}

#[test]
fn devices_are_listed() {
    let list = json(&run(&["devices", "--json"]));
    let devices = list["devices"].as_array().unwrap();
    assert_eq!(devices[0]["id"], "cpu:0");
    for device in devices {
        for key in ["id", "name", "backend", "driver", "kind"] {
            assert!(device[key].is_string(), "{key} of {device}");
        }
        assert!(device["memory"].is_u64() || device["memory"].is_null(), "{device}");
        assert!(device["f16"].is_boolean(), "{device}");
    }
    let output = run(&["devices"]);
    assert_eq!(text(&output.stdout).lines().count(), devices.len() + 1);
}

#[test]
fn a_plan_is_json_with_its_figures() {
    let rows = [("gpipe", 3.0 / 15.0, 12.0), ("1f1b", 3.0 / 15.0, 4.0), ("zb-h1", 1.0 / 13.0, 4.0)];
    for (schedule, bubble, stash) in rows {
        let arguments = ["plan", "--schedule", schedule, "--microbatches", "12"];
        let plan = json(&run(&[&arguments[..], &["--json"]].concat()));
        assert_eq!(plan, json(&run(&[&arguments[..], &["--format", "json"]].concat())));
        let lanes = plan["lanes"].as_array().unwrap();
        assert_eq!((lanes.len(), &lanes[0][0]), (4, &Value::from("0F0")));
        for key in ["step_bubble", "span_bubble"] {
            assert!((plan[key].as_f64().unwrap() - bubble).abs() < 1e-12, "{schedule}: {plan}");
        }
        let makespan = plan["makespan"].as_f64().unwrap();
        assert!((makespan - 36.0 / (1.0 - bubble)).abs() < 1e-9, "{schedule}: {makespan}");
        assert!(plan["lower_bound"].as_f64().unwrap() <= makespan);
        assert_eq!(numbers(&plan["peak_stash"])[0], stash, "{schedule}");
    }
}

#[test]
fn a_plan_is_drawn_with_the_costs_and_transfers_it_is_given() {
    let output = run(&[
        "plan",
        "--schedule",
        "gpipe",
        "--stages",
        "2",
        "--microbatches",
        "2",
        "--cost",
        "1,1,1;2,1,1",
        "--transfer",
        "0.5",
    ]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "\
gpipe, 2 devices, 2 microbatches

device 0 |F0--F1--........................BW0-----BW1-----|  50.0% busy
device 1 |......F0------F1------BW0-----BW1-----..........|  66.7% busy
F forward, B input gradient, W weight gradient, . idle

makespan     12 (no order of this work takes less than 10)
step bubble  41.7%
span bubble  50.0%
peak stash   2 2 (microbatches of each device)
"
    );
}

#[test]
fn a_searched_plan_stashes_no_more_than_the_limit_and_names_the_best_family() {
    for limit in ["4", "5"] {
        let arguments = ["plan", "--schedule", "auto", "--stages", "8", "--cost", "8,8,8"];
        let more = ["--microbatches", "8", "--memory-limit", limit, "--json"];
        let plan = json(&run(&[&arguments[..], &more].concat()));
        let limit: f64 = limit.parse().unwrap();
        assert!(numbers(&plan["peak_stash"]).iter().all(|peak| *peak <= limit), "{plan}");
        assert!(plan["best_family"]["makespan"].as_f64() >= plan["makespan"].as_f64());
    }
}

#[test]
fn training_reports_as_json_and_tells_its_progress_on_stderr() {
    let output = tiny(&["--devices", "cpux2", "--json"]);
    let report = json(&output);
    assert_eq!(report["devices"].as_array().unwrap().len(), 2);
    assert_eq!(report["stages"].as_array().unwrap().len(), 2);
    assert_eq!(report["schedule"], "zb-h1");
    assert!(report["parameters"].as_u64().unwrap() > 1000);
    assert_eq!(numbers(&report["losses"]).len(), 2);
    assert_eq!(numbers(&report["step_seconds"]).len(), 2);
    assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0);
    for key in
        ["step", "span", "predicted_step", "predicted_span", "expected_step", "expected_span"]
    {
        let bubble = report["bubble"][key].as_f64().unwrap();
        assert!((0.0..1.0).contains(&bubble), "{key} {bubble}");
    }
    let parts = ["costs", "slowed", "hand_over"];
    let sum: f64 =
        parts.iter().map(|part| report["bubble"]["difference"][part].as_f64().unwrap()).sum();
    let bubble = |key: &str| report["bubble"][key].as_f64().unwrap();
    assert!((bubble("predicted_step") + sum - bubble("step")).abs() < 1e-9, "{sum}");
    for device in report["peak_bytes"].as_array().unwrap() {
        assert!(device["predicted"].as_u64().unwrap() > 0, "{device}");
        assert!(device["measured"].as_u64().unwrap() > 0, "{device}");
    }
    assert!(report["weights_hash"].is_string());
    let hashes = report["weight_hashes"].as_array().unwrap();
    assert!(hashes.iter().any(|of| of["path"] == "blocks.0.attention.query.weight"), "{hashes:?}");
    assert!(hashes.iter().all(|of| of["hash"].as_str().unwrap().len() == 32), "{hashes:?}");
    assert!(report["held_out"]["before"].is_f64() && report["held_out"]["after"].is_f64());
    // Whatever takes longer than a second has a line of its own.
    let steps = |line: &&str| line.starts_with("step ");
    let progress: Vec<&str> = text(&output.stderr).lines().filter(steps).collect();
    assert_eq!(progress.len(), 2, "{progress:?}");
    assert!(progress[1].starts_with("step 2/2  loss "), "{progress:?}");
    // CPU devices move nothing: zero has no sign.
    let transfers = report["transfers"].to_string();
    assert!(!transfers.contains("-0.0") && !text(&output.stderr).contains("-0.0"));
}

#[test]
fn neither_devices_nor_schedule_change_what_is_learned() {
    let learned = |arguments: &[&str]| {
        let report = json(&tiny(&[arguments, &["--json"]].concat()));
        ["weights_hash", "weight_hashes", "losses"].map(|key| report[key].clone())
    };
    let one = learned(&["--devices", "cpu"]);
    assert_eq!(learned(&["--devices", "cpux2", "--shadow"]), one);
    assert_eq!(learned(&["--devices", "cpux2", "--schedule", "gpipe"]), one);
    assert_eq!(learned(&["--devices", "cpu,cpu", "--schedule", "1f1b"]), one);
    assert_ne!(learned(&["--devices", "cpu", "--seed", "1"]), one);
}

#[test]
fn clipping_reports_the_norms_and_changes_weights_only_above_them() {
    let plain = json(&tiny(&["--devices", "cpu", "--json"]));
    assert_eq!(plain["gradient_norms"], Value::Array(Vec::new()));
    let clipped = |norm: &str, more: &[&str]| {
        let arguments = ["--devices", "cpux2", "--json", "--clip-norm", norm];
        json(&tiny(&[&arguments[..], more].concat()))
    };
    let loose = clipped("1000", &["--post-validation"]);
    assert_eq!(loose["weights_hash"], plain["weights_hash"]);
    assert!(numbers(&loose["gradient_norms"]).iter().all(|norm| (0.0..1000.0).contains(norm)));
    let tight = clipped("0.01", &[]);
    assert_eq!(numbers(&tight["gradient_norms"]).len(), 2);
    assert_ne!(tight["weights_hash"], plain["weights_hash"]);
    assert_eq!(clipped("0.01", &["--post-validation"])["weights_hash"], tight["weights_hash"]);
}

#[test]
fn training_tells_people_what_it_did() {
    let output = tiny(&["--devices", "cpux2", "--balance", "measured"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let parts = [
        "model     GPT of ",
        "held-out loss ",
        "tokens/s",
        "one step as planned\ndevice 0 |",
        "one step as measured\ndevice 0 |",
        "span bubble ",
        "peak of device 1 ",
        "sample of the model's text\n",
        "weights hash ",
    ];
    for part in parts {
        assert!(stdout.contains(part), "no '{part}' in\n{stdout}");
    }
}
