//! `--config FILE`: options of `train` from a TOML file, as if they stood on the command line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zerobubble::error::{Error, ErrorKind as Kind};

use super::args::UsageError;

/// The command that takes a file.
const TRAIN: &str = "train";

/// No file of options is read beyond this: a device or a pipe may have no end.
const MOST_BYTES: u64 = 1 << 20;

/// An option in a file.
struct Setting {
    name: String,
    /// Where it stands, counted from 1.
    line: usize,
    /// As it is written on the command line; nothing for a flag that is not set.
    argument: Option<String>,
}

/// Puts the options of the file that `arguments` name behind the command. Those that `arguments`
/// have themselves, or that contradict one of these, are left out.
pub fn with_file(
    definition: &Command,
    arguments: Vec<OsString>,
) -> Result<Vec<OsString>, UsageError> {
    let definition = definition.clone();
    let matches = definition.clone().try_get_matches_from(&arguments)?;
    let Some((TRAIN, given)) = matches.subcommand() else { return Ok(arguments) };
    let Some(path) = given.get_one::<PathBuf>("config") else { return Ok(arguments) };
    let text = text(path).map_err(|error| {
        let error = Error::new(Kind::Io, format!("cannot be read: {error}")).in_file(path);
        UsageError::Unreadable(error.hint("the path of a TOML file with options"))
    })?;
    let settings = settings(&definition, path, &text)?;
    let train = train(&definition);
    let wanted: Vec<Setting> =
        settings.into_iter().filter(|setting| !is_given(train, given, &setting.name)).collect();
    let command = arguments.iter().position(|argument| argument == TRAIN);
    let behind = command.expect("the command was parsed") + 1;
    let spliced = |wanted: &mut dyn Iterator<Item = &Setting>| {
        let mut all = arguments.clone();
        let of_file = wanted.filter_map(|setting| setting.argument.as_ref()).map(OsString::from);
        all.splice(behind..behind, of_file);
        all
    };
    let parsed = |arguments: &[OsString]| definition.clone().try_get_matches_from(arguments);
    let all = spliced(&mut wanted.iter());
    let Err(error) = parsed(&all) else { return Ok(all) };
    // Without which one there would be no error?
    let is_fault = |at: &usize| parsed(&spliced(&mut without(&wanted, *at))).is_ok();
    let fault = (0..wanted.len()).rev().find(is_fault);
    let line = fault.map_or(1, |at| wanted[at].line);
    Err(match UsageError::from(error) {
        UsageError::Wrong(problem) => {
            UsageError::Wrong(format!("{}:{line}: {problem}", path.display()))
        }
        other => other,
    })
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes"))),
        false => Ok(text),
    }
}

/// All but one.
fn without(settings: &[Setting], at: usize) -> impl Iterator<Item = &Setting> {
    settings[..at].iter().chain(&settings[at + 1..])
}

/// Whether the command line has this option, or one that it contradicts.
fn is_given(train: &Command, given: &ArgMatches, name: &str) -> bool {
    let on_command_line =
        |arg: &Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let contradicts = |arg: &Arg| {
        train.get_arg_conflicts_with(arg).iter().any(|other| other.get_long() == Some(name))
    };
    let mut all = train.get_arguments().filter(|arg| on_command_line(arg));
    all.any(|arg| arg.get_long() == Some(name) || contradicts(arg))
}

/// The options in a file, each of which the command takes.
fn settings(definition: &Command, path: &Path, text: &str) -> Result<Vec<Setting>, UsageError> {
    let line = |at: usize| 1 + text[..at].matches('\n').count();
    let wrong = |at: usize, problem: &str| {
        let line = line(at);
        let hint =
            if problem.contains("(try:") { "" } else { " (try: a line such as steps = 100)" };
        UsageError::Wrong(format!("{}:{line}: {problem}{hint}", path.display()))
    };
    let table = DeTable::parse(text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let setting = |(name, value): (&Spanned<_>, &Spanned<DeValue>)| {
        let (at, name): (usize, &str) = (name.span().start, AsRef::as_ref(name.get_ref()));
        let argument = argument(definition, name, value.get_ref());
        let argument = argument.map_err(|problem| wrong(at, &problem))?;
        if let Some(argument) = &argument {
            check(definition, argument).map_err(|problem| wrong(at, &problem))?;
        }
        Ok(Setting { name: name.to_owned(), line: line(at), argument })
    };
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries.into_iter().map(setting).collect()
}

/// An entry of a file as an argument.
fn argument(definition: &Command, name: &str, value: &DeValue) -> Result<Option<String>, String> {
    let is_flag =
        |arg: &Arg| arg.get_long() == Some(name) && matches!(arg.get_action(), ArgAction::SetTrue);
    if name == "config" {
        return Err("a file names no other (try: the options of the other here)".into());
    }
    if ["json", "help", "version"].contains(&name) {
        return Err(format!("'--{name}' is for the command line alone (try: --{name} there)"));
    }
    if name.contains('=') {
        return Err(format!("'{name}' is no option (try: a line such as steps = 100)"));
    }
    let text = match value {
        DeValue::Boolean(set) if train(definition).get_arguments().any(is_flag) => {
            return Ok(set.then(|| format!("--{name}")));
        }
        DeValue::Boolean(set) => set.to_string(),
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_err(|error| format!("'{number}': {error}"))?
            .to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            let article = if matches!(value, DeValue::Array(_)) { "an" } else { "a" };
            let kind = value.type_str();
            return Err(format!("the value of '{name}' is {article} {kind}, not text or a number"));
        }
    };
    Ok(Some(format!("--{name}={text}")))
}

