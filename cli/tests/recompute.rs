//! Promise: recomputation is chosen on the command line as in the library, and the run says where
//! it is.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_command_line_says_which_stages_compute_again() {
    let run = |recompute: &str| {
        let line = "train --steps 1 --layers 2 --width 16 --heads 2 --context 8 --microbatches 3 \
            --microbatch-size 1 --devices cpux2 --json --recompute";
        let arguments = line.split_whitespace().chain([recompute]);
        Command::new(env!("CARGO_BIN_EXE_zerobubble")).args(arguments).output().unwrap()
    };
    let report = |recompute| -> Value { serde_json::from_slice(&run(recompute).stdout).unwrap() };
    let (none, stage, auto) = (report("none"), report("stage"), report("auto"));
    assert_eq!(stage["recomputed"], Value::from(vec![0, 1]));
    assert!(stage["stages"][1].as_str().unwrap().ends_with("F again before B"), "{stage}");
    for other in [none, auto] {
        assert_eq!(other["recomputed"], Value::from(Vec::<u32>::new()));
        assert!(!other["stages"][1].as_str().unwrap().contains("again"), "{other}");
        assert_eq!(other["weights_hash"], stage["weights_hash"]);
    }
    let wrong = run("all");
    assert_eq!(wrong.status.code(), Some(2));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        error.contains("there is no recomputation 'all' (try: none, stage or auto)"),
        "{error}"
    );
}
