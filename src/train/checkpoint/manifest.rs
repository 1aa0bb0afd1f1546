//! The small numbers of a checkpoint, and whether a run with these settings may continue from it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// What stands for the norm of gradients that are not clipped.
pub(super) const NO_NORM: &str = "none";

/// The form of the files; another one is not read.
const FORMAT: u32 = 1;

/// What a checkpoint says besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Steps done. Random numbers depend on it and on the seed.
    pub(super) step: u64,
    /// Updates of every parameter.
    pub(super) updates: u64,
    pub(super) settings: Settings,
    /// The caller's own.
    pub(super) note: Value,
}

/// What the bits of the weights depend on, besides the model and the batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) microbatches: u32,
    /// Shapes of the tensors of one microbatch.
    pub(super) microbatch: Vec<Vec<usize>>,
    /// As text, since it is compared only.
    pub(super) optimizer: String,
    /// As text too.
    pub(super) clip_norm: String,
}

impl Manifest {
    pub(super) fn new(step: u64, updates: u64, settings: Settings, note: Value) -> Self {
        Self { format: FORMAT, step, updates, settings, note }
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("every part of a manifest has a JSON form") + "\n"
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::data(format!("no manifest: {error}"));
        let value: Value = serde_json::from_slice(text).map_err(wrong)?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => Err(Error::data(format!(
                "form {format} of checkpoints, this version reads {FORMAT}"
            ))
            .hint("the version of zerobubble that saved it")),
            _ => serde_json::from_value(value).map_err(wrong),
        }
    }
}

impl Settings {
    /// Whether these, of a checkpoint, are those of the trainer.
    pub(super) fn check(&self, trainer: &Self) -> Result<()> {
        let mut pairs = self.named().into_iter().zip(trainer.named());
        match pairs.find(|(saved, given)| saved != given) {
            None => Ok(()),
            Some((saved, given)) => Err(Error::data(format!("saved with {saved}, not {given}"))
                .hint(format!("{saved}, or another folder"))),
        }
    }

    /// Each as an error names it; what the builder sets, as it sets it.
    fn named(&self) -> [String; 5] {
        let clip_norm = if self.clip_norm == NO_NORM { "None" } else { &self.clip_norm };
        [
            format!("`seed({})`", self.seed),
            format!("`microbatches({})`", self.microbatches),
            format!("microbatches of shape {:?}", self.microbatch),
            format!("optimizer {}", self.optimizer),
            format!("`clip_norm({clip_norm})`"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_parses_back(
            step: u64, updates: u64, seed: u64, microbatches: u32,
            microbatch: Vec<Vec<usize>>, optimizer: String, clip_norm: String,
            words: Vec<String>, number: u64,
        ) {
            let settings = Settings { seed, microbatches, microbatch, optimizer, clip_norm };
            let note = serde_json::json!({ "words": words, "number": number, "none": null });
            let manifest = Manifest::new(step, updates, settings, note);
            prop_assert_eq!(Manifest::parse(manifest.text().as_bytes()).unwrap(), manifest);
        }
    }

    #[test]
    fn another_form_is_named() {
        let error = Manifest::parse(br#"{"format": 7, "pages": []}"#).unwrap_err();
        assert!(error.problem.starts_with("form 7 of checkpoints"), "{error}");
        assert!(Manifest::parse(b"{}").unwrap_err().problem.starts_with("no manifest: "));
    }
}
