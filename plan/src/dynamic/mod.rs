//! Dynamic: each device follows a base plan, and runs what is ready where that is late.
//!
//! ```text
//! Limits::of        CheckedPlan           -> Limits       the stash that a base plan holds
//! dynamic           CheckedPlan, Costs    -> CheckedPlan  the order taken when nothing is late
//! simulate_dynamic  it, Limits, Costs     -> Simulation   room for every order within the limits
//! ```
//!
//! [`Policy`] makes the decision, on paper and in the scheduler alike.

mod limits;
mod memory;
mod policy;
mod predict;
mod started;

pub use limits::Limits;
pub use policy::{Choice, Policy};
pub use predict::{dynamic, play, simulate_dynamic};
