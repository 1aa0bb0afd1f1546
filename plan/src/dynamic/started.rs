//! How much of every stage's work has been started, and how many microbatches are open by that.

use std::ops::Range;

use crate::action::{Action, MicrobatchId, StageId, Work};
use crate::placement::Placement;

/// Since microbatches ascend, three counters per stage say it all.
#[derive(Debug, Clone)]
pub(super) struct Started {
    stages: Vec<Counts>,
    /// The run of every stage: the adjacent stages on its device.
    runs: Vec<Range<usize>>,
}

/// How many F, B and W of a stage have been started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub forward: u32,
    pub backward: u32,
    pub weight: u32,
}

impl Started {
    pub(super) fn new(placement: &Placement) -> Self {
        let mut runs = Vec::with_capacity(placement.stage_count());
        for run in placement.stages.chunk_by(|a, b| a == b) {
            let range = runs.len()..runs.len() + run.len();
            runs.extend(run.iter().map(|_| range.clone()));
        }
        Self { stages: vec![Counts::default(); placement.stage_count()], runs }
    }

    /// Counts one more action.
    pub(super) fn count(&mut self, action: Action) {
        let counts = &mut self.stages[action.stage.index()];
        match action.work {
            Work::F => counts.forward += 1,
            Work::B => counts.backward += 1,
            Work::W => counts.weight += 1,
            Work::BW => (counts.backward, counts.weight) = (counts.backward + 1, counts.weight + 1),
        }
    }

    /// The first action of this kind that a stage has not started. All may have been.
    pub(super) fn next(&self, stage: StageId, work: Work) -> Action {
        let counts = self.of(stage);
        let microbatch = match work {
            Work::F => counts.forward,
            Work::B => counts.backward,
            Work::W | Work::BW => counts.weight,
        };
        Action::new(stage, work, MicrobatchId(microbatch))
    }

    /// The counters of a stage.
    pub(super) fn of(&self, stage: StageId) -> Counts {
        self.stages[stage.index()]
    }

    /// The stages of the run that `stage` belongs to, as positions.
    pub(super) fn run(&self, stage: StageId) -> Range<usize> {
        self.runs[stage.index()].clone()
    }

    /// Microbatches between F and W of a stage.
    pub(super) fn open_on_stage(&self, stage: StageId) -> u32 {
        let counts = self.of(stage);
        counts.forward - counts.weight
    }

    /// Microbatches between the first F and the last W of the run of `stage`.
    pub(super) fn open_on_run(&self, stage: StageId) -> u32 {
        let run = &self.stages[self.run(stage)];
        run[0].forward - closed(run)
    }

    /// Microbatches between the first B and the last W of the run of `stage`.
    pub(super) fn late_on_run(&self, stage: StageId) -> u32 {
        let run = &self.stages[self.run(stage)];
        run[run.len() - 1].backward - closed(run)
    }
}

/// Microbatches that have left the run.
fn closed(run: &[Counts]) -> u32 {
    run.iter().map(|counts| counts.weight).min().expect("a run has a stage")
}
