//! Promise: what cannot be is refused before it costs anything, and nothing of a text is replaced
//! without a word.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A run of one step on this text.
fn run(folder: &TempDir, content: &[u8], options: &str) -> Output {
    let path = folder.path().join("text.txt");
    fs::write(&path, content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    command.args(["train", "--steps", "1", "--text"]).arg(path);
    command.args(options.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const SMALL: &str = "--devices cpu --layers 1 --width 16 --heads 2 --context 8 --microbatches 1 \
                     --microbatch-size 1";

#[test]
fn what_no_machine_can_hold_is_refused_at_once() {
    let folder = folder();
    let rows = [
        (
            "--devices cpux2 --width 65536 --layers 4 --memory-limit-per-device 1000000",
            "the limit is 1000000 for each of 2 devices",
        ),
        ("--devices cpux2 --width 65536 --layers 1024", "more than this machine has"),
        (
            "--devices cpux2 --width 2048 --heads 1 --layers 4 --memory-limit-per-device 1000000",
            "the limit is 1000000 for each of 2 devices",
        ),
        (
            "--devices cpu --context 4096 --microbatch-size 65536 --microbatches 65536",
            "the tokens of a step take 524288.0 GiB",
        ),
    ];
    for (options, expected) in rows {
        let output = run(&folder, "hello world ".repeat(10_000).as_bytes(), options);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        // What takes longer than a second has a line of progress.
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn every_character_of_a_text_is_told_or_kept() {
    let folder = folder();
    let characters: String = ('\u{4e00}'..).take(3000).flat_map(|c| [c, c, '\n']).collect();
    let output = run(&folder, characters.as_bytes(), SMALL);
    let shown = text(&output.stdout);
    assert!(shown.contains("9000 characters, 3001 different ones\n"), "{shown}");
    // What an editor put before the text is no part of it.
    let output = run(&folder, "\u{feff}hello world ".repeat(9).as_bytes(), SMALL);
    let marks = "hello world ".repeat(9).len() + 8;
    let shown = text(&output.stdout);
    assert!(shown.contains(&format!(", {marks} characters, 9 different ones\n")), "{shown}");
}

#[test]
fn a_text_without_anything_to_learn_is_refused() {
    let folder = folder();
    let output = run(&folder, &[b'a'; 400], SMALL);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("text.txt: the text has one character only"), "{error}");
}

#[test]
fn settings_at_the_end_of_their_range_are_taken_everywhere() {
    let folder = folder();
    let path = folder.path().join("run.toml");
    let cosine = "learning-rate-schedule = \"cosine\"\nmin-learning-rate = 0";
    for file in ["seed = 18446744073709551615", "learning-rate = 0", cosine] {
        fs::write(&path, file).unwrap();
        let options = format!("{SMALL} --config {}", path.display());
        let output = run(&folder, "hello world ".repeat(30).as_bytes(), &options);
        assert!(output.status.success(), "{file}: {}", text(&output.stderr));
        let options: String =
            file.lines().map(|line| format!(" --{}", line.replace(" = ", "="))).collect();
        let same = run(
            &folder,
            "hello world ".repeat(30).as_bytes(),
            &format!("{SMALL}{}", options.replace('"', "")),
        );
        let hash = |output: &Output| {
            let shown = text(&output.stdout);
            shown.lines().find(|line| line.starts_with("weights hash")).unwrap().to_owned()
        };
        assert_eq!(hash(&output), hash(&same), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn nothing_from_outside_is_obeyed_by_a_terminal() {
    let folder = folder();
    let name = "a\u{1b}[2Jb\u{7}.txt";
    let path = folder.path().join(name);
    let train = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
        command.args(["train", "--steps", "1", "--text"]).arg(&path);
        command.args(SMALL.split_whitespace()).output().unwrap()
    };
    for content in ["", "hello \u{1b}[31mworld\u{9b}5m\r\n\u{8}"] {
        let output = train(&content.repeat(60));
        for shown in [text(&output.stdout), text(&output.stderr)] {
            let obeyed = |c: char| c.is_control() && !"\n\t".contains(c);
            assert!(!shown.contains(obeyed), "{shown:?}");
        }
    }
}
