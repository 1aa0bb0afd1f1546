//! CheckedPlan -> Limits: how much stash a plan holds at its peaks.

use super::started::Started;
use crate::plan::action::{DeviceId, StageId};
use crate::plan::bounds::Channel;
use crate::plan::check::CheckedPlan;
use crate::plan::placement::Placement;

/// The most stash that may be held while the order is decided at run time.
///
/// Adjacent stages of one device form a run. A microbatch is open on a run from the first F there
/// to the last W, and on a stage from F to W. What an engine sizes by the lane of the plan that
/// the limits are taken from, in either way of counting, is enough for every order within them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most microbatches open on a run at once; the index is the [`StageId`] of any stage of it.
    pub runs: Vec<u32>,
    /// Most microbatches open on the stages of a device at once, counted once for each of them;
    /// the index is the device.
    pub devices: Vec<u32>,
}

impl Limits {
    /// What `base` holds at its peaks.
    ///
    /// No run's limit is below 1, and no device's below its number of stages: microbatch 0 is open
    /// on all of them when it is on the highest.
    pub fn of(base: &CheckedPlan) -> Self {
        let plan = base.plan();
        let mut started = Started::new(&plan.placement);
        let mut runs = vec![0; plan.placement.stage_count()];
        let mut devices = vec![0; plan.lanes.len()];
        for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
            for action in lane {
                started.count(*action);
                for stage in started.run(action.stage) {
                    runs[stage] = started.open_on_run(action.stage).max(runs[stage]);
                }
                let stages = plan.placement.stages_of(device);
                let open: u32 = stages.map(|stage| started.open_on_stage(stage)).sum();
                devices[device.index()] = open.max(devices[device.index()]);
            }
        }
        Self { runs, devices }
    }

    /// A capacity for every link between devices with which no send blocks, whatever the order
    /// within these limits and whatever the timing.
    ///
    /// A parcel on its way between stages s and s + 1, up or down, is of a microbatch that is open
    /// on s: F has sent it up, and B has not taken its gradient. A worker keeps the order in which
    /// it is told, so that at any moment no more are open there than the limit of the run of s.
    pub fn channels(&self, placement: &Placement) -> Vec<Channel> {
        let channel = |link: crate::plan::Link| Channel { link, capacity: self.runs[link.boundary()] };
        placement.links().map(channel).collect()
    }

    /// The limit of the run of `stage`.
    pub(super) fn run(&self, stage: StageId) -> u32 {
        self.runs[stage.index()]
    }
}
