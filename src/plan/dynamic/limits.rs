//! CheckedPlan -> Limits: how much stash a plan holds at its peaks.

use super::started::Started;
use crate::plan::action::{DeviceId, StageId};
use crate::plan::bounds::Channel;
use crate::plan::check::CheckedPlan;
use crate::plan::placement::{Link, Placement};

/// The most stash that may be held while the order is decided at run time.
///
/// Adjacent stages of one device form a run. A microbatch is open on a run from the first F there
/// to the last W, and on a stage from F to W.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most microbatches open on a run at once; the index is the [`StageId`] of any stage of it.
    pub runs: Vec<u32>,
    /// Most microbatches between the first B and the last W of a run at once; the same index. A
    /// base plan says it, but nothing keeps to it where the order is decided at run time.
    pub late: Vec<u32>,
    /// Most microbatches open on the stages of a device at once, counted once for each of them;
    /// the index is the device.
    pub devices: Vec<u32>,
}

impl Limits {
    /// What `base` holds at its peaks.
    ///
    /// No run's limit is below 1, and no device's below its number of stages: each of them must be
    /// able to hold the microbatch that all others wait for.
    pub fn of(base: &CheckedPlan) -> Self {
        let plan = base.plan();
        let mut started = Started::new(&plan.placement);
        let mut runs = vec![1; plan.placement.stage_count()];
        let mut late = runs.clone();
        let mut devices = Vec::with_capacity(plan.lanes.len());
        for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
            let stages: Vec<StageId> = plan.placement.stages_of(device).collect();
            let mut most = stages.len() as u32;
            for action in lane {
                started.count(*action);
                let open = started.open_on_run(action.stage);
                let open_late = started.late_on_run(action.stage);
                for stage in started.run(action.stage) {
                    runs[stage] = open.max(runs[stage]);
                    late[stage] = open_late.max(late[stage]);
                }
                most = most.max(stages.iter().map(|stage| started.open_on_stage(*stage)).sum());
            }
            devices.push(most);
        }
        Self { runs, late, devices }
    }

    /// A capacity for every link between devices with which no send blocks, whatever the order
    /// within these limits and whatever the timing.
    ///
    /// A parcel on its way between stages s and s + 1, up or down, is of a microbatch that is open
    /// on s: F has sent it up, and B has not taken its gradient. The worker of s does what it is
    /// told in the order in which it is told, and no beginning of that order opens more than the
    /// limit of the run of s.
    pub fn channels(&self, placement: &Placement) -> Vec<Channel> {
        let channel = |link: Link| Channel { link, capacity: self.runs[link.boundary()] };
        placement.links().map(channel).collect()
    }
}