/// Whether the command takes an argument.
fn check(definition: &Command, argument: &str) -> Result<(), String> {
    let line = [definition.get_name(), TRAIN, argument];
    let Err(error) = definition.clone().try_get_matches_from(line) else { return Ok(()) };
    // What it needs beside it may be elsewhere in the file.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return Ok(());
    }
    match UsageError::from(error) {
        UsageError::Wrong(problem) => Err(problem),
        UsageError::Asked(_) | UsageError::Unreadable(_) => {
            Err(format!("'{argument}' is no option"))
        }
    }
}

fn train(definition: &Command) -> &Command {
    definition.find_subcommand(TRAIN).expect("there is such a command")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory;

    use super::*;
    use crate::args::{Arguments, Cli, Command as Parsed, is_option_of_train};
    use crate::harness;

    fn read(text: &str) -> Result<Vec<String>, String> {
        match settings(&Arguments::command(), Path::new("run.toml"), text) {
            Ok(settings) => Ok(settings.into_iter().filter_map(|of| of.argument).collect()),
            Err(UsageError::Wrong(problem) | UsageError::Asked(problem)) => Err(problem),
            Err(UsageError::Unreadable(error)) => Err(error.to_string()),
        }
    }

    #[test]
    fn entries_are_options_by_name() {
        let text = "steps = 1_000\n# faster\nlearning-rate = 3e-3\nschedule = \"1f1b\"\nseed=0x10";
        let expected = ["--steps=1000", "--learning-rate=3e-3", "--schedule=1f1b", "--seed=16"];
        assert_eq!(read(text).unwrap(), expected);
        let text = "post-validation = true\nclip-norm = 1.0";
        assert_eq!(read(text).unwrap(), ["--post-validation", "--clip-norm=1.0"]);
        assert_eq!(read("post-validation = false").unwrap(), [""; 0]);
        let largest = u64::MAX.to_string();
        let expected = [format!("--seed={largest}")];
        assert_eq!(read(&format!("seed = {largest}")).unwrap(), expected);
    }

    /// Every entry of a file is an option of `train`, and all of them are a command line or an
    /// error that names a line of the file.
    fn holds(input: &[u8]) {
        thread_local! {
            static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
        }
        let read = FOLDER.with(|folder| {
            let path = folder.path().join("run.toml");
            // To write over a file can take as long as the disk.
            fs::remove_file(&path).ok();
            fs::write(&path, input).unwrap();
            let arguments = ["zerobubble", "train", "--config"].map(OsString::from);
            Cli::read([&arguments[..], &[path.into()]].concat())
        });
        let Ok(text) = std::str::from_utf8(input) else {
            assert!(matches!(read, Err(UsageError::Unreadable(_))));
            return;
        };
        match read {
            Ok(cli) => {
                assert!(!cli.json && matches!(cli.command, Parsed::Train(_)));
                let settings = settings(&Arguments::command(), Path::new("run.toml"), text);
                let Ok(settings) = settings else { panic!("it was read") };
                assert!(settings.iter().all(|of| is_option_of_train(&of.name)), "{text}");
            }
            Err(UsageError::Wrong(problem)) => {
                let mut parts = problem.split(": ").next().unwrap().rsplit(':');
                let line: usize = parts.next().unwrap().parse().expect("a line is named");
                assert!((1..=1 + text.matches('\n').count()).contains(&line), "{problem}");
                assert!(problem.contains("(try: "), "{problem}");
            }
            Err(_) => panic!("it is text, and asks for nothing"),
        }
    }

    #[test]
    fn any_file_is_options_or_an_error_that_names_a_line() {
        harness::run("toml", 2_000, holds);
    }

    #[test]
    fn options_that_do_not_go_together_are_named_with_the_line_of_the_one_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        let rows = [
            ("seed = 1\npost-validation = true", ":2: ", "--clip-norm"),
            ("checkpoint-every = 3", ":1: ", "--checkpoint"),
            ("schedule = \"1f1b\"\nplan = \"a\"", ":2: ", "cannot be used with"),
        ];
        for (text, line, expected) in rows {
            fs::write(&path, text).unwrap();
            let arguments = ["zerobubble", "train", "--config"].map(OsString::from);
            let arguments = [&arguments[..], &[path.clone().into()]].concat();
            let Err(UsageError::Wrong(problem)) = with_file(&Arguments::command(), arguments)
            else {
                panic!("'{text}' is right")
            };
            assert!(problem.contains(line) && problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn what_is_no_option_is_named_with_its_line() {
        let rows = [
            ("steps = 3\n\nwidht = 4", "run.toml:3: unexpected argument '--widht' found"),
            ("steps = 0", "run.toml:1: invalid value '0' for '--steps"),
            (
                "seed = 1\nsteps = [1]",
                "run.toml:2: the value of 'steps' is an array, not text or a number",
            ),
            (
                "[train]\nsteps = 1",
                "run.toml:1: the value of 'train' is a table, not text or a number",
            ),
            ("seed = 1\nconfig = \"a\"", "run.toml:2: a file names no other"),
            ("seed = 1\nsteps =", "run.toml:2: "),
            ("help = true", "run.toml:1: '--help' is for the command line alone"),
            ("json = true", "run.toml:1: '--json' is for the command line alone (try: --json"),
        ];
        for (text, expected) in rows {
            let problem = read(text).unwrap_err();
            assert!(problem.starts_with(expected) && problem.contains("(try: "), "{problem}");
        }
    }
}
