//! Training: the [`Trainer`], optimizers, text, progress.

mod gradients;
mod inputs;
mod optimizer;
mod prepare;
pub mod progress;
mod stages;
pub mod text;
mod trainer;

pub use gradients::gradients;
pub use optimizer::{AdamW, Momentum, Optimizer, Sgd};
pub use prepare::Balance;
pub use stages::Stages;
pub use trainer::{StepReport, Trainer, TrainerBuilder};
