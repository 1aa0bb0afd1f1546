//! Training: the [`Trainer`], optimizers, checkpoints, text, progress.

mod arrange;
mod checkpoint;
mod engines;
mod gradients;
mod inputs;
mod measure;
mod prepare;
pub mod progress;
mod recompute;
mod stages;
mod step_report;
pub mod text;
mod trainer;

pub use crate::engine::{AdamW, Momentum, Optimizer, Precision, Sgd};
pub use arrange::Searched;
pub use checkpoint::{Checkpoint, Checkpoints, Newest};
pub use gradients::gradients;
pub use measure::Balance;
pub use recompute::Recompute;
pub use stages::Stages;
pub use step_report::StepReport;
pub use trainer::{Trainer, TrainerBuilder};
