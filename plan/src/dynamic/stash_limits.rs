//! CheckedPlan -> StashLimits: how much stash a plan holds at its peaks.

use super::started::Started;
use crate::action::{DeviceId, StageId};
use crate::channels::Channel;
use crate::check::CheckedPlan;
use crate::placement::{Link, Placement};

/// The most stash that may be held while the order is decided at run time.
///
/// Adjacent stages of one device form a segment. A microbatch is open on a segment from the first F
/// there to the last W, and on a stage from F to W.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StashLimits {
    /// Most microbatches open on a segment at once; the index is the [`StageId`] of any stage of
    /// it.
    pub segments: Vec<u32>,
    /// Most microbatches between the first B and the last W of a segment at once; the same index. A
    /// base plan says it, but nothing keeps to it where the order is decided at run time.
    pub backward: Vec<u32>,
    /// Most microbatches open on the stages of a device at once, counted once for each of them; the
    /// index is the device.
    pub devices: Vec<u32>,
}

impl StashLimits {
    /// What `base` holds at its peaks.
    ///
    /// No segment's limit is below 1, and no device's below its number of stages: each of them must
    /// be able to hold the microbatch that all others wait for.
    pub fn of(base: &CheckedPlan) -> Self {
        let plan = base.plan();
        let mut started = Started::new(&plan.placement);
        let mut segments = vec![1; plan.placement.stage_count()];
        let mut backward = segments.clone();
        let mut devices = Vec::with_capacity(plan.lanes.len());
        for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
            let stages: Vec<StageId> = plan.placement.stages_of(device).collect();
            let mut most = stages.len() as u32;
            for action in lane {
                started.count(*action);
                let open = started.open_on_segment(action.stage);
                let in_backward = started.backward_on_segment(action.stage);
                for stage in started.segment(action.stage) {
                    segments[stage] = open.max(segments[stage]);
                    backward[stage] = in_backward.max(backward[stage]);
                }
                most = most.max(stages.iter().map(|stage| started.open_on_stage(*stage)).sum());
            }
            devices.push(most);
        }
        Self { segments, backward, devices }
    }

    /// A capacity for every link between devices with which no send blocks, whatever the order
    /// within these limits and whatever the timing.
    ///
    /// A parcel on its way between stages s and s + 1, up or down, is of a microbatch that is open
    /// on s: F has sent it up, and B has not taken its gradient. The worker of s takes its actions
    /// in the order in which the scheduler sends them, and no beginning of that order opens more
    /// than the limit of the segment of s.
    pub fn channels(&self, placement: &Placement) -> Vec<Channel> {
        let channel = |link: Link| Channel { link, capacity: self.segments[link.boundary()] };
        placement.links().map(channel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DUALPIPE_V, FORWARD_ONLY, Family, GPIPE, ONE_F_ONE_B, Work, ZB_H1, ZB_V, check, generate,
    };

    fn of(family: &Family, microbatches: u32) -> (CheckedPlan, StashLimits) {
        let base = check(generate(family, 3, None, microbatches).unwrap()).unwrap();
        let limits = StashLimits::of(&base);
        (base, limits)
    }

    #[test]
    fn a_fused_backward_leaves_nothing_for_a_later_w() {
        for family in [&GPIPE, &ONE_F_ONE_B] {
            assert_eq!(of(family, 8).1.backward, [1; 3], "{family}");
        }
    }

    #[test]
    fn no_more_microbatches_are_in_backward_than_the_limits_say() {
        for family in [&ONE_F_ONE_B, &ZB_H1, &ZB_V, &DUALPIPE_V] {
            let (base, limits) = of(family, 7);
            let placement = &base.plan().placement;
            let mut started = Started::new(placement);
            for action in base.plan().lanes.iter().flatten() {
                let segment = started.segment(action.stage);
                // Before the action has ended: W keeps what it reads until then.
                let in_backward = |started: &Started| {
                    let top = started.of(StageId(segment.end as u32 - 1))[Work::B];
                    let ended = segment.clone().map(|stage| started.of(StageId(stage as u32)));
                    top - ended.map(|counts| counts[Work::W]).min().expect("a segment has a stage")
                };
                let before = in_backward(&started);
                started.count(*action);
                let during = if action.work == Work::W { before } else { in_backward(&started) };
                assert!(during <= limits.backward[action.stage.index()], "{family}: {action}");
                assert!(
                    limits.backward[action.stage.index()] <= limits.segments[action.stage.index()]
                );
            }
        }
    }

    #[test]
    fn an_evaluation_has_no_backward_work() {
        assert_eq!(of(&FORWARD_ONLY, 4).1.backward, [1; 3]);
    }
}
