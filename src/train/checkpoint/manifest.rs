//! The small numbers of a checkpoint, and whether a run with these settings may continue from it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::order::STANDARD;
use crate::error::{Error, ErrorKind, Result};

/// What stands for the norm of gradients that are not clipped.
pub(super) const NO_NORM: &str = "none";

/// The form of the files; another one is not read.
const FORMAT: u32 = 1;

/// The most steps that a run is continued from: schedulers of learning rates are asked for each.
const MOST_STEPS: u64 = u32::MAX as u64;

/// The version that this is.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a checkpoint says besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Of the zerobubble that wrote it.
    version: String,
    /// Steps done. Random numbers depend on it and on the seed.
    pub(super) step: u64,
    /// Updates of every parameter.
    pub(super) updates: u64,
    pub(super) settings: Settings,
    /// The caller's own.
    pub(super) note: Value,
}

/// What the bits of the weights depend on, besides the model and the batches. What is compared only
/// is text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) microbatches: u32,
    /// Shapes of the tensors of one microbatch.
    pub(super) microbatch: Vec<Vec<usize>>,
    /// With all its settings.
    pub(super) optimizer: String,
    pub(super) clip_norm: String,
    /// How activations are stored.
    pub(super) activations: String,
    pub(super) on_nan: String,
    /// In which order a plan adds gradients: see [`order`](super::order::order). No version before
    /// this field had another than the standard one.
    #[serde(default = "standard_order")]
    pub(super) order: String,
    /// Learning rates of steps to come, as (step from 0, rate): the next one, and ever sparser ones
    /// after it.
    pub(super) learning_rates: Vec<(u64, f64)>,
}

fn standard_order() -> String {
    STANDARD.to_owned()
}

/// What becomes of a run whose setting is not the one that was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// It is an error.
    Refused,
    /// The run continues, and its caller is told.
    Told,
}

impl Manifest {
    pub(super) fn new(step: u64, updates: u64, settings: Settings, note: Value) -> Self {
        Self { format: FORMAT, version: VERSION.into(), step, updates, settings, note }
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("every part of a manifest has a JSON form") + "\n"
    }

    /// Reads a manifest that was written whole.
    ///
    /// # Errors
    ///
    /// When it is of another form, lacks a field, or contradicts itself; the error says which
    /// version wrote it.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let foreign = |problem: String, writer: &str| {
            Error::new(ErrorKind::NotUnderstood, format!("{problem}; {writer} wrote it"))
                .hint("that version, or another folder")
        };
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| foreign(format!("not a manifest: {error}"), "another program"))?;
        let writer = match value["version"].as_str() {
            Some(version) => writer(version),
            None => "a version of zerobubble before 0.3.0".into(),
        };
        match &value["format"] {
            Value::Number(format) if format.as_u64() == Some(FORMAT.into()) => {}
            other => {
                let problem = match other {
                    Value::Null => "a checkpoint of no form".into(),
                    form => format!("form {form} of checkpoints"),
                };
                let problem = format!("{problem}, and zerobubble {VERSION} reads form {FORMAT}");
                return Err(foreign(problem, &writer));
            }
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| {
            foreign(format!("not a manifest of zerobubble {VERSION}: {error}"), &writer)
        })?;
        if manifest.updates > manifest.step {
            let (updates, step) = (manifest.updates, manifest.step);
            return Err(foreign(format!("{updates} updates in {step} steps"), &writer));
        }
        if manifest.step > MOST_STEPS {
            let problem = format!("{} steps, and at most {MOST_STEPS} are read", manifest.step);
            return Err(foreign(problem, &writer));
        }
        Ok(manifest)
    }

    /// Which version wrote it.
    pub(super) fn writer(&self) -> String {
        writer(&self.version)
    }
}

/// A version's name, of which only what a version has is shown.
fn writer(version: &str) -> String {
    let shown = version.chars().filter(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c));
    format!("zerobubble {}", shown.take(40).collect::<String>())
}

