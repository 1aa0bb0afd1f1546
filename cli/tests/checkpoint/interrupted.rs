//! Ends that are asked for.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use crate::harness::{Folder, hash, text};

/// A run under way and what it tells.
struct Run {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Run {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that starts like this.
    fn wait_for(&mut self, start: &str) {
        let line = self.lines.find(|line| line.as_ref().unwrap().starts_with(start));
        assert!(line.is_some(), "no '{start}'");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// How it ended, and the last line.
    fn end(self) -> (ExitStatus, String) {
        let last = self.lines.map(Result::unwrap).last().unwrap_or_default();
        let output = self.child.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), "");
        (output.status, last)
    }
}

/// The step after which a run says that it ended.
fn step_of(line: &str) -> u64 {
    let step = line.strip_prefix("interrupted after step ").and_then(|rest| rest.split(' ').next());
    step.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

#[test]
fn ctrl_c_and_its_like_finish_the_step_and_save_it() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let folder = Folder::new(&format!("interrupted{signal}"));
        let long = ["--devices", "cpu", "--steps", "1000000"];
        let mut run = Run::start(&mut folder.saving(&long));
        run.wait_for("step 1/");
        run.signal(signal);
        let (status, last) = run.end();
        assert_eq!(status.code(), Some(130), "{last}");
        let step = step_of(&last);
        assert!(last.contains("checkpoints (try: the same command with --resume"), "{last}");
        assert_eq!(folder.names().last(), Some(&format!("step-{step:08}")));
        let steps = (step + 2).to_string();
        let resumed = folder.saving(&["--devices", "cpu", "--resume", "--steps", &steps]);
        let resumed = hash(&{ resumed }.output().unwrap());
        assert_eq!(resumed, folder.hash(&["--devices", "cpu", "--steps", &steps]), "{signal}");
    }
}

#[test]
fn without_a_folder_ctrl_c_says_that_nothing_is_saved() {
    let folder = Folder::new("interrupted-unsaved");
    let mut run = Run::start(&mut folder.train(&["--devices", "cpu", "--steps", "1000000"]));
    run.wait_for("step 1/");
    run.signal("-INT");
    let (status, last) = run.end();
    assert_eq!(status.code(), Some(130), "{last}");
    assert!(last.contains("nothing is saved (try: --checkpoint"), "{last}");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_the_step() {
    let folder = Folder::new("interrupted-twice");
    let at_once = || {
        // Steps that take some tenths of a second; the second signal is there before they end,
        // unless this process has to wait so long for the processor.
        let size = ["--width", "64", "--context", "128", "--microbatches", "64"];
        let arguments = [&["--devices", "cpu", "--steps", "1000000"][..], &size].concat();
        let mut run = Run::start(&mut folder.train(&arguments));
        run.wait_for("step 1/");
        run.signal("-INT");
        run.wait_for("ending after this step");
        run.signal("-INT");
        let (status, last) = run.end();
        assert_eq!(status.code(), Some(130), "{last}");
        !last.starts_with("interrupted after step ")
    };
    assert!((0..20).any(|_| at_once()));
}
