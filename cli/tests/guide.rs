//! Promise: every command in the guide prints what the guide shows below it.
//!
//! Commands stand in fenced `console` blocks, after `$ `. Two things are not compared word for
//! word. A line `...` stands for any lines, or none. And the bits of trained weights depend on the
//! processor, so of their hashes it is compared which are equal and which differ.
//!
//! What a command writes with `> FILE` is compared with the file of that name, byte for byte. This
//! writes these files, the pictures among them, anew:
//!
//! ```text
//! ZEROBUBBLE_WRITE_FILES=1 cargo test --release --test guide
//! ```

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

const GUIDE: &str = "docs/guide.md";
const PROGRAM: &str = "zerobubble ";
const ANY_LINES: &str = "...";
const HASH_DIGITS: usize = 32;
/// Set to 1, files are written and not compared.
const WRITE_FILES: &str = "ZEROBUBBLE_WRITE_FILES";

/// A command of the guide and what the guide says of it.
#[derive(Debug, Default, PartialEq)]
struct Example {
    /// Of the command, in the guide.
    line: usize,
    /// After the program's name.
    arguments: Vec<String>,
    /// Where its output goes, if not below it.
    file: Option<String>,
    shown: Vec<String>,
}

#[test]
fn every_command_prints_what_the_guide_shows() {
    let examples = examples(&read(GUIDE)).unwrap_or_else(|problem| panic!("{GUIDE}:{problem}"));
    assert!(!examples.is_empty(), "{GUIDE} has no commands");
    let write = env::var_os(WRITE_FILES).is_some_and(|value| value == "1");
    let (mut hashes_shown, mut hashes_printed) = (Hashes::default(), Hashes::default());
    let mut problems = Vec::new();
    for example in &examples {
        let (ended_well, printed) = run(&example.arguments);
        let same = match &example.file {
            Some(file) if write && ended_well => fs::write(root().join(file), &printed).is_ok(),
            Some(file) => ended_well && read(file) == printed,
            None => {
                let shown = hashes_shown.numbered(&example.shown.join("\n"));
                let printed = hashes_printed.numbered(&printed);
                matches(&lines(&shown), &lines(&printed))
            }
        };
        if !same {
            let Example { line, arguments, .. } = example;
            problems.push(format!("{GUIDE}:{line}: {} prints\n{printed}", arguments.join(" ")));
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_picture_is_one_that_a_command_writes() {
    let guide = read(GUIDE);
    let files: Vec<String> =
        examples(&guide).unwrap().into_iter().filter_map(|example| example.file).collect();
    let pictures = guide.lines().filter_map(|line| line.strip_prefix("![")?.split_once("]("));
    let mut count = 0;
    for (_, picture) in pictures {
        let path = format!("docs/{}", picture.trim_end_matches(')'));
        assert!(files.contains(&path), "no command of {GUIDE} writes {path}");
        count += 1;
    }
    assert!(count > 0, "{GUIDE} has no pictures");
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a command ends well, and what it prints: its output, or its error.
fn run(arguments: &[String]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerobubble"));
    let output = command.current_dir(root()).args(arguments).output().unwrap();
    let ended_well = output.status.success();
    let printed = if ended_well { output.stdout } else { output.stderr };
    (ended_well, String::from_utf8(printed).unwrap())
}

/// The commands of a guide; or a line of it, and why what it has there would not be checked.
fn examples(guide: &str) -> Result<Vec<Example>, String> {
    let mut examples: Vec<Example> = Vec::new();
    // The language of the block that a line is in.
    let mut block: Option<&str> = None;
    for (number, line) in (1..).zip(guide.lines()) {
        let bad = |reason: &str| Err(format!("{number}: {reason}"));
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.trim()) };
            continue;
        }
        let in_console = block == Some("console");
        match line.strip_prefix("$ ") {
            Some(command) if in_console => match example(number, command) {
                Some(example) => examples.push(example),
                None => return bad("a command of another program"),
            },
            _ if names_a_command(line) => return bad("a command outside of a console block"),
            _ if !in_console => {}
            _ => match examples.last_mut() {
                Some(example) => example.shown.push(line.to_owned()),
                None => return bad("output of no command"),
            },
        }
    }
    let shows = |line: &String| line != ANY_LINES && !line.is_empty();
    let unchecked = |example: &&Example| {
        // Either the file is compared, or there is something below to compare.
        example.file.is_some() == example.shown.iter().any(shows)
    };
    match examples.iter().find(unchecked) {
        Some(Example { line, .. }) => {
            Err(format!("{line}: it shows no output, or a file and more"))
        }
        None => Ok(examples),
    }
}

fn names_a_command(line: &str) -> bool {
    let mut words = line.split(PROGRAM).skip(1).map(|rest| rest.split_whitespace().next());
    words.any(|word| {
        let word = word.unwrap_or("").trim_end_matches(|c: char| !c.is_alphanumeric());
        word.starts_with('-') || ["bench", "devices", "plan", "train"].contains(&word)
    })
}

fn example(line: usize, command: &str) -> Option<Example> {
    let command = command.strip_prefix(PROGRAM)?;
    let (arguments, file) = match command.split_once(" > ") {
        Some((arguments, file)) => (arguments, Some(file.trim().to_owned())),
        None => (command, None),
    };
    Some(Example { line, arguments: split(arguments), file, shown: Vec::new() })
}

/// Arguments as a shell splits them, with double quotes around what has a `;`.
fn split(arguments: &str) -> Vec<String> {
    let quoted = arguments.split('"').enumerate();
    let parts = quoted.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    parts.map(str::to_owned).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().collect()
}

/// Whether `printed` is what is shown, in which `...` stands for any lines.
fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((&ANY_LINES, rest)) => (0..=printed.len()).any(|at| matches(rest, &printed[at..])),
        Some((line, rest)) => printed.first() == Some(line) && matches(rest, &printed[1..]),
    }
}

