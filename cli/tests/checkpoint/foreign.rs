//! Checkpoints that are whole, and that this version does not understand: not broken, so never
//! passed over, replaced or removed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;
use zerobubble::error::ErrorKind;
use zerobubble::train::Checkpoints;

use crate::harness::{Folder, check_failure, hash, text};

const SAVED: [&str; 6] = ["--devices", "cpu", "--checkpoint-every", "2", "--steps", "4"];
const RESUMED: [&str; 7] =
    ["--devices", "cpu", "--resume", "--steps", "6", "--checkpoint-every", "1"];
const FILES: [&str; 4] =
    ["weights.safetensors", "optimizer.safetensors", "plan.txt", "manifest.json"];

/// Changes files of a checkpoint, and writes the checksums that fit.
struct Altered<'a>(&'a Path);

impl Altered<'_> {
    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let path = self.0.join("manifest.json");
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
        self.sign(&FILES);
    }

    /// Changes the header of a safetensors file, and its data.
    fn tensors(&self, file: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let path = self.0.join(file);
        let bytes = fs::read(&path).unwrap();
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&rest[..length]).unwrap();
        let mut data = rest[length..].to_vec();
        change(&mut header, &mut data);
        let mut header = header.to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let parts = [&(header.len() as u64).to_le_bytes()[..], &header, &data];
        fs::write(path, parts.concat()).unwrap();
        self.sign(&FILES);
    }

    fn sign(&self, files: &[&str]) {
        let line = |name: &&str| {
            format!("{:032x}  {name}\n", xxh3_128(&fs::read(self.0.join(name)).unwrap()))
        };
        fs::write(self.0.join("checksums.xxh128"), files.iter().map(line).collect::<String>())
            .unwrap();
    }
}

/// All that is in the folder of checkpoints.
fn content(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let of = |name: String| {
        let path = folder.checkpoints().join(&name);
        let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut bytes: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        bytes.sort();
        (name, bytes.into_iter().flat_map(|(_, bytes)| bytes).collect())
    };
    folder.names().into_iter().map(of).collect()
}

type Change = fn(&Altered);

