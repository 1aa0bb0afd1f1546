//! Text -> batches of token ids: a character vocabulary, a held-out part, a seeded sampler.
//!
//! Plain numbers only: whoever trains turns them into tensors.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use walkdir::{DirEntry, WalkDir};

use zerobubble::error::{Error, ErrorKind, Result};

/// A vocabulary is no larger than this, so that a token fits a byte and the output layer is small.
const VOCABULARY_LIMIT: usize = 128;
/// Stands for every character that is too rare for the vocabulary.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// One part in this many is held out.
const HELD_OUT_SHARE: usize = 10;
/// What counts as text in a folder.
const TEXT_EXTENSIONS: [&str; 5] = ["md", "rs", "toml", "txt", "wgsl"];

/// Where the default text is from.
const OWN_SOURCES: &str = "zerobubble's own sources";

/// A text as tokens, its last tenth held out from training.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// Where the text is from.
    pub source: PathBuf,
    /// What the tokens mean.
    pub vocabulary: Vocabulary,
    /// The tokens to train on.
    training: Vec<u8>,
    /// The tokens to judge by.
    held_out: Vec<u8>,
}

/// The distinct characters of a text, in order. A token is a character's position here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    characters: Vec<char>,
}

/// Rows of tokens and, one character further, what a model should predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// How many rows there are.
    pub rows: usize,
    /// How long each row is.
    pub context: usize,
    /// `rows` x `context` tokens, row by row.
    pub tokens: Vec<i64>,
    /// For every token the one that follows it in the text.
    pub targets: Vec<i64>,
}

/// Draws windows from the training part, uniformly, the same ones for the same seed.
#[derive(Debug, Clone)]
pub struct Sampler {
    training: Vec<u8>,
    context: usize,
    generator: Xoshiro256PlusPlus,
    drawn: u64,
}