/// Hashes in the order that they were first met.
#[derive(Default)]
struct Hashes(Vec<String>);

impl Hashes {
    /// `text` with a hash's number in place of the hash.
    fn numbered(&mut self, text: &str) -> String {
        let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_hash = |word: &str| word.len() == HASH_DIGITS && word.chars().all(is_digit);
        let mut numbered = String::with_capacity(text.len());
        for word in text.split_inclusive(char::is_whitespace) {
            let hash = word.trim_end();
            if !is_hash(hash) {
                numbered += word;
                continue;
            }
            let known = self.0.iter().position(|known| known == hash);
            let number = known.unwrap_or(self.0.len());
            if known.is_none() {
                self.0.push(hash.to_owned());
            }
            numbered += &format!("hash {number}{}", &word[hash.len()..]);
        }
        numbered
    }
}

#[test]
fn any_lines_stand_for_lines_and_nothing_else_does() {
    let printed = ["a", "", "b", "c"];
    let same: [&[&str]; 5] = [
        &["a", "", "b", "c"],
        &["..."],
        &["...", "c"],
        &["a", "...", "b", "...", "c"],
        &["a", "..."],
    ];
    for shown in same {
        assert!(matches(shown, &printed), "{shown:?}");
    }
    let other: [&[&str]; 6] =
        [&[], &["a"], &["...", "b"], &["b", "..."], &["a", "", "b", "c", "d"], &["...", "c", "b"]];
    for shown in other {
        assert!(!matches(shown, &printed), "{shown:?}");
    }
}

#[test]
fn hashes_are_equal_or_they_are_not() {
    let [a, b, c] = ["a", "b", "0"].map(|digit| digit.repeat(HASH_DIGITS));
    let of = |hashes: [&str; 3]| Hashes::default().numbered(&hashes.join("\n"));
    assert_eq!(of([&a, &b, &a]), of([&c, &a, &c]));
    assert_ne!(of([&a, &b, &a]), of([&a, &b, &b]));
    assert_ne!(of([&a, &b, "short"]), of([&a, &b, &c]));
}

#[test]
fn a_command_is_read_with_its_output() {
    let guide = "Text.\n```console\n$ zerobubble plan --cost \"1,1,1;2,2,2\"\na\n\nb\n```\n\
        ```console\n$ zerobubble plan > docs/a.svg\n```\n";
    let of = |line, arguments: &[&str], file: Option<&str>, shown: &[&str]| Example {
        line,
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        file: file.map(str::to_owned),
        shown: shown.iter().map(|&line| line.to_owned()).collect(),
    };
    let expected = [
        of(3, &["plan", "--cost", "1,1,1;2,2,2"], None, &["a", "", "b"]),
        of(9, &["plan"], Some("docs/a.svg"), &[]),
    ];
    assert_eq!(examples(guide).unwrap(), expected);
}

#[test]
fn a_command_that_would_not_be_checked_is_refused() {
    let rows = [
        ("```console\n$ zerobubble plan\n```", "2: it shows no output"),
        ("```console\n$ zerobubble plan\n...\n```", "2: it shows no output"),
        ("```console\n$ zerobubble plan > a\nb\n```", "2: it shows no output, or a file"),
        ("```text\n$ zerobubble plan\na\n```", "2: a command outside"),
        ("    zerobubble train --steps 1", "1: a command outside"),
        ("Run `zerobubble devices`.", "1: a command outside"),
        ("```console\n$ cargo test\nok\n```", "2: a command of another"),
        ("```console\nok\n```", "2: output of no command"),
    ];
    for (guide, expected) in rows {
        let problem = examples(guide).expect_err(guide);
        assert!(problem.starts_with(expected), "{guide}: {problem}");
    }
}
