//! A portable pipeline-parallel trainer for Burn models.
pub mod batch;
pub mod capture;
pub mod compile;
pub mod differentiate;
pub mod engine;
pub mod error;
pub mod gpt;
pub mod graph;
pub mod nn;
pub mod plan;
pub mod random;
pub mod runtime;
pub mod split;
pub mod trace;
pub mod train;

pub use error::{Error, Result};
pub use train::{AdamW, Balance, Momentum, Optimizer, Sgd, StepReport, Trainer, gradients};
