//! Training: the [`Trainer`], optimizers, checkpoints, text, progress.

mod arrange;
mod checkpoint;
mod engines;
mod gradients;
mod inputs;
mod measure;
mod prepare;
pub mod progress;
mod stages;
pub mod text;
mod trainer;

pub use crate::engine::{AdamW, Momentum, Optimizer, Precision, Sgd};
pub use arrange::Searched;
pub use checkpoint::{Checkpoint, Checkpoints, Newest};
pub use gradients::gradients;
pub use measure::Balance;
pub use stages::Stages;
pub use trainer::{StepReport, Trainer, TrainerBuilder};