impl Corpus {
    /// The text of a file, or of all text files below a folder in the order of their paths.
    ///
    /// In a folder, hidden entries, links and folders named `target` are skipped.
    pub fn read(path: &Path) -> Result<Self> {
        if !fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir() {
            return Self::of_text(path, &read_text(path)?);
        }
        let files = text_files(path)?;
        if files.is_empty() {
            return Err(Error::data("the folder has no text files")
                .in_file(path)
                .hint(format!("a folder with files of type {}", TEXT_EXTENSIONS.join(", "))));
        }
        let mut text = String::new();
        for file in files {
            text += &read_text(&file)?;
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
        Self::of_text(path, &text)
    }

    /// The project's own sources, as they were when the binary was built.
    pub fn own_sources() -> Result<Self> {
        Self::of_text(OWN_SOURCES, include_str!(concat!(env!("OUT_DIR"), "/sources.txt")))
    }

    /// The corpus of `text`, which came from `source`.
    pub fn of_text(source: impl Into<PathBuf>, text: &str) -> Result<Self> {
        let source = source.into();
        if text.is_empty() {
            return Err(Error::data("the text is empty").in_file(source).hint("a longer text"));
        }
        let vocabulary = Vocabulary::of(text);
        let mut training = vocabulary.encode(text);
        let held_out = training.split_off(training.len() - training.len() / HELD_OUT_SHARE);
        Ok(Self { source, vocabulary, training, held_out })
    }

    /// How many characters the text has.
    pub fn characters(&self) -> usize {
        self.training.len() + self.held_out.len()
    }

    /// A hash of the text as it is trained on: the same text gives the same tokens.
    pub fn hash(&self) -> String {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(String::from_iter(&self.vocabulary.characters).as_bytes());
        // No character has this byte, so the parts are told apart.
        for part in [&self.training, &self.held_out] {
            hasher.update(&[0xff]);
            hasher.update(part);
        }
        format!("{:032x}", hasher.digest128())
    }

    /// Draws windows of `context` tokens from the training part.
    pub fn sampler(&self, context: usize, seed: u64) -> Result<Sampler> {
        self.check_context("training", &self.training, context)?;
        let generator = Xoshiro256PlusPlus::seed_from_u64(seed);
        Ok(Sampler { training: self.training.clone(), context, generator, drawn: 0 })
    }

    /// `rows` windows of `context` tokens, evenly spaced over the held-out part.
    pub fn held_out_windows(&self, context: usize, rows: usize) -> Result<Windows> {
        self.check_context("held-out", &self.held_out, context)?;
        let last_start = self.held_out.len() - context - 1;
        let gaps = rows.saturating_sub(1).max(1);
        let starts = (0..rows).map(|row| last_start * row / gaps);
        Ok(windows(&self.held_out, context, starts))
    }

    fn check_context(&self, name: &str, part: &[u8], context: usize) -> Result<()> {
        if context == 0 {
            return Err(Error::config("a context of 0 characters").hint("a context of at least 1"));
        }
        // The last token of a window needs a character after it as its target.
        if context < part.len() {
            return Ok(());
        }
        let problem = format!(
            "a context of {context} is too long for the {name} part of {} characters",
            part.len()
        );
        let longest = self.held_out.len().saturating_sub(1);
        let hint = match longest {
            0 => "a longer text".to_owned(),
            _ => format!("a context of at most {longest}, or a longer text"),
        };
        Err(Error::data(problem).in_file(&self.source).hint(hint))
    }
}

impl Vocabulary {
    /// The most frequent characters of `text`; the rest become one replacement character.
    pub fn of(text: &str) -> Self {
        let mut counts: HashMap<char, usize> = HashMap::new();
        for character in text.chars() {
            *counts.entry(character).or_default() += 1;
        }
        let mut by_count: Vec<(char, usize)> = counts.into_iter().collect();
        // Equally frequent characters need an order too, or the map's own would decide.
        by_count.sort_unstable_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        let mut characters: Vec<char> = by_count.into_iter().map(|(c, _)| c).collect();
        if characters.len() > VOCABULARY_LIMIT {
            characters.truncate(VOCABULARY_LIMIT - 1);
            if !characters.contains(&REPLACEMENT) {
                characters.push(REPLACEMENT);
            }
        }
        characters.sort_unstable();
        Self { characters }
    }

    /// How many different tokens there are.
    pub fn size(&self) -> usize {
        self.characters.len()
    }

    /// The token of `character`, if it has one of its own.
    pub fn token(&self, character: char) -> Option<u8> {
        self.characters.binary_search(&character).ok().map(|position| position as u8)
    }

    /// The tokens of `text`.
    ///
    /// # Panics
    ///
    /// Panics on a character that neither is in the vocabulary nor can be replaced.
    fn encode(&self, text: &str) -> Vec<u8> {
        let replacement = self.token(REPLACEMENT);
        text.chars()
            .map(|c| self.token(c).or(replacement).expect("the vocabulary is of this text"))
            .collect()
    }

    /// The text of `tokens`. What is no token is shown as the replacement character.
    pub fn decode(&self, tokens: &[i64]) -> String {
        let character = |token: &i64| usize::try_from(*token).ok().map(|t| self.characters.get(t));
        tokens.iter().map(|token| character(token).flatten().unwrap_or(&REPLACEMENT)).collect()
    }
}

impl Sampler {
    /// The next `rows` windows.
    pub fn next_batch(&mut self, rows: usize) -> Windows {
        let starts: Vec<usize> = (0..rows).map(|_| self.draw()).collect();
        windows(&self.training, self.context, starts.into_iter())
    }

    /// Windows drawn so far.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// Draws windows for nobody, so that those after them come next.
    pub fn skip(&mut self, windows: u64) {
        for _ in 0..windows {
            self.draw();
        }
    }

