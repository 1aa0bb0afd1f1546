//! What `train` saves and continues from, and which of its options have to stay the same.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::text::{Corpus, Sampler};
use serde::{Deserialize, Serialize};
use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::gpt::Gpt;
use zerobubble::train::{Checkpoint, Checkpoints, Trainer};

use super::args::TrainArgs;
use super::evaluate::Batch;
use super::flags::with_flags;
use super::printable;
use super::progress::Phase;

/// The checkpoints of a run, if it was asked to make any.
pub struct Saving {
    checkpoints: Option<Checkpoints>,
    every: u64,
    /// Where the run ends.
    steps: u64,
    newest: Option<Checkpoint>,
    options: Options,
}

/// What a run notes in its checkpoints.
#[derive(Serialize, Deserialize)]
struct Note {
    options: Options,
    /// Where in the text it is.
    windows_drawn: u64,
}

/// What the batches and the model are made of.
#[derive(Clone, Serialize, Deserialize)]
struct Options {
    seed: u64,
    layers: usize,
    width: usize,
    heads: usize,
    context: usize,
    microbatch_size: usize,
    text: PathBuf,
    text_hash: String,
}

impl Saving {
    /// Opens the folder, and reads what the run continues from.
    pub fn open(args: &TrainArgs, corpus: &Corpus) -> Result<Self> {
        let options = Options::of(args, corpus);
        let (every, steps) = (args.checkpoint_every, u64::from(args.steps));
        let Some(folder) = &args.checkpoint else {
            return Ok(Self { checkpoints: None, every, steps, newest: None, options });
        };
        let checkpoints = Checkpoints::open(folder)?.keep(args.checkpoint_keep);
        let newest = match args.resume {
            true => newest(&checkpoints, &options)?,
            false => unused(&checkpoints).map(|()| None)?,
        };
        Ok(Self { checkpoints: Some(checkpoints), every, steps, newest, options })
    }

    /// Puts a new run where the checkpoint was; says on stderr which one it is.
    pub fn resume(
        &mut self,
        trainer: &mut Trainer<Gpt, Batch>,
        sampler: &mut Sampler,
    ) -> Result<()> {
        let Some(newest) = self.newest.take() else { return Ok(()) };
        let drawn = newest.note::<Note>()?.windows_drawn;
        let phase = Phase::begin("reading the checkpoint");
        let told = trainer.resume(&newest)?;
        drop(phase);
        let rows = u64::from(trainer.plan().plan().microbatches) * self.options.rows();
        if newest.step().checked_mul(rows) != Some(drawn) {
            let problem = format!("{drawn} windows of the text drawn in {} steps", newest.step());
            let hint = "the version that wrote it, or another folder";
            return Err(Error::data(problem).in_file(newest.path()).hint(hint));
        }
        // A checkpoint may say that it is of any step, and drawing for all of them takes long. A
        // run that has no step left draws no more.
        if newest.step() < self.steps {
            sampler.skip(drawn);
        }
        tell(&format!("continuing from {}", newest.path().display()));
        told.iter().for_each(|difference| tell(&with_flags(difference)));
        Ok(())
    }

