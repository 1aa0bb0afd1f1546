//! A run whose numbers are not finite does not eat its own past.

use std::fs;

use crate::harness::{Folder, hash, report, text};

/// So large that the first update makes the weights infinite.
const DIVERGES: [&str; 4] = ["--learning-rate", "1e39", "--on-nan", "skip"];
const GOOD: [&str; 6] = ["--devices", "cpux2", "--checkpoint-every", "1", "--steps", "3"];

/// A folder with checkpoints of steps 1, 2 and 3.
fn good(test: &str) -> Folder {
    let folder = Folder::new(test);
    hash(&folder.saving(&GOOD).output().unwrap());
    folder
}

fn resumed(steps: &'static str) -> Vec<&'static str> {
    vec!["--devices", "cpux2", "--checkpoint-every", "1", "--resume", "--steps", steps]
}

#[test]
fn weights_that_are_not_finite_push_no_checkpoint_out_and_the_run_still_reports() {
    let folder = good("diverges");
    let page = folder.path("report.html");
    let mut command = folder.saving(&[&resumed("10")[..], &DIVERGES].concat());
    let output = command.arg("--report").arg(&page).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["skipped"].as_array().unwrap().len(), 6);
    assert!(found["held_out"]["after"].is_null(), "{}", found["held_out"]);
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("step-00000003"), "{stderr}");
    assert!(last.contains("nothing is saved after step 10"), "{stderr}");
    assert!(page.exists());
    assert_eq!(folder.names(), ["step-00000001", "step-00000002", "step-00000003"]);
    let again = hash(&folder.saving(&resumed("12")).output().unwrap());
    assert_eq!(again, folder.hash(&["--devices", "cpux2", "--steps", "12"]));
}

#[test]
fn so_many_skipped_steps_end_the_run_and_name_where_to_go_on() {
    let folder = good("skips");
    for (max, steps) in [("3", 3), ("10", 10)] {
        let arguments = [&resumed("40")[..], &DIVERGES, &["--max-skips", max]].concat();
        let output = folder.saving(&arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(last.contains(&format!("{steps} steps in a row were skipped")), "{stderr}");
        assert!(last.contains("step-00000003, the last good checkpoint"), "{stderr}");
        assert_eq!(folder.names(), ["step-00000001", "step-00000002", "step-00000003"]);
    }
}

#[test]
fn a_checkpoint_with_numbers_that_are_not_finite_is_passed_over_and_counts_for_nothing() {
    let folder = good("saved-nan");
    // As a version wrote it that saved whatever there was.
    for step in [2, 3] {
        let at = folder.checkpoints().join(format!("step-0000000{step}"));
        let path = at.join("weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let sums = fs::read_to_string(at.join("checksums.xxh128")).unwrap();
        let (_, rest) = sums.split_once('\n').unwrap();
        let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
        let sums = format!("{hash:032x}  weights.safetensors\n{rest}");
        fs::write(at.join("checksums.xxh128"), sums).unwrap();
    }
    // It is ended before it comes to them: what is bad is not among the three that are kept.
    let output = folder.saving(&resumed("4")).output().unwrap();
    let stderr = text(&output.stderr);
    let passed = "skipped a checkpoint with numbers that are not finite: ";
    assert_eq!(stderr.matches(passed).count(), 2, "{stderr}");
    assert!(stderr.contains("continuing from ") && stderr.contains("step-00000001"), "{stderr}");
    assert_eq!(report(&output)["steps_before"], 1);
    assert_eq!(hash(&output), folder.hash(&["--devices", "cpux2", "--steps", "4"]));
}
