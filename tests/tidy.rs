//! Promise: the code keeps its sizes and its layers, no two files import each other, and what the
//! documents name is there.

#[path = "tidy/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 100;

/// The crates' sources.
const CRATES: [&str; 3] = ["src", "plan/src", "cli/src"];

/// What a part of the library may name of the others, besides itself. Parts without a row, such as
/// `train`, may name all. That the planner names none of them is what its crate is for.
const MAY_NAME: [(&str, &[&str]); 7] = [
    ("graph", &["error"]),
    ("differentiate", &["error", "graph"]),
    ("split", &["differentiate", "error", "graph", "plan"]),
    ("compile", &["graph", "plan", "split"]),
    ("capture", &["batch", "error", "graph", "loss", "nn"]),
    (
        "engine",
        &["batch", "compile", "error", "graph", "loss", "out_of_memory", "plan", "random", "split"],
    ),
    ("runtime", &["compile", "engine", "error", "graph", "plan", "threads", "trace"]),
];

/// Parts that turn the same input into the same output, byte for byte: they know no tensor library,
/// clock, file, thread or random number.
const PURE: [&str; 5] = ["plan/src/", "src/graph", "src/differentiate", "src/split", "src/compile"];
const IMPURE: [&str; 5] = ["Instant", "SystemTime", "env", "fs", "thread"];

/// Words that are for some places only.
const ONLY_IN: [(&str, &[&str]); 11] = [
    ("burn_ir", &["src/capture/", "src/nn.rs"]),
    ("burn_capture", &["src/capture/", "src/nn.rs"]),
    ("burn_router", &["src/capture/", "src/nn.rs"]),
    ("crossbeam_channel", &["src/threads.rs"]),
    ("rand", &["cli/src/text.rs", "cli/src/evaluate.rs"]),
    // Raw memory, shaders without bounds checks, and the environment before there are threads.
    (
        "unsafe",
        &[
            "src/engine/kernels/",
            "src/engine/burn/pool.rs",
            "src/engine/wgpu/context.rs",
            "cli/src/main.rs",
        ],
    ),
    ("wgpu", &["src/engine/", "src/train/", "cli/src/devices.rs", "cli/src/bench_gpu.rs"]),
    ("pollster", &["src/capture/reads.rs", "src/engine/wgpu/"]),
    // What is printed goes through `main.rs` or the progress bar.
    ("println", &[]),
    ("eprintln", &[]),
    ("dbg", &[]),
];

/// What the runtime takes from `src/threads.rs` alone, where `tests/interleavings.rs` can see it.
const OF_THREADS: [&str; 8] =
    ["std::thread", "mpsc", "Mutex", "RwLock", "Condvar", "Atomic", "Instant::now", ".elapsed()"];

/// Flags of cargo and of every command line, which `cli/src/args` does not define.
const FOREIGN_FLAGS: [&str; 11] = [
    "edition",
    "example",
    "features",
    "help",
    "locked",
    "open",
    "path",
    "release",
    "show-output",
    "test",
    "version",
];

/// What a user or a contributor reads.
const DOCUMENTS: [&str; 14] = [
    ".github/workflows/ci.yml",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/benchmarks.md",
    "docs/checkpoints.md",
    "docs/command-line.md",
    "docs/devices.md",
    "docs/guide.md",
    "docs/models.md",
    "docs/ops.md",
    "docs/report-and-trace.md",
    "tests/README.md",
];

#[test]
fn files_are_short_and_clean() {
    let mut problems = Vec::new();
    let others = ["shaders", "tests", "examples", "plan/tests", "cli/tests", "fuzz/src"];
    for folder in CRATES.into_iter().chain(others) {
        for (path, text) in sources(folder) {
            if CRATES.contains(&folder) && !text.starts_with("//!") {
                problems.push(format!("{path}:1: does not start with //!"));
            }
            let count = text.lines().count();
            if count > FILE_LINES {
                problems.push(format!("{path}:{FILE_LINES}: has {count} lines"));
            }
            for (number, line) in (1..).zip(text.lines()) {
                problems.extend(line_problem(line).map(|what| format!("{path}:{number}: {what}")));
            }
            for Function { line, lines } in functions(&code(&text)) {
                if lines > FUNCTION_LINES {
                    problems.push(format!("{path}:{line}: a function of {lines} lines"));
                }
            }
        }
    }
    report(problems);
}

