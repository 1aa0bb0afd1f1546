//! Promise: what is written about a run takes neither the run nor anything else away, and is there
//! whatever becomes of the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const RUN: &str = "train --devices cpux2 --layers 2 --width 16 --heads 2 --context 8 \
                   --microbatches 2 --microbatch-size 1";

/// A folder with a text in it, in which the runs of a test work.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let text: String = (0..400).map(|number| format!("{} and ", number * number)).collect();
        fs::write(folder.path("text.txt"), text).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, options: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        command.current_dir(self.0.path()).args(RUN.split_whitespace());
        command.args(options.split_whitespace()).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The data of a page.
fn data(path: &Path) -> Value {
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn no_output_is_a_file_that_the_run_reads_or_saves() {
    let folder = Folder::new();
    fs::write(folder.path("run.toml"), "seed = 1").unwrap();
    fs::create_dir_all(folder.path("texts/more")).unwrap();
    fs::write(folder.path("texts/more/a.md"), "one and another ".repeat(40)).unwrap();
    fs::create_dir_all(folder.path("saved/step-00000001")).unwrap();
    let rows = [
        ("--text text.txt --report ./text.txt", "the file of --report is that of --text"),
        ("--text text.txt --trace text.txt", "the file of --trace is that of --text"),
        ("--config run.toml --report run.toml", "the file of --report is that of --config"),
        ("--text texts --trace texts/more/a.md", "part of the text that --text names"),
        ("--text texts --trace texts/new.txt", "part of the text that --text names"),
        (
            "--checkpoint saved --report saved/step-00000001/plan.txt",
            "the file of --report is inside a checkpoint",
        ),
        ("--report a.html --trace ./a.html", "the file of both --report and --trace"),
    ];
    let all = || {
        let files = ["text.txt", "run.toml", "texts/more/a.md"];
        files.map(|file| fs::read(folder.path(file)).unwrap())
    };
    let before = all();
    for (options, expected) in rows {
        let output = folder.run(&format!("{options} --steps 1"));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(all(), before);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("text.txt", folder.path("link.html")).unwrap();
        let output = folder.run("--text text.txt --report link.html --steps 1");
        assert!(text(&output.stderr).contains("is that of --text"), "{}", text(&output.stderr));
    }
}

#[test]
fn checkpoints_inside_of_the_text_are_no_part_of_it() {
    let folder = Folder::new();
    fs::create_dir(folder.path("texts")).unwrap();
    fs::write(folder.path("texts/a.txt"), "one and another ".repeat(40)).unwrap();
    let run = |steps: &str| {
        folder
            .run(&format!("--text texts --checkpoint texts/saved --resume --steps {steps} --json"))
    };
    assert!(run("2").status.success());
    let output = run("4");
    let read = serde_json::from_slice(&output.stdout);
    let report: Value = read.unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(report["steps_before"], 2);
}

/// What is written to `/dev/full` finds a full disk.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_takes_nothing_else_away_and_has_a_line_each() {
    let folder = Folder::new();
    let options = "--text text.txt --steps 2 --report /dev/full --trace trace.json";
    let output = folder.run(options);
    let (shown, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(shown.contains("weights hash ") && shown.ends_with("trace          trace.json\n"));
    assert!(json(&folder.path("trace.json"))["traceEvents"].is_array());
    let errors: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(errors[..], [one] if one.contains("/dev/full")), "{error}");

    // Nobody takes the figures: the files are written all the same.
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    command.current_dir(folder.0.path()).args(RUN.split_whitespace());
    command.args("--text text.txt --steps 2 --json --report r.html --trace t.json".split(' '));
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().last().unwrap().starts_with("error: stdout: "), "{error}");
    assert_eq!(data(&folder.path("r.html"))["ended"], true);
    assert!(json(&folder.path("t.json"))["traceEvents"].is_array());
}

#[test]
fn a_run_whose_steps_were_all_done_is_described_all_the_same() {
    let folder = Folder::new();
    let common = "--text text.txt --checkpoint saved --steps 2";
    let first = folder.run(&format!("{common} --json"));
    let first: Value = serde_json::from_slice(&first.stdout).unwrap();
    let again = folder.run(&format!("{common} --resume --report r.html --trace t.json"));
    let shown = text(&again.stdout);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(shown.contains("all steps were done before: 2 (more with --steps)"), "{shown}");
    assert!(shown.contains(first["weights_hash"].as_str().unwrap()), "{shown}");
    let page = data(&folder.path("r.html"));
    assert_eq!(page["run"]["weights_hash"], first["weights_hash"]);
    assert_eq!(page["run"]["held_out"]["after"], first["held_out"]["after"]);
    assert_eq!((&page["run"]["steps_before"], &page["measured"]), (&2.into(), &Value::Null));
    let trace = json(&folder.path("t.json"));
    assert_eq!(trace["otherData"]["steps"], Value::Array(Vec::new()));
    let more = folder.run(&format!("{common} --resume --json"));
    let more: Value = serde_json::from_slice(&more.stdout).unwrap();
    assert_eq!(more["losses"], Value::Array(Vec::new()));
    assert_eq!((&more["bubble"]["step"], &more["tokens_per_second"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_run_that_ends_early_has_told_of_the_steps_before() {
    let folder = Folder::new();
    fs::write(folder.path("r.html"), "an older page").unwrap();
    let output =
        folder.run("--text text.txt --steps 9 --learning-rate 1e39 --report r.html --trace t.json");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let page = data(&folder.path("r.html"));
    let steps = page["run"]["losses"].as_array().unwrap().len();
    assert!((1..9).contains(&steps), "{steps} steps");
    assert_eq!((&page["ended"], &page["run"]["weights_hash"]), (&false.into(), &Value::Null));
    let trace = json(&folder.path("t.json"));
    assert_eq!(trace["otherData"]["steps"].as_array().unwrap().len(), steps);
    let mut names: Vec<_> =
        fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["r.html", "t.json", "text.txt"]);
}
