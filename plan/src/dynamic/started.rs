//! How much of every stage's work has been started, and how many microbatches are open by that.

use std::ops::Range;

use crate::action::{Action, MicrobatchId, StageId};
use crate::placement::Placement;
use crate::work::{PerWork, Work};

/// Microbatches ascend under the policy, so three counters per stage say it all.
#[derive(Debug, Clone)]
pub(super) struct Started {
    /// How many F, B and W of every stage have been started.
    stages: Vec<PerWork<u32>>,
    /// The segment of every stage: the adjacent stages on its device.
    segments: Vec<Range<usize>>,
}

impl Started {
    pub(super) fn new(placement: &Placement) -> Self {
        let mut segments = Vec::with_capacity(placement.stage_count());
        for segment in placement.stages.chunk_by(|a, b| a == b) {
            let range = segments.len()..segments.len() + segment.len();
            segments.extend(segment.iter().map(|_| range.clone()));
        }
        Self { stages: vec![PerWork::default(); placement.stage_count()], segments }
    }

    /// Counts one more action.
    pub(super) fn count(&mut self, action: Action) {
        let counts = &mut self.stages[action.stage.index()];
        action.works().iter().for_each(|work| counts[*work] += 1);
    }

    /// The first action of this kind that a stage has not started. All may have been.
    pub(super) fn next(&self, stage: StageId, work: Work) -> Action {
        Action::new(stage, work, MicrobatchId(self.of(stage)[work]))
    }

    /// The counters of a stage.
    pub(super) fn of(&self, stage: StageId) -> PerWork<u32> {
        self.stages[stage.index()]
    }

    /// The stages of the segment that `stage` belongs to, as positions.
    pub(super) fn segment(&self, stage: StageId) -> Range<usize> {
        self.segments[stage.index()].clone()
    }

    /// Microbatches between F and W of a stage.
    pub(super) fn open_on_stage(&self, stage: StageId) -> u32 {
        let counts = self.of(stage);
        counts[Work::F] - counts[Work::W]
    }

    /// Microbatches between the first F and the last W of the segment of `stage`.
    pub(super) fn open_on_segment(&self, stage: StageId) -> u32 {
        let segment = &self.stages[self.segment(stage)];
        segment[0][Work::F] - closed(segment)
    }
}

/// Microbatches that have left the segment.
fn closed(segment: &[PerWork<u32>]) -> u32 {
    segment.iter().map(|counts| counts[Work::W]).min().expect("a segment has a stage")
}