    fn draw(&mut self) -> usize {
        // 64 bits wide, so that a 32-bit machine draws the same windows.
        let starts = (self.training.len() - self.context) as u64;
        self.drawn += 1;
        self.generator.random_range(0..starts) as usize
    }
}

impl Windows {
    /// Rows `range` of these.
    pub fn rows(&self, range: Range<usize>) -> Self {
        let cells = range.start * self.context..range.end * self.context;
        Self {
            rows: range.len(),
            context: self.context,
            tokens: self.tokens[cells.clone()].to_vec(),
            targets: self.targets[cells].to_vec(),
        }
    }
}

fn windows(part: &[u8], context: usize, starts: impl Iterator<Item = usize>) -> Windows {
    let mut windows = Windows { rows: 0, context, tokens: Vec::new(), targets: Vec::new() };
    for start in starts {
        let row = |from: usize| part[from..from + context].iter().map(|token| i64::from(*token));
        windows.rows += 1;
        windows.tokens.extend(row(start));
        windows.targets.extend(row(start + 1));
    }
    windows
}

/// All text files below `folder`, in the order of their paths.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    // Links below the folder are neither folders nor files.
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter();
    for entry in entries.filter_entry(|entry| entry.depth() == 0 || !is_skipped(entry)) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            let error = error.into_io_error().expect("who follows no links finds no loop");
            unreadable(&path, &error)
        })?;
        if entry.file_type().is_file() && is_text(entry.path()) {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn is_skipped(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    is_hidden || (entry.file_type().is_dir() && name == "target")
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| TEXT_EXTENSIONS.iter().any(|text| extension == *text))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Error::data(format!("not UTF-8 text: byte {position} cannot be read"))
            .in_file(path)
            .hint("convert the file to UTF-8, or leave it out")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be read: {error}"))
        .in_file(path)
        .hint("the path of a text file or of a folder with text files")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn alphabet(repeats: usize) -> Corpus {
        Corpus::of_text("alphabet", &"abcdefghij".repeat(repeats)).unwrap()
    }

    #[test]
    fn a_folder_is_its_text_files_in_the_order_of_their_paths() {
        let folder = folder(&[
            ("b.rs", b"B"),
            ("a.md", b"A"),
            ("a/z.md", b"Z\n"),
            ("a/image.png", &[0xff]),
            (".git/c.txt", b"hidden"),
            (".d.txt", b"hidden"),
            ("target/e.rs", b"built"),
        ]);
        let corpus = Corpus::read(folder.path()).unwrap();
        let all: Vec<i64> =
            [&corpus.training[..], &corpus.held_out].concat().into_iter().map(i64::from).collect();
        assert_eq!(corpus.vocabulary.decode(&all), "Z\nA\nB\n");
    }

    #[test]
    fn unusable_texts_are_errors_that_name_the_file() {
        let folder =
            folder(&[("empty.txt", b""), ("latin.txt", b"caf\xe9"), ("pictures/a.png", b"")]);
        let rows = [
            ("empty.txt", ErrorKind::Data, "the text is empty"),
            ("latin.txt", ErrorKind::Data, "not UTF-8 text: byte 3 cannot be read"),
            ("pictures", ErrorKind::Data, "the folder has no text files"),
            ("absent.txt", ErrorKind::Io, "cannot be read: No such file"),
        ];
        for (file, kind, problem) in rows {
            let path = folder.path().join(file);
            let error = Corpus::read(&path).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.problem.starts_with(problem), "{error}");
            assert_eq!(error.site.file.as_ref(), Some(&path));
        }
    }

    #[test]
    fn the_own_sources_are_a_corpus() {
        let corpus = Corpus::own_sources().unwrap();
        assert!(corpus.vocabulary.size() <= VOCABULARY_LIMIT);
        assert!(corpus.characters() > 10_000);
        corpus.sampler(256, 0).unwrap();
    }

    #[test]
    fn rare_characters_become_the_replacement_character() {
        let common: String = ('\u{4e00}'..).take(127).flat_map(|c| [c, c]).collect();
        let vocabulary = Vocabulary::of(&(common.clone() + "xy"));
        assert_eq!(vocabulary.size(), VOCABULARY_LIMIT);
        let tokens: Vec<i64> = vocabulary.encode("x\u{4e00}y").into_iter().map(i64::from).collect();
        assert_eq!(vocabulary.decode(&tokens), "\u{fffd}\u{4e00}\u{fffd}");
        // One fewer, and every character is kept.
        let vocabulary = Vocabulary::of(&(common + "x"));
        assert_eq!((vocabulary.size(), vocabulary.token('x')), (VOCABULARY_LIMIT, Some(0)));
        assert_eq!(vocabulary.decode(&[-1, 999]), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_seed_decides_the_windows_and_targets_are_one_further() {
        let corpus = alphabet(20);
        let draw = |seed| corpus.sampler(7, seed).unwrap().next_batch(50);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let batch = draw(1);
        assert_eq!((batch.rows, batch.tokens.len(), batch.targets.len()), (50, 350, 350));
        let follows = |(token, target): (&i64, &i64)| (token + 1) % 10 == *target;
        assert!(batch.tokens.iter().zip(&batch.targets).all(follows));
        let row = batch.rows(3..5);
        assert_eq!((row.rows, &row.tokens[..]), (2, &batch.tokens[21..35]));
    }

    #[test]
    fn a_sampler_that_skips_what_was_drawn_goes_on_as_the_other_does() {
        let corpus = alphabet(20);
        let mut first = corpus.sampler(7, 1).unwrap();
        first.next_batch(33);
        let mut second = corpus.sampler(7, 1).unwrap();
        second.skip(first.drawn());
        assert_eq!(second.next_batch(5), first.next_batch(5));
        assert_eq!((first.drawn(), second.drawn()), (38, 38));
        assert_eq!(corpus.hash(), alphabet(20).hash());
        assert_ne!(corpus.hash(), alphabet(21).hash());
    }

    #[test]
    fn every_window_of_the_training_part_can_be_drawn() {
        let corpus = alphabet(2);
        let starts: std::collections::HashSet<i64> = corpus
            .sampler(10, 0)
            .unwrap()
            .next_batch(1000)
            .tokens
            .into_iter()
            .step_by(10)
            .collect();
        // 18 characters to train on hold 8 windows of 10 with a target each.
        assert_eq!(starts, (0..8).collect());
    }

    #[test]
    fn held_out_windows_span_the_held_out_part() {
        let corpus = alphabet(20);
        let windows = corpus.held_out_windows(5, 3).unwrap();
        assert_eq!(windows.tokens, [0, 1, 2, 3, 4, 7, 8, 9, 0, 1, 4, 5, 6, 7, 8]);
        assert_eq!(windows.targets.last(), Some(&9));
        assert_eq!(corpus.held_out_windows(5, 1).unwrap().tokens, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_context_must_fit_both_parts() {
        let corpus = alphabet(2);
        let check = |result: Result<()>, expected: &str| {
            assert_eq!(result.unwrap_err().to_string(), expected);
        };
        check(
            corpus.sampler(18, 0).map(drop),
            "alphabet: a context of 18 is too long for the training part of 18 characters \
             (try: a context of at most 1, or a longer text)",
        );
        check(
            corpus.held_out_windows(2, 4).map(drop),
            "alphabet: a context of 2 is too long for the held-out part of 2 characters \
             (try: a context of at most 1, or a longer text)",
        );
        check(
            Corpus::of_text("a", "abc").unwrap().held_out_windows(1, 1).map(drop),
            "a: a context of 1 is too long for the held-out part of 0 characters \
             (try: a longer text)",
        );
        check(
            corpus.sampler(0, 0).map(drop),
            "a context of 0 characters (try: a context of at least 1)",
        );
    }
}
