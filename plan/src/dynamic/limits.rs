//! CheckedPlan -> Limits: how much stash a plan holds at its peaks.

use super::started::Started;
use crate::action::{DeviceId, StageId};
use crate::bounds::Channel;
use crate::check::CheckedPlan;
use crate::placement::{Link, Placement};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DUALPIPE_V, FORWARD_ONLY, Family, GPIPE, ONE_F_ONE_B, Work, ZB_H1, ZB_V, check, generate,
    };

    fn of(family: &Family, microbatches: u32) -> (CheckedPlan, Limits) {
        let base = check(generate(family, 3, None, microbatches).unwrap()).unwrap();
        let limits = Limits::of(&base);
        (base, limits)
    }

    #[test]
    fn a_fused_backward_leaves_nothing_for_a_later_w() {
        for family in [&GPIPE, &ONE_F_ONE_B] {
            assert_eq!(of(family, 8).1.late, [1; 3], "{family}");
        }
    }

    #[test]
    fn no_more_microbatches_are_late_than_the_limits_say() {
        for family in [&ONE_F_ONE_B, &ZB_H1, &ZB_V, &DUALPIPE_V] {
            let (base, limits) = of(family, 7);
            let placement = &base.plan().placement;
            let mut started = Started::new(placement);
            for action in base.plan().lanes.iter().flatten() {
                let run = started.run(action.stage);
                // Before the action has ended: W keeps what it reads until then.
                let late = |started: &Started| {
                    let top = started.of(StageId(run.end as u32 - 1))[Work::B];
                    let ended = run.clone().map(|stage| started.of(StageId(stage as u32)));
                    top - ended.map(|counts| counts[Work::W]).min().expect("a run has a stage")
                };
                let before = late(&started);
                started.count(*action);
                let during = if action.work == Work::W { before } else { late(&started) };
                assert!(during <= limits.late[action.stage.index()], "{family}: {action}");
                assert!(limits.late[action.stage.index()] <= limits.runs[action.stage.index()]);
            }
        }
    }

    #[test]
    fn an_evaluation_has_no_backward_work_that_could_be_late() {
        assert_eq!(of(&FORWARD_ONLY, 4).1.late, [1; 3]);
    }
}
