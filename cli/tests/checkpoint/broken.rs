//! Checkpoints that are not what was written.

use std::fs;

use zerobubble::train::Checkpoints;

use crate::harness::{Folder, check_failure, hash, text};

const ONE_EACH: [&str; 6] = ["--devices", "cpu", "--checkpoint-every", "1", "--steps", "3"];
const RESUMED: [&str; 5] = ["--devices", "cpu", "--resume", "--steps", "5"];

/// A folder with checkpoints of steps 1, 2 and 3.
fn three(test: &str) -> Folder {
    let folder = Folder::new(test);
    hash(&folder.saving(&ONE_EACH).output().unwrap());
    assert_eq!(folder.names(), ["step-00000001", "step-00000002", "step-00000003"]);
    folder
}

#[test]
fn a_damaged_torn_or_missing_file_is_named_and_the_checkpoint_before_it_is_used() {
    let folder = three("damaged");
    let whole = folder.hash(&["--devices", "cpu", "--steps", "5"]);
    let files = ["weights.safetensors", "optimizer.safetensors", "plan.txt", "manifest.json"];
    let mut damages: Vec<(&str, &str)> = files.iter().map(|&file| (file, "checksum")).collect();
    damages.push(("checksums.xxh128", "not the checksums"));
    for (file, problem) in damages {
        let damaged = format!("step-00000003/{file}");
        folder.damage(&damaged);
        let output = folder.saving(&RESUMED).output().unwrap();
        let stderr = text(&output.stderr);
        let line = stderr.lines().next().unwrap();
        assert!(line.starts_with("skipped a checkpoint that is not whole: "), "{stderr}");
        assert!(line.contains(file), "{stderr}");
        assert!(line.contains(problem) || line.contains("checksum"), "{stderr}");
        assert!(stderr.contains("continuing from ") && stderr.contains("step-00000002"));
        assert_eq!(hash(&output), whole, "{file}");
        // From step 2 a new checkpoint of step 3 is made, in place of the broken one.
        let more = [&RESUMED[..3], &["--steps", "3", "--checkpoint-every", "1"]].concat();
        fs::remove_dir_all(folder.checkpoints().join("step-00000005")).unwrap();
        hash(&folder.saving(&more).output().unwrap());
        let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
        let newest = checkpoints.newest().unwrap();
        assert_eq!((newest.checkpoint.unwrap().step(), newest.skipped.len()), (3, 0));
    }
    // The last bytes never came to the disk.
    let torn = folder.checkpoints().join("step-00000003/weights.safetensors");
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
    let output = folder.saving(&RESUMED).output().unwrap();
    assert_eq!(text(&output.stderr).matches("not whole").count(), 1);
    assert_eq!(hash(&output), whole);
}

#[test]
fn what_is_no_checkpoint_is_left_alone() {
    let folder = three("foreign");
    let at = |name: &str| folder.checkpoints().join(name);
    fs::write(at("step-00000099"), "a file").unwrap();
    fs::write(at("notes.txt"), "mine").unwrap();
    fs::create_dir(at("step-98")).unwrap();
    fs::create_dir(at("step-00000097")).unwrap();
    fs::write(at("step-00000097/readme"), "a folder of somebody's").unwrap();
    let output = folder.saving(&RESUMED).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(stderr.contains("step-00000097") && !stderr.contains("step-00000099"), "{stderr}");
    assert_eq!(hash(&output), folder.hash(&["--devices", "cpu", "--steps", "5"]));
    let expected = [
        "notes.txt",
        "step-00000002",
        "step-00000003",
        "step-00000005",
        "step-00000097",
        "step-00000099",
        "step-98",
    ];
    assert_eq!(folder.names(), expected);
    assert_eq!(fs::read_to_string(at("step-00000097/readme")).unwrap(), "a folder of somebody's");
}

#[test]
fn a_folder_with_broken_checkpoints_alone_is_an_error() {
    let folder = three("all-broken");
    for step in 1..=3 {
        folder.damage(&format!("step-0000000{step}/weights.safetensors"));
    }
    let output = folder.saving(&RESUMED).output().unwrap();
    check_failure(&output, 1, &["none of 3 checkpoints can be used", "weights.safetensors"]);
    assert_eq!(folder.names().len(), 3);
}

#[test]
fn what_an_interrupted_write_left_is_cleared_and_what_it_was_to_replace_comes_back() {
    let folder = three("leftovers");
    let at = |name: &str| folder.checkpoints().join(name);
    fs::create_dir(at(".step-00000004.partial")).unwrap();
    fs::write(at(".step-00000004.partial/weights.safetensors"), "half").unwrap();
    fs::rename(at("step-00000003"), at(".step-00000003.replaced")).unwrap();
    fs::create_dir(at(".step-00000002.replaced")).unwrap();
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    assert_eq!(folder.names(), ["step-00000001", "step-00000002", "step-00000003"]);
    assert_eq!(checkpoints.newest().unwrap().checkpoint.unwrap().step(), 3);
}
