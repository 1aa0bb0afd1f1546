//! Training: the [`Trainer`], optimizers, checkpoints.

mod arrange;
mod build_phase;
mod builder;
mod checkpoint;
mod compare;
mod evaluate;
mod gradients;
mod inputs;
mod learning_rate;
mod links;
mod prepared;
mod profile;
mod recompute;
mod required;
mod run_settings;
mod stages;
mod step_report;
mod trainer;
mod variant;
mod verified_model;

pub use crate::engine::{AdamW, Decayed, Momentum, Optimizer, Precision, Sgd};
pub use crate::runtime::OnNan;
pub use arrange::Searched;
pub use build_phase::BuildPhase;
pub use builder::TrainerBuilder;
pub use checkpoint::{Checkpoint, Checkpoints, Newest};
pub use compare::{Comparison, Contender, Measured, Turn};
pub use gradients::gradients;
pub use links::MeasuredLink;
pub use profile::Balance;
pub use recompute::Recompute;
pub use stages::Stages;
pub use step_report::StepReport;
pub use trainer::Trainer;
pub use variant::Variant;
