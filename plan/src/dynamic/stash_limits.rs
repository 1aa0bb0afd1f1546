//! CheckedPlan -> StashLimits: how much stash a plan holds at its peaks.

use std::collections::HashMap;
use std::ops::Range;

use super::started::Started;
use crate::action::{Action, DeviceId, MicrobatchId, StageId};
use crate::channels::Channel;
use crate::check::CheckedPlan;
use crate::placement::{Link, Placement};
use crate::work::Work;

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
    /// Whether microbatches of a segment end their last W in the order in which they begin their
    /// first F, and their first B as well; the same index. So it is wherever microbatches ascend.
    pub in_turn: Vec<bool>,
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
        let stages = plan.placement.stage_count();
        let started = Started::new(&plan.placement);
        let mut limits = Self {
            segments: vec![1; stages],
            backward: vec![1; stages],
            in_turn: vec![true; stages],
            devices: Vec::with_capacity(plan.lanes.len()),
        };
        let mut segments: HashMap<usize, OpenMicrobatches> = HashMap::new();
        for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
            let (mut open, mut most) = (0, plan.placement.stages_of(device).count() as u32);
            for action in lane {
                let range = started.segment(action.stage);
                let segment = segments.entry(range.start).or_default();
                let [open_here, backward] =
                    [&mut limits.segments, &mut limits.backward].map(|of| &mut of[range.start]);
                // The W of a fused backward comes after its B, while what others left is there.
                for work in action.works() {
                    segment.count(action.alone(*work), &range);
                    *open_here = segment.open().max(*open_here);
                    *backward = segment.turned().max(*backward);
                }
                open += u32::from(action.work == Work::F);
                open -= u32::from(action.computes(Work::W));
                most = most.max(open);
            }
            limits.devices.push(most);
        }
        // What was found for a segment is said of all its stages.
        for stage in 0..stages {
            let start = started.segment(StageId(stage as u32)).start;
            limits.segments[stage] = limits.segments[start];
            limits.backward[stage] = limits.backward[start];
            limits.in_turn[stage] = segments[&start].in_turn();
        }
        limits
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

/// The microbatches on their way through a segment, in any order.
#[derive(Default)]
struct OpenMicrobatches {
    /// Those that began the first F, those that began the first B, and those that ended the last W,
    /// in order.
    first: Vec<MicrobatchId>,
    back: Vec<MicrobatchId>,
    last: Vec<MicrobatchId>,
    /// How many W of it a microbatch has ended.
    ended: HashMap<MicrobatchId, usize>,
}

impl OpenMicrobatches {
    /// Counts an action of the segment of `stages` that is not fused.
    fn count(&mut self, action: Action, stages: &Range<usize>) {
        let stage = action.stage.index();
        if action.work == Work::F && stage == stages.start {
            self.first.push(action.microbatch);
        }
        if action.work == Work::B && stage + 1 == stages.end {
            self.back.push(action.microbatch);
        }
        if action.work == Work::W {
            let ended = self.ended.entry(action.microbatch).or_default();
            *ended += 1;
            if *ended == stages.len() {
                self.last.push(action.microbatch);
            }
        }
    }

    /// Between the first F and the last W.
    fn open(&self) -> u32 {
        (self.first.len() - self.last.len()) as u32
    }

    /// Between the first B and the last W.
    fn turned(&self) -> u32 {
        (self.back.len() - self.last.len()) as u32
    }

    fn in_turn(&self) -> bool {
        let is_beginning = |order: &[MicrobatchId]| self.first.starts_with(order);
        is_beginning(&self.back) && is_beginning(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DUALPIPE_V, FORWARD_ONLY, Family, GPIPE, ONE_F_ONE_B, ZB_H1, ZB_V, check, generate,
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
    fn what_leaves_in_another_order_than_it_came_is_counted_by_microbatch() {
        let of = |lanes: [&str; 2]| {
            let [lane_0, lane_1] = lanes;
            let text = format!(
                "schedule test\nmicrobatches 3\nplacement 0 0 1\n\
                 device 0: {lane_0}\ndevice 1: {lane_1}\n"
            );
            StashLimits::of(&check(text.parse().unwrap()).unwrap())
        };
        let top = "2F0 2BW0 2F1 2BW1 2F2 2BW2";
        // On stage 0 microbatch 0 ends first, and on stage 1 microbatch 1: both stay open.
        let crossed = "0F0 1F0 0F1 1F1 1B0 0B0 1B1 0B1 0W0 1W1 0F2 1F2 1BW2 0BW2 0W1 1W0";
        let limits = of([crossed, top]);
        assert_eq!((limits.segments, limits.backward), (vec![3, 3, 1], vec![3, 3, 1]));
        assert_eq!((limits.in_turn, limits.devices), (vec![false, false, true], vec![4, 1]));
        let stacked = "0F0 1F0 0F1 1F1 1BW1 0BW1 0F2 1F2 1BW2 0BW2 1BW0 0BW0";
        let limits = of([stacked, top]);
        assert_eq!((limits.segments, limits.backward), (vec![2, 2, 1], vec![1, 1, 1]));
        assert_eq!(limits.in_turn, [false, false, true]);
        let relabelled = "0F2 1F2 1BW2 0BW2 0F0 1F0 1BW0 0BW0 0F1 1F1 1BW1 0BW1";
        let limits = of([relabelled, "2F2 2BW2 2F0 2BW0 2F1 2BW1"]);
        assert_eq!(limits.in_turn, [true; 3]);
    }

    #[test]
    fn a_fused_backward_is_counted_beside_what_others_left() {
        let text = "schedule test\nmicrobatches 2\nplacement 0\n\
            device 0: 0F0 0F1 0B1 0BW0 0W1\n";
        let limits = StashLimits::of(&check(text.parse().unwrap()).unwrap());
        assert_eq!((limits.segments, limits.backward), (vec![2], vec![2]));
    }

    #[test]
    fn an_evaluation_has_no_backward_work() {
        assert_eq!(of(&FORWARD_ONLY, 4).1.backward, [1; 3]);
    }
}
