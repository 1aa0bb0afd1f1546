//! Text -> batches of token ids: a character vocabulary, a held-out part, a seeded sampler.
//!
//! Plain numbers only: whoever trains turns them into tensors.

mod files;
mod vocabulary;

use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use zerobubble::error::{Error, Result};

pub use files::is_text;
pub use vocabulary::Vocabulary;

/// One part in this many is held out.
const HELD_OUT_SHARE: usize = 10;

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
    training: Vec<u16>,
    /// The tokens to judge by.
    held_out: Vec<u16>,
    /// How many characters are too rare to be tokens of their own.
    replaced: usize,
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
    training: Vec<u16>,
    context: usize,
    generator: Xoshiro256PlusPlus,
    drawn: u64,
}

impl Corpus {
    /// The text of a file, or of all text files below a folder in the order of their paths.
    ///
    /// In a folder, hidden entries, links, folders named `target` and the folder `besides`, which
    /// holds what the run itself writes, are skipped.
    pub fn read(path: &Path, besides: Option<&Path>) -> Result<Self> {
        Self::of_text(path, &files::read(path, besides)?)
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
        if vocabulary.size() == 1 {
            return Err(Error::data("the text has one character only, over and over")
                .in_file(source)
                .hint("a text with something to learn"));
        }
        let (mut training, replaced) = vocabulary.encode(text);
        let held_out = training.split_off(training.len() - training.len() / HELD_OUT_SHARE);
        Ok(Self { source, vocabulary, training, held_out, replaced })
    }

    /// How many characters are too rare to be tokens of their own, and read as one.
    pub fn replaced(&self) -> usize {
        self.replaced
    }

    /// How many characters the text has.
    pub fn characters(&self) -> usize {
        self.training.len() + self.held_out.len()
    }

    /// A hash of the text as it is trained on: the same text gives the same tokens.
    pub fn hash(&self) -> String {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(self.vocabulary.characters().as_bytes());
        // No character has this byte, so the parts are told apart.
        for part in [&self.training, &self.held_out] {
            hasher.update(&[0xff]);
            match self.vocabulary.size() {
                ..=256 => hasher.update(&part.iter().map(|token| *token as u8).collect::<Vec<_>>()),
                _ => part.iter().for_each(|token| hasher.update(&token.to_le_bytes())),
            }
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

    fn check_context(&self, name: &str, part: &[u16], context: usize) -> Result<()> {
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

fn windows(part: &[u16], context: usize, starts: impl Iterator<Item = usize>) -> Windows {
    let mut windows = Windows { rows: 0, context, tokens: Vec::new(), targets: Vec::new() };
    for start in starts {
        let row = |from: usize| part[from..from + context].iter().map(|token| i64::from(*token));
        windows.rows += 1;
        windows.tokens.extend(row(start));
        windows.targets.extend(row(start + 1));
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alphabet(repeats: usize) -> Corpus {
        Corpus::of_text("alphabet", &"abcdefghij".repeat(repeats)).unwrap()
    }

    /// Any file is an error that names it, or a text whose tokens stand for its characters.
    fn holds(input: &[u8]) {
        thread_local! {
            static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
        }
        let path = FOLDER.with(|folder| folder.path().join("some.txt"));
        // To write over a file can take as long as the disk.
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, input).unwrap();
        let read = Corpus::read(&path, None);
        let corpus = match read {
            Ok(corpus) => corpus,
            Err(error) => return assert_eq!(error.site.file, Some(path)),
        };
        let text = std::str::from_utf8(input).unwrap();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tokens = corpus.training.iter().chain(&corpus.held_out).map(|&token| token.into());
        assert_eq!(corpus.vocabulary.decode(&tokens.collect::<Vec<i64>>()), text);
        if let Ok(mut sampler) = corpus.sampler(3, 1) {
            assert_eq!(sampler.next_batch(2).tokens.len(), 6);
        }
        corpus.held_out_windows(1, 3).ok();
    }

    #[test]
    fn any_file_is_tokens_or_an_error_that_names_it() {
        crate::harness::run("text", 10_000, holds);
    }

    #[test]
    fn a_text_without_anything_to_learn_is_refused() {
        let rows = [
            ("", "some.txt: the text is empty (try: a longer text)"),
            (
                "aaaa",
                "some.txt: the text has one character only, over and over (try: a text with \
                 something to learn)",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(Corpus::of_text("some.txt", text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_own_sources_are_a_corpus() {
        let corpus = Corpus::own_sources().unwrap();
        assert_eq!(corpus.replaced(), 0);
        assert!(corpus.characters() > 10_000);
        corpus.sampler(256, 0).unwrap();
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
