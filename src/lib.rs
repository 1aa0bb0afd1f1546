//! A portable pipeline-parallel trainer for Burn models.
//!
//! A Burn module goes in unchanged. Its forward pass and loss are captured as an operation graph,
//! differentiated, cut into stages, and every stage into three kinds of work: F (forward), B
//! (gradient of the stage's input) and W (gradient of its weights). A schedule puts the work of all
//! devices in order, a simulation proves it, and worker threads run it under a scheduler thread.
//!
//! [`Trainer`] does all of that. The modules below are the steps in between, in the order in which
//! data flows; each can be used by itself:
//!
//! ```text
//! capture -> graph -> differentiate -> split -> compile -> plan -> engine, runtime -> train
//! ```
//!
//! A plan without a model:
//!
//! ```
//! use zerobubble::plan::{Costs, ZB_H1, check, generate, simulate};
//!
//! let plan = check(generate(&ZB_H1, 4, None, 12)?)?;
//! let simulation = simulate(&plan, &Costs::unit(4))?;
//! assert_eq!(simulation.bubble.makespan, 39.0);
//! # Ok::<(), zerobubble::plan::Error>(())
//! ```

pub mod batch;
pub mod capture;
pub mod compile;
pub mod differentiate;
pub mod engine;
pub mod error;
pub mod gpt;
pub mod graph;
#[cfg(test)]
#[path = "../fuzz/harness.rs"]
mod harness;
mod loss;
pub mod nn;
mod out_of_memory;
pub mod random;
pub mod runtime;
pub mod split;
mod threads;
pub mod train;

pub use error::{Error, Result};
pub use loss::{IntoLoss, Loss};
pub use train::{
    AdamW, Balance, Checkpoint, Checkpoints, Decayed, Momentum, OnNan, Optimizer, Precision,
    Recompute, Sgd, StepReport, Trainer, gradients,
};
pub use zerobubble_plan as plan;
pub use zerobubble_plan::trace;