fn line_problem(line: &str) -> Option<String> {
    let columns = line.chars().count();
    if columns > COLUMNS {
        Some(format!("{columns} columns"))
    } else if line.contains('\t') {
        Some("a tab".into())
    } else {
        line.ends_with(char::is_whitespace).then(|| "white space at the end".into())
    }
}

#[test]
fn every_part_names_only_what_it_may() {
    let mut problems = Vec::new();
    for (path, text) in CRATES.into_iter().flat_map(sources) {
        let part = path.strip_prefix("src/").map(first_word);
        let code = without_tests(&code(&text)).to_owned();
        let may_name = MAY_NAME.iter().find(|(name, _)| Some(*name) == part);
        let is_pure = PURE.iter().any(|pure| path.starts_with(pure));
        for (number, line) in (1..).zip(code.lines()) {
            let mut found = |what: String| problems.push(format!("{path}:{number}: {what}"));
            for other in line.split("crate::").skip(1).map(first_word) {
                let may =
                    may_name.is_none_or(|(own, others)| others.contains(&other) || other == *own);
                if !may {
                    found(format!("it names crate::{other}"));
                }
            }
            for what in OF_THREADS.iter().filter(|what| line.contains(*what)) {
                if path.starts_with("src/runtime/") {
                    found(format!("it names {what}"));
                }
            }
            for word in words(line) {
                let impure = IMPURE.contains(&word) || word.starts_with("burn");
                if impure && is_pure {
                    found(format!("it names {word}"));
                }
                let places = ONLY_IN.iter().find(|(only, _)| *only == word).map(|(_, at)| at);
                if places.is_some_and(|at| !at.iter().any(|place| path.starts_with(place))) {
                    found(format!("{word} is not for this file"));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn no_two_files_import_each_other() {
    report(["src", "plan/src"].into_iter().flat_map(imports::cycles).collect());
}

#[test]
fn the_readme_shows_the_first_example() {
    let (readme, example) = (read("README.md"), read("examples/train_gpt.rs"));
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    // From the first import to the end of `main`.
    let start = example.find("use ").expect("the example imports");
    let main = example.find("fn main").expect("the example has a main");
    let end = main + example[main..].find("\n}\n").expect("main ends") + "\n}\n".len();
    assert_eq!(shown, Some(&example[start..end]), "README.md and examples/train_gpt.rs differ");
}

#[test]
fn what_the_documents_name_is_there() {
    let args: String = sources("cli/src")
        .into_iter()
        .filter(|(path, _)| path.starts_with("cli/src/args"))
        .map(|(_, text)| text)
        .collect();
    let is_field = |flag: &str| {
        let field = format!("{}:", flag.replace('-', "_"));
        args.lines().any(|line| line.trim().trim_start_matches("pub ").starts_with(&field))
    };
    let mut problems = Vec::new();
    for document in DOCUMENTS {
        for (number, line) in (1..).zip(read(document).lines()) {
            let mut found = |what: String| problems.push(format!("{document}:{number}: {what}"));
            for flag in flags(line).filter(|flag| !FOREIGN_FLAGS.contains(flag)) {
                if !is_field(flag) {
                    found(format!("cli/src/args.rs has no --{flag}"));
                }
            }
            for path in line.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted)) {
                if !root().join(path).exists() {
                    found(format!("there is no {path}"));
                }
            }
            if line.contains("<<") {
                found("a placeholder".into());
            }
        }
    }
    report(problems);
}

/// Whether a quoted text is the path of something in this repository.
fn is_path(quoted: &str) -> bool {
    ["src/", "plan/", "cli/", "shaders/", "tests/", "examples/", "scripts/", "docs/", ".github/"]
        .iter()
        .any(|folder| quoted.starts_with(folder))
        && !quoted.contains(char::is_whitespace)
}

/// The names of the long options in a line.
fn flags(line: &str) -> impl Iterator<Item = &str> {
    line.split("--").skip(1).filter_map(|rest| {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
    })
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Path and text of every Rust or WGSL file in a folder, in order.
fn sources(folder: &str) -> Vec<(String, String)> {
    let entries = WalkDir::new(root().join(folder)).sort_by_file_name().into_iter();
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").into_path()).collect();
    paths.retain(|path| path.extension().is_some_and(|of| of == "rs" || of == "wgsl"));
    assert!(!paths.is_empty(), "{folder} has no sources");
    let name = |path: &PathBuf| {
        let path = path.strip_prefix(root()).expect("the path is in the repository");
        path.to_str().expect("the path is UTF-8").replace('\\', "/")
    };
    paths.iter().map(name).map(|name| (name.clone(), read(&name))).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Unit tests are a module at the end of their file, and may use more. What stands before it may
/// not, even if it is for tests alone.
fn without_tests(code: &str) -> &str {
    code.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(code)
}

/// `source` with blanks for comments, strings and characters, on the same lines.
fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        match blank_end(&text, at) {
            Some(end) => {
                let blank = |&c: &char| if c == '\n' { c } else { ' ' };
                code.extend(text[at..end].iter().map(blank));
                at = end;
            }
            None => {
                code.push(text[at]);
                at += 1;
            }
        }
    }
    code
}

/// Where the comment, string or character ends that starts at `at`, if one does.
fn blank_end(text: &[char], at: usize) -> Option<usize> {
    let is = |at: usize, c: char| text.get(at) == Some(&c);
    let find = |from: usize, c: char| (from..text.len()).find(|&at| text[at] == c);
    match text[at] {
        '/' if is(at + 1, '/') => Some(find(at, '\n').unwrap_or(text.len())),
        '/' if is(at + 1, '*') => Some(block_comment_end(text, at)),
        'r' => {
            let quote = (at + 1..text.len()).find(|&at| text[at] != '#')?;
            let hashes = quote - at - 1;
            let closes = |end: &usize| is(*end, '"') && (1..=hashes).all(|n| is(end + n, '#'));
            let close = is(quote, '"').then(|| (quote + 1..text.len()).find(closes));
            close.map(|close| close.map_or(text.len(), |close| close + hashes + 1))
        }
        '"' => {
            let mut end = at + 1;
            while end < text.len() && text[end] != '"' {
                end += if text[end] == '\\' { 2 } else { 1 };
            }
            Some((end + 1).min(text.len()))
        }
        '\'' if is(at + 1, '\\') => Some(find(at + 3, '\'').map_or(text.len(), |end| end + 1)),
        '\'' if is(at + 2, '\'') => Some(at + 3),
        _ => None,
    }
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Where a function starts, and its length to the closing brace.
#[derive(Debug, PartialEq)]
struct Function {
    line: usize,
    lines: usize,
}

fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let whole_word = !code[..start].ends_with(is_word);
        if whole_word && let Some(length) = function_length(&code[start..]) {
            let lines = code[start..start + length].matches('\n').count() + 1;
            functions.push(Function { line: code[..start].matches('\n').count() + 1, lines });
        }
    }
    functions
}

/// Bytes of the function that starts with `code`; none for a declaration without a body.
fn function_length(code: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let rows = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */\n d */ e", "a             \n      e"),
        (r#"f("{ \" fn {", 'x')"#, "f(           ,    )"),
        (r##"r#"{ " fn"# r#type b"}""##, r##"            r#type b   "##),
        (r"'{' '\'' '\u{7b}' <'a> &'static", "                  <'a> &'static"),
    ];
    for (source, expected) in rows {
        assert_eq!(code(source), expected);
    }
}

#[test]
fn functions_are_found_and_measured() {
    let source = "\
fn one() {}
trait T { fn declared(x: [u8; 2]); }
struct S(fn(u32) -> u32);
impl S {
    pub fn long<F>(f: F) -> u8
    where
        F: Fn(u8) {
        if true { '{' as u8 } else { f(\"}\") }
    }
}
";
    let expected = [Function { line: 1, lines: 1 }, Function { line: 5, lines: 5 }];
    assert_eq!(functions(&code(source)), expected);
}
