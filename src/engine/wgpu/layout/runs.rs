//! Which stages are adjacent, and how many microbatches are on their way through them at once.

use std::collections::HashMap;

use crate::engine::StageSetup;
use crate::plan::{Action, Work};

/// The stages in runs of adjacent ones.
pub(super) fn runs(stages: &[StageSetup]) -> impl Iterator<Item = &[StageSetup]> {
    stages.chunk_by(|a, b| a.stage.0 + 1 == b.stage.0)
}

/// Most microbatches between the first F and the last W of a run, in the order of `lane`.
pub(super) fn slots(run: &[StageSetup], lane: &[Action]) -> usize {
    let mut open = HashMap::new();
    let mut most = 0;
    for action in lane.iter().filter(|action| run.iter().any(|of| of.stage == action.stage)) {
        let left = open.entry(action.microbatch).or_insert(run.len());
        if matches!(action.work, Work::W | Work::BW) {
            *left -= 1;
            if *left == 0 {
                open.remove(&action.microbatch);
            }
        }
        most = most.max(open.len());
    }
    most
}