    /// Saves after a step, where it is time or the run `ends`. Weights that are not finite are not
    /// saved: that is told, and the run goes on. Gives why nothing is saved where the run ends.
    pub fn after_step(
        &self,
        trainer: &mut Trainer<Gpt, Batch>,
        sampler: &Sampler,
        ends: bool,
    ) -> Result<Option<Error>> {
        match &self.checkpoints {
            Some(checkpoints) if ends || trainer.steps().is_multiple_of(self.every) => {
                let options = self.options.clone();
                let note = Note { options, windows_drawn: sampler.drawn() };
                let _phase = Phase::begin("saving a checkpoint");
                match trainer.save(checkpoints, &note) {
                    Ok(_) => Ok(None),
                    Err(error) if error.kind == ErrorKind::NotFinite && ends => Ok(Some(error)),
                    Err(error) if error.kind == ErrorKind::NotFinite => {
                        tell(&error.to_string());
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
            _ => Ok(None),
        }
    }

    /// What a run says that ended early.
    pub fn interrupted(&self, step: u64, steps: u64) -> Error {
        let problem = format!("interrupted after step {step} of {steps}");
        match &self.checkpoints {
            Some(checkpoints) => {
                let folder = checkpoints.folder().display();
                let problem = format!("{problem}, which is saved in {folder}");
                Error::new(ErrorKind::Interrupted, problem)
                    .hint("the same command with --resume, to go on")
            }
            None => Error::new(ErrorKind::Interrupted, format!("{problem}; nothing is saved"))
                .hint("--checkpoint DIR, to be able to go on"),
        }
    }
}

/// The checkpoint to continue from; says on stderr which ones it is not.
fn newest(checkpoints: &Checkpoints, options: &Options) -> Result<Option<Checkpoint>> {
    let found = checkpoints.newest()?;
    for error in &found.skipped {
        let fault = match error.kind {
            ErrorKind::NotFinite => "with numbers that are not finite",
            _ => "that is not whole",
        };
        tell(&format!("skipped a checkpoint {fault}: {error}"));
    }
    match found.checkpoint {
        Some(checkpoint) => {
            let saved = checkpoint.note::<Note>()?.options;
            saved.check(options).map_err(|error| error.in_file(checkpoint.path()))?;
            Ok(Some(checkpoint))
        }
        None => {
            let folder = checkpoints.folder().display();
            tell(&format!("no checkpoint in {folder} yet: starting from the beginning"));
            Ok(None)
        }
    }
}

/// A run from the beginning does not mix its checkpoints with another's.
fn unused(checkpoints: &Checkpoints) -> Result<()> {
    match checkpoints.steps()?.last() {
        None => Ok(()),
        Some(last) => Err(Error::data(format!("there are checkpoints up to step {last}"))
            .in_file(checkpoints.folder())
            .hint("--resume to continue from the last one, or another folder")),
    }
}

impl Options {
    fn of(args: &TrainArgs, corpus: &Corpus) -> Self {
        Self {
            seed: args.common.seed,
            layers: args.common.layers,
            width: args.common.width,
            heads: args.common.heads,
            context: args.common.context,
            microbatch_size: args.common.microbatch_size,
            text: corpus.source.clone(),
            text_hash: corpus.hash(),
        }
    }

    /// Windows in a microbatch.
    fn rows(&self) -> u64 {
        self.microbatch_size as u64
    }

    /// Whether these, of a checkpoint, are those of the run. All of them have to be: none can
    /// differ and the run still be the same one.
    fn check(&self, run: &Self) -> Result<()> {
        let rows = [
            ("seed", self.seed, run.seed),
            ("layers", self.layers as u64, run.layers as u64),
            ("width", self.width as u64, run.width as u64),
            ("heads", self.heads as u64, run.heads as u64),
            ("context", self.context as u64, run.context as u64),
            ("microbatch-size", self.microbatch_size as u64, run.microbatch_size as u64),
        ];
        if let Some((option, saved, given)) = rows.iter().find(|(_, saved, given)| saved != given) {
            return Err(Error::data(format!("saved with --{option} {saved}, not {given}"))
                .hint(format!("--{option} {saved}, or another folder")));
        }
        if self.text_hash != run.text_hash {
            let (saved, given) = (self.text.display(), run.text.display());
            return Err(Error::data(format!(
                "saved with another text, {saved}, than {given} is now"
            ))
            .hint("the text as it was, or another folder"));
        }
        Ok(())
    }
}

/// Progress is a courtesy: a closed stderr must not end the run.
fn tell(line: &str) {
    writeln!(io::stderr(), "{}", printable::line(line)).ok();
}
