//! Schedules to try all of.

use zerobubble::plan::{FAMILIES, FORWARD_ONLY, Family};

/// Every family that trains.
pub fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().copied().filter(|family| **family != FORWARD_ONLY)
}
