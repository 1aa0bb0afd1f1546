//! Runs of the program on a tiny model, each in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use burn::tensor::{Int, Tensor};
use serde_json::Value;
use tempfile::{Builder, TempDir};

/// Tokens, and the tokens that follow them.
pub type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

/// A model that is trained in a moment.
const TINY: [[&str; 2]; 6] = [
    ["--layers", "2"],
    ["--width", "16"],
    ["--heads", "2"],
    ["--context", "8"],
    ["--microbatches", "2"],
    ["--microbatch-size", "1"],
];

/// A folder of one test with a text to train on, removed when the test is over.
pub struct Folder(TempDir);

impl Folder {
    pub fn new(test: &str) -> Self {
        let prefix = format!("checkpoint-{test}-");
        let folder = Builder::new().prefix(&prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = Self(folder.unwrap());
        let text: String = (0..400).map(|number| format!("{} and ", number * number)).collect();
        fs::write(folder.path("text.txt"), text).unwrap();
        folder
    }

    /// Where something in it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where its checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints")
    }

    /// Names in the folder of checkpoints, sorted.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.checkpoints()) else { return Vec::new() };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }

    /// The command that trains on its text, without checkpoints. What `arguments` do not say is as
    /// in [`TINY`].
    pub fn train(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        let tiny = TINY.iter().filter(|[option, _]| !arguments.contains(option)).flatten();
        command.arg("train").args(tiny).arg("--text").arg(self.path("text.txt")).args(arguments);
        command.arg("--json").stdin(Stdio::null());
        command
    }

    /// The command that trains on its text with checkpoints.
    pub fn saving(&self, arguments: &[&str]) -> Command {
        let mut command = self.train(arguments);
        command.arg("--checkpoint").arg(self.checkpoints());
        command
    }

    /// A run without an end in between.
    pub fn hash(&self, arguments: &[&str]) -> String {
        hash(&self.train(arguments).output().unwrap())
    }

    /// Flips a bit in the middle of a file.
    pub fn damage(&self, file: &str) {
        let path = self.checkpoints().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a run that succeeded reports.
pub fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The hash of the weights of a run that succeeded.
pub fn hash(output: &Output) -> String {
    report(output)["weights_hash"].as_str().unwrap().to_owned()
}

/// The run must fail with nothing on stdout and one line of error that has all `parts`.
#[track_caller]
pub fn check_failure(output: &Output, code: i32, parts: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    let told = |line: &&str| line.starts_with("step ") || line.starts_with("continuing from ");
    let lines: Vec<&str> = stderr.lines().filter(|line| !told(line)).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    for part in parts.iter().chain(&["error: ", "(try: "]) {
        assert!(lines[0].contains(part), "no '{part}' in: {}", lines[0]);
    }
}
