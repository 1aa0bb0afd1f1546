//! The named families, which a search starts from.

use crate::plan::Plan;
use crate::plan::schedule::{Schedule, generate};

/// The plan of every family that there is for so many devices.
pub(super) fn plans(devices: u32, microbatches: u32) -> Vec<Plan> {
    Schedule::ALL.iter().filter_map(|s| generate(*s, devices, microbatches).ok()).collect()
}
