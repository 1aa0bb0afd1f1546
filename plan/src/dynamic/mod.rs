//! Dynamic: each device follows a base plan, and runs what is ready where that is late.
//!
//! ```text
//! StashLimits::of   CheckedPlan             -> StashLimits  the stash that a base plan holds
//! dynamic_base      chunks                  -> Family       whose plan is the base plan
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

use crate::error::{Error, Result};
use crate::schedule::{Family, ZB_H1, ZB_V};

/// The family whose plan devices follow under `dynamic`, with so many chunks each, or 1.
///
/// # Errors
///
/// When there is none for so many chunks.
pub fn dynamic_base(chunks: Option<u32>) -> Result<&'static Family> {
    match chunks {
        None | Some(1) => Ok(&ZB_H1),
        Some(2) => Ok(&ZB_V),
        Some(chunks) => {
            let problem = format!("dynamic with {chunks} chunks per device: it takes 1 or 2");
            Err(Error::config(problem).hint("1, to follow zb-h1, or 2, to follow zb-v"))
        }
    }
}
