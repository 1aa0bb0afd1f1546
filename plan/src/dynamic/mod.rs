//! Dynamic: each device follows a base plan, and runs what is ready where that is late.
//!
//! ```text
//! StashLimits::of   CheckedPlan             -> StashLimits  the stash that a base plan holds
//! dynamic           CheckedPlan, Costs      -> CheckedPlan  the order taken when nothing is late
//! simulate_dynamic  it, StashLimits, Costs  -> Simulation   memory for any order within them
//! ```
//!
//! [`Policy`] makes the decision, on paper and in the scheduler alike.

mod memory;
mod policy;
mod predict;
mod started;
mod stash_limits;

pub use policy::{Choice, Policy};
pub use predict::{dynamic, play, simulate_dynamic};
pub use stash_limits::StashLimits;
