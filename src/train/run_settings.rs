//! What holds of a training run whatever plan it follows.

use super::learning_rate::LearningRates;
use super::{AdamW, Optimizer};
use crate::engine::{Clipping, Precision, UpdateRule};
use crate::error::{Error, Result};
use crate::runtime::OnNan;

/// Steps in a row that may be skipped where nothing else is said.
const MAX_SKIPS: u32 = 10;

/// Settings of a run that are not of its plan.
#[derive(Debug, Clone)]
pub(super) struct RunSettings {
    pub optimizer: Optimizer,
    /// Above this, the norm of all gradients is clipped to it.
    pub clip_norm: Option<f64>,
    pub post_validation: bool,
    pub learning_rate: LearningRates,
    pub seed: u64,
    pub on_nan: OnNan,
    pub max_skips: u32,
    /// Bytes that every device may hold.
    pub memory_limit: Option<u64>,
    pub activations: Precision,
    pub shadow: bool,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            optimizer: AdamW::default().into(),
            clip_norm: None,
            post_validation: false,
            learning_rate: LearningRates::new(1e-3),
            seed: 0,
            on_nan: OnNan::Stop,
            max_skips: MAX_SKIPS,
            memory_limit: None,
            activations: Precision::F32,
            shadow: false,
        }
    }
}

impl RunSettings {
    /// How parameters are updated, where the settings go together.
    pub fn rule(&self) -> Result<UpdateRule> {
        self.optimizer.check()?;
        if self.max_skips == 0 {
            return Err(Error::config("no step may be skipped: `max_skips(0)`")
                .hint("`max_skips(1)` or more, or `on_nan(stop)`"));
        }
        let clipping = match self.clip_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                return Err(Error::config(format!("gradients clipped to a norm of {norm}"))
                    .hint("a norm above 0, such as 1"));
            }
            None if self.post_validation => {
                return Err(Error::config("post-validation without clipping: nothing to validate")
                    .hint("clip_norm, or no post-validation"));
            }
            norm => norm,
        };
        let post_validation = self.post_validation;
        let clipping = clipping.map(|max_norm| Clipping { max_norm, post_validation });
        Ok(UpdateRule { optimizer: self.optimizer, clipping })
    }
}