impl Settings {
    /// Whether a trainer with its own settings may continue from these, of a checkpoint. Gives a
    /// line for every difference with which it may.
    ///
    /// # Errors
    ///
    /// The first difference with which it may not.
    pub(super) fn check(&self, trainer: &Self) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for ((otherwise, saved), (_, given)) in self.rows().into_iter().zip(trainer.rows()) {
            match otherwise {
                _ if saved == given => {}
                Otherwise::Refused => {
                    return Err(Error::data(format!("saved with {saved}, not {given}"))
                        .hint(format!("{saved}, or another folder")));
                }
                Otherwise::Told => told.push(format!("saved with {saved}, continues with {given}")),
            }
        }
        told.extend(self.other_rate(trainer));
        Ok(told)
    }

    /// Each setting as an error names it, what the builder sets as it sets it, and what becomes of
    /// a run that has another one. Where and when work is done changes no bit, and is not here, but
    /// for the order in which gradients are added.
    fn rows(&self) -> [(Otherwise, String); 8] {
        let clip_norm = if self.clip_norm == NO_NORM { "None" } else { &self.clip_norm };
        [
            (Otherwise::Refused, format!("`seed({})`", self.seed)),
            (Otherwise::Refused, format!("`microbatches({})`", self.microbatches)),
            (Otherwise::Refused, format!("microbatches of shape {:?}", self.microbatch)),
            (Otherwise::Refused, format!("optimizer {}", self.optimizer)),
            (Otherwise::Refused, format!("`clip_norm({clip_norm})`")),
            (Otherwise::Told, format!("`activations({})`", self.activations)),
            (Otherwise::Told, format!("`on_nan({})`", self.on_nan)),
            (Otherwise::Told, format!("microbatches in the order {}", self.order)),
        ]
    }

    /// The first step that has another learning rate, which is [`Otherwise::Told`].
    fn other_rate(&self, trainer: &Self) -> Option<String> {
        // A rate may lose its last digit on its way through the text.
        let differs = |a: f64, b: f64| (a - b).abs() > 1e-12 * a.abs().max(b.abs());
        let mut pairs = self.learning_rates.iter().zip(&trainer.learning_rates);
        let (&(step, saved), &(_, given)) = pairs.find(|(a, b)| differs(a.1, b.1))?;
        Some(format!(
            "saved with a learning rate of {saved} in step {}, continues with {given}",
            step.saturating_add(1)
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Change<T> = fn(&mut T);

    fn settings() -> Settings {
        Settings {
            seed: 3,
            microbatches: 2,
            microbatch: vec![vec![1, 4]],
            optimizer: "Sgd".into(),
            clip_norm: "1".into(),
            activations: "f32".into(),
            on_nan: "stop".into(),
            order: standard_order(),
            learning_rates: vec![(4, 1e-3), (5, 5e-4)],
        }
    }

    proptest! {
        #[test]
        fn text_parses_back(
            step: u32, part in 0f64..1.0, seed: u64, microbatches: u32,
            microbatch: Vec<Vec<usize>>, optimizer: String, clip_norm: String,
            words: Vec<String>, number: u64,
        ) {
            let step = u64::from(step);
            let updates = (step as f64 * part * 0.99) as u64;
            let settings =
                Settings { seed, microbatches, microbatch, optimizer, clip_norm, ..settings() };
            let note = serde_json::json!({ "words": words, "number": number, "none": null });
            let manifest = Manifest::new(step, updates, settings, note);
            prop_assert_eq!(Manifest::parse(manifest.text().as_bytes()).unwrap(), manifest);
        }
    }

    #[test]
    fn what_is_of_another_version_names_it() {
        let whole = Manifest::new(4, 4, settings(), Value::Null);
        let changed = |change: Change<Value>| {
            let mut value = serde_json::to_value(&whole).unwrap();
            change(&mut value);
            Manifest::parse(value.to_string().as_bytes())
        };
        let own = format!("; zerobubble {VERSION} wrote it");
        let rows: [(Change<Value>, &str, &str); 9] = [
            (|of| of["format"] = 2.into(), "form 2 of checkpoints, and zerobubble", &own),
            (|of| of["format"] = 0.into(), "form 0 of checkpoints", &own),
            (|of| of["format"] = Value::Null, "a checkpoint of no form", &own),
            (|of| of["step"] = (-1).into(), "not a manifest of zerobubble", &own),
            (|of| of["updates"] = 5.into(), "5 updates in 4 steps", &own),
            (|of| of["step"] = u64::MAX.into(), "18446744073709551615 steps, and at most", &own),
            (
                |of| drop(of["settings"].as_object_mut().unwrap().remove("clip_norm")),
                "not a manifest of zerobubble",
                "missing field `clip_norm`",
            ),
            (
                |of| drop(of.as_object_mut().unwrap().remove("version")),
                "not a manifest of zerobubble",
                "a version of zerobubble before 0.3.0 wrote it",
            ),
            (
                |of| (of["version"], of["format"]) = ("9.9\u{1b}[2J".into(), 2.into()),
                "form 2 of checkpoints",
                "zerobubble 9.92J wrote it",
            ),
        ];
        for (change, start, part) in rows {
            let error = changed(change).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotUnderstood);
            assert!(error.problem.starts_with(start) && error.problem.contains(part), "{error}");
        }
        assert_eq!(changed(|of| of["later"] = 1.into()).unwrap(), whole);
        let before_orders: Change<Value> =
            |of| drop(of["settings"].as_object_mut().unwrap().remove("order"));
        assert_eq!(changed(before_orders).unwrap(), whole);
    }

    #[test]
    fn every_difference_is_refused_or_told() {
        let saved = settings();
        assert_eq!(saved.check(&saved).unwrap(), [""; 0]);
        let refused: [Change<Settings>; 5] = [
            |of| of.seed = 4,
            |of| of.microbatches = 4,
            |of| of.microbatch = vec![vec![2, 4]],
            |of| of.optimizer = "AdamW".into(),
            |of| of.clip_norm = NO_NORM.into(),
        ];
        for change in refused {
            let mut given = settings();
            change(&mut given);
            assert!(saved.check(&given).unwrap_err().problem.starts_with("saved with "));
        }
        let told: [(Change<Settings>, &str); 4] = [
            (
                |of| of.activations = "f16".into(),
                "saved with `activations(f32)`, continues with `activations(f16)`",
            ),
            (
                |of| of.on_nan = "skip".into(),
                "saved with `on_nan(stop)`, continues with `on_nan(skip)`",
            ),
            (
                |of| of.order = "W 1 0".into(),
                "saved with microbatches in the order standard, \
                 continues with microbatches in the order W 1 0",
            ),
            (
                |of| of.learning_rates[1].1 = 1e-3,
                "saved with a learning rate of 0.0005 in step 6, continues with 0.001",
            ),
        ];
        for (change, expected) in told {
            let mut given = settings();
            change(&mut given);
            assert_eq!(saved.check(&given).unwrap(), [expected]);
        }
    }
}
