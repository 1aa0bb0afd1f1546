//! How much of every stage's work has been started, and how many microbatches are open by that.

use std::ops::Range;

use crate::action::{Action, MicrobatchId, StageId};
use crate::placement::Placement;
use crate::work::{PerWork, Work};

/// Since microbatches ascend, three counters per stage say it all.
#[derive(Debug, Clone)]
pub(super) struct Started {
    /// How many F, B and W of every stage have been started.
    stages: Vec<PerWork<u32>>,
    /// The run of every stage: the adjacent stages on its device.
    runs: Vec<Range<usize>>,
}

impl Started {
    pub(super) fn new(placement: &Placement) -> Self {
        let mut runs = Vec::with_capacity(placement.stage_count());
        for run in placement.stages.chunk_by(|a, b| a == b) {
            let range = runs.len()..runs.len() + run.len();
            runs.extend(run.iter().map(|_| range.clone()));
        }
        Self { stages: vec![PerWork::default(); placement.stage_count()], runs }
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

    /// The stages of the run that `stage` belongs to, as positions.
    pub(super) fn run(&self, stage: StageId) -> Range<usize> {
        self.runs[stage.index()].clone()
    }

    /// Microbatches between F and W of a stage.
    pub(super) fn open_on_stage(&self, stage: StageId) -> u32 {
        let counts = self.of(stage);
        counts[Work::F] - counts[Work::W]
    }

    /// Microbatches between the first F and the last W of the run of `stage`.
    pub(super) fn open_on_run(&self, stage: StageId) -> u32 {
        let run = &self.stages[self.run(stage)];
        run[0][Work::F] - closed(run)
    }

    /// Microbatches between the first B and the last W of the run of `stage`.
    pub(super) fn late_on_run(&self, stage: StageId) -> u32 {
        let run = &self.stages[self.run(stage)];
        run[run.len() - 1][Work::B] - closed(run)
    }
}

/// Microbatches that have left the run.
fn closed(run: &[PerWork<u32>]) -> u32 {
    run.iter().map(|counts| counts[Work::W]).min().expect("a run has a stage")
}
