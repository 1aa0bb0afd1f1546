//! What is known of a family's plan before it is made: its placement, and what it cannot beat.

use super::effort::affordable_chunks;
use crate::Plan;
use crate::action::Action;
use crate::error::Result;
use crate::placement::Placement;
use crate::schedule::{FAMILIES, FORWARD_ONLY, Family, generate};
use crate::simulate::{Costs, lower_bound};
use crate::work::{PerWork, Work};

/// A family with a number of chunks per device.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The family.
    pub family: &'static Family,
    /// The placement of its plan.
    pub placement: Placement,
    chunks: u32,
    microbatches: u32,
    /// A plan of the same family for one microbatch.
    smallest: Plan,
}

/// All families that train, with every number of chunks that they can have, up to `most` and to
/// what is affordable; and whether some were left out because they are not.
///
/// Fewer chunks come first, as they need fewer transfers.
pub fn outlines(devices: u32, microbatches: u32, most: u32) -> (Vec<Outline>, bool) {
    let affordable = affordable_chunks(devices, microbatches, most);
    let outline = |family: &'static Family, chunks| {
        let smallest = generate(family, devices, Some(chunks), 1).ok()?;
        let placement = smallest.placement.clone();
        Some(Outline { family, placement, chunks, microbatches, smallest })
    };
    let trains = || FAMILIES.iter().copied().filter(|family| **family != FORWARD_ONLY);
    let chunks = 1..=affordable;
    let outlines = chunks.flat_map(|chunks| trains().filter_map(move |f| outline(f, chunks)));
    (outlines.collect(), affordable < most)
}

impl Outline {
    /// The plan.
    ///
    /// # Errors
    ///
    /// When it would have too many actions.
    pub fn plan(&self) -> Result<Plan> {
        let devices = self.placement.device_count() as u32;
        generate(self.family, devices, Some(self.chunks), self.microbatches)
    }

    /// No order of the plan's actions has a smaller makespan. Where all backwards are fused, W is a
    /// part of B.
    pub fn lower_bound(&self, costs: &Costs) -> f64 {
        let plan = Plan { microbatches: self.microbatches, ..self.smallest.clone() };
        let splits = |action: &Action| action.work != Work::F && !action.is_fused();
        if plan.lanes.iter().flatten().any(splits) {
            return lower_bound(&plan, costs);
        }
        let mut costs = costs.clone();
        for stage in &mut costs.stages {
            let PerWork([f, b, w]) = stage.time;
            stage.time = PerWork([f, b + w, 0.0]);
        }
        lower_bound(&plan, &costs)
    }
}