/// That each change gives a checkpoint which ends the run with this text, and which stays.
fn check_foreign(name: &str, rows: &[(&str, Change, &str)]) {
    let folder = Folder::new(name);
    hash(&folder.saving(&SAVED).output().unwrap());
    let newest = folder.checkpoints().join("step-00000004");
    let whole: Vec<_> = fs::read_dir(&newest).unwrap().map(|entry| entry.unwrap().path()).collect();
    let whole: Vec<_> = whole.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    for (name, change, expected) in rows {
        change(&Altered(&newest));
        let before = content(&folder);
        let output = folder.saving(&RESUMED).output().unwrap();
        check_failure(&output, 1, &[expected, "step-00000004"]);
        assert_eq!(content(&folder), before, "{name}");
        for (bytes, path) in &whole {
            fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn a_manifest_that_is_not_understood_ends_the_run_and_stays_as_it_is() {
    let rows: [(&str, Change, &str); 11] = [
        ("newer", |of| of.manifest(|m| m["format"] = json!(2)), "form 2 of checkpoints"),
        ("older", |of| of.manifest(|m| m["format"] = json!(0)), "form 0 of checkpoints"),
        ("no form", |of| of.manifest(|m| m["format"] = Value::Null), "no form"),
        (
            "lacks a field",
            |of| {
                of.manifest(|m| {
                    m["settings"].as_object_mut().unwrap().remove("clip_norm");
                });
            },
            "missing field `clip_norm`",
        ),
        ("negative", |of| of.manifest(|m| m["step"] = json!(-1)), "not a manifest of zerobubble"),
        ("other step", |of| of.manifest(|m| m["step"] = json!(5)), "of step 5"),
        ("huge step", |of| of.manifest(|m| m["step"] = json!(1u64 << 63)), "at most 4294967295"),
        ("updates", |of| of.manifest(|m| m["updates"] = json!(1u64 << 63)), "updates in 4 steps"),
        (
            "no note",
            |of| of.manifest(|m| m["note"] = Value::Null),
            "its note is not this program's",
        ),
        (
            "drawn",
            |of| of.manifest(|m| m["note"]["windows_drawn"] = json!(1u64 << 62)),
            "windows of the text drawn in 4 steps",
        ),
        (
            "another version",
            |of| of.manifest(|m| (m["format"], m["version"]) = (json!(2), json!("9.8.7"))),
            "zerobubble 9.8.7 wrote it",
        ),
    ];
    check_foreign("foreign-manifest", &rows);
}

#[test]
fn files_that_are_not_understood_end_the_run_and_stay_as_they_are() {
    let rows: [(&str, Change, &str); 6] = [
        (
            "integers",
            |of| {
                of.tensors("weights.safetensors", |header, _| {
                    let tensors = header.as_object_mut().unwrap();
                    tensors.values_mut().next().unwrap()["dtype"] = json!("I32");
                });
            },
            "of I32, not of F32",
        ),
        (
            "unknown type",
            |of| {
                of.tensors("optimizer.safetensors", |header, _| {
                    let tensors = header.as_object_mut().unwrap();
                    tensors.values_mut().next().unwrap()["dtype"] = json!("F7");
                });
            },
            "not a safetensors file of this version",
        ),
        (
            "empty file",
            |of| {
                fs::write(of.0.join("weights.safetensors"), "").unwrap();
                of.sign(&FILES);
            },
            "weights.safetensors",
        ),
        (
            "more tensors",
            |of| {
                of.tensors("weights.safetensors", |header, data| {
                    let (start, end) = (data.len(), data.len() + 4);
                    header["surplus"] =
                        json!({"dtype": "F32", "shape": [1], "data_offsets": [start, end]});
                    data.extend([0; 4]);
                });
            },
            "it has surplus, which the trainer has not",
        ),
        (
            "no plan",
            |of| {
                fs::remove_file(of.0.join("plan.txt")).unwrap();
                of.sign(&[FILES[0], FILES[1], FILES[3]]);
            },
            "it has no plan.txt",
        ),
        (
            "negative squares",
            |of| {
                of.tensors("optimizer.safetensors", |header, data| {
                    let moments = header.as_object().unwrap();
                    let (_, info) =
                        moments.iter().find(|(name, _)| name.ends_with("second_moment")).unwrap();
                    let start = info["data_offsets"][0].as_u64().unwrap() as usize;
                    data[start..start + 4].copy_from_slice(&(-1f32).to_le_bytes());
                });
            },
            "second_moment is a mean of squares",
        ),
    ];
    check_foreign("foreign-files", &rows);
}

#[test]
fn what_this_version_can_read_is_read() {
    let folder = Folder::new("readable");
    hash(&folder.saving(&SAVED).output().unwrap());
    let newest = folder.checkpoints().join("step-00000004");
    let altered = Altered(&newest);
    altered.manifest(|m| m["later"] = json!(1));
    altered.tensors("weights.safetensors", |header, _| {
        header["__metadata__"] = json!({"format": "pt"});
    });
    let sums = newest.join("checksums.xxh128");
    let text = fs::read_to_string(&sums).unwrap();
    fs::write(sums, text.replace('\n', "\r\n")).unwrap();
    fs::write(newest.join("README.txt"), "mine").unwrap();
    let resumed = hash(&folder.saving(&RESUMED).output().unwrap());
    assert_eq!(resumed, folder.hash(&["--devices", "cpu", "--steps", "6"]));
}

#[test]
fn a_checkpoint_of_another_version_is_neither_removed_nor_replaced() {
    let folder = Folder::new("older-foreign");
    hash(&folder.saving(&SAVED).output().unwrap());
    let foreign = folder.checkpoints().join("step-00000002");
    Altered(&foreign).manifest(|m| m["format"] = json!(7));
    let before = content(&folder).remove(0);
    // Newer ones are this version's, and one is kept.
    let kept = ["--checkpoint-keep", "1"];
    hash(&folder.saving(&[&RESUMED[..], &kept].concat()).output().unwrap());
    assert_eq!(folder.names(), ["step-00000002", "step-00000006"]);
    assert_eq!(content(&folder).remove(0), before);
    fs::remove_dir_all(folder.checkpoints().join("step-00000006")).unwrap();
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    assert_eq!(checkpoints.newest().unwrap_err().kind, ErrorKind::NotUnderstood);
}

#[cfg(unix)]
#[test]
fn no_link_is_followed_out_of_a_checkpoint() {
    let folder = Folder::new("link");
    hash(&folder.saving(&SAVED).output().unwrap());
    let weights = folder.checkpoints().join("step-00000004/weights.safetensors");
    let elsewhere = folder.path("elsewhere");
    fs::rename(&weights, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &weights).unwrap();
    let output = folder.saving(&RESUMED).output().unwrap();
    check_failure(&output, 1, &["weights.safetensors", "a link or such"]);
    assert!(text(&output.stdout).is_empty() && elsewhere.exists());
}
