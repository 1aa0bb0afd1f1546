//! What a device does next: what its base plan says, or else B before F before W.

use std::collections::VecDeque;

use super::started::Started;
use super::stash_limits::StashLimits;
use crate::action::{Action, DeviceId, StageId};
use crate::check::CheckedPlan;
use crate::order::standard;
use crate::placement::{Link, Placement};
use crate::simulate::Costs;
use crate::work::Work;

/// A device waits for what is due within this part of the time of what it would do instead: what
/// fills a shorter gap only makes late what others wait for.
const WAIT_FRACTION: f64 = 0.5;

/// What is late by more than this part of that time is no longer waited for.
const GRACE_FRACTION: f64 = 0.1;

/// What a device does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// This action, whose parcel has arrived.
    Run(Action),
    /// Nothing before this time, unless something happens before: a parcel is about to arrive.
    Wait(f64),
    /// Nothing before something happens.
    Idle,
}

/// One step, as far as it has come, and the rule by which every device chooses its next action.
///
/// A device does what its base plan says if that is ready. What is late does not stall it: then it
/// takes B, else F where the limits allow it, else W, of several stages the highest; what was
/// passed over comes first again as soon as it is ready. It only waits if what the plan says is on
/// its way and due within half of the time that the other action takes.
///
/// Within a stage microbatches ascend, also where they do not in the base plan: of that the kinds
/// of work are taken. So weights get the same bits as under any plan of the standard order.
///
/// The step always ends. Let k be the lowest microbatch that is not through, let every device have
/// run what it could and every parcel have arrived. All before k are closed everywhere, since their
/// W was at hand. If k is next in B, nothing else is needed. If it is next in F on stage s, nothing
/// is open on s, and nothing on its segment if s is the lowest there. So the segment can open k;
/// and so can the device, because every other stage left a place for s. And no wait is longer than
/// its time.
#[derive(Debug, Clone)]
pub struct Policy {
    placement: Placement,
    limits: StashLimits,
    /// Every device's stages, highest first.
    stages: Vec<Vec<StageId>>,
    /// What every device has not started, in the base plan's order of work.
    planned: Vec<VecDeque<Action>>,
    started: Started,
    /// How many parcels every stage has got so far, from below and from above.
    arrived: Vec<ParcelCounts>,
    /// When the parcels on their way are due, by the link's index.
    due: Vec<VecDeque<f64>>,
    /// What every device has started and not ended.
    under_way: Vec<VecDeque<Action>>,
    /// When every device is expected to have ended all that.
    free: Vec<f64>,
    costs: Costs,
}

#[derive(Debug, Clone, Copy, Default)]
struct ParcelCounts {
    activations: u32,
    gradients: u32,
}

impl Policy {
    /// A step of `base` in which nothing has been started. What `costs` say is expected of every
    /// action until one like it has ended; a time of 0 is one that is not known.
    pub fn new(base: &CheckedPlan, costs: &Costs) -> Self {
        let plan = base.plan();
        let placement = &plan.placement;
        let (stages, devices) = (placement.stage_count(), plan.lanes.len());
        let mut arrived = vec![ParcelCounts::default(); stages];
        arrived[0].activations = plan.microbatches;
        let descending = |device| {
            let mut stages: Vec<StageId> = placement.stages_of(DeviceId(device)).collect();
            stages.reverse();
            stages
        };
        Self {
            placement: placement.clone(),
            limits: StashLimits::of(base),
            stages: (0..devices as u32).map(descending).collect(),
            planned: plan.lanes.iter().map(|lane| standard(lane, stages).collect()).collect(),
            started: Started::new(placement),
            arrived,
            due: vec![VecDeque::new(); 2 * stages],
            under_way: vec![VecDeque::new(); devices],
            free: vec![0.0; devices],
            costs: costs.clone(),
        }
    }

    /// What `device` does next, or after what it has under way: then only what the plan says, as
    /// nothing is late yet.
    pub fn next(&self, device: DeviceId, now: f64) -> Choice {
        let planned = self.planned[device.index()].front().copied();
        if let Some(action) = planned.filter(|action| self.is_ready(*action)) {
            return Choice::Run(action);
        }
        if !self.under_way[device.index()].is_empty() {
            return Choice::Idle;
        }
        let first = |work: Work| {
            let next = |stage: &StageId| self.started.next(*stage, work);
            self.stages[device.index()].iter().map(next).find(|action| self.is_ready(*action))
        };
        let Some(other) = first(Work::B).or_else(|| first(Work::F)).or_else(|| first(Work::W))
        else {
            return Choice::Idle;
        };
        let time = self.costs.time(other);
        let due = planned.and_then(|action| self.due(action));
        match due
            .filter(|due| *due <= now + WAIT_FRACTION * time)
            .map(|due| due + GRACE_FRACTION * time)
        {
            Some(until) if now < until => Choice::Wait(until),
            _ => Choice::Run(other),
        }
    }

    /// Counts `action` as started; what it hands to a stage of the same device is there for that.
    pub fn start(&mut self, action: Action, now: f64) {
        let device = self.placement.device(action.stage).index();
        self.started.count(action);
        let planned = &mut self.planned[device];
        let position = planned.iter().position(|other| *other == action);
        planned.remove(position.expect("an action of the plan, once"));
        self.under_way[device].push_back(action);
        self.free[device] = now.max(self.free[device]) + self.costs.time(action);
        match self.placement.outbound(action) {
            Some(link) if self.placement.crosses(link) => {
                let due = self.free[device] + self.costs.transfer(&self.placement, link);
                self.due[link.index()].push_back(due);
            }
            Some(link) => self.count(link),
            None => {}
        }
    }

    /// Counts the oldest action that `device` has under way as ended, after so much time of work.
    pub fn end(&mut self, device: DeviceId, time: f64, now: f64) {
        let under_way = &mut self.under_way[device.index()];
        let action = under_way.pop_front().expect("an action ends that was started");
        self.costs.stages[action.stage.index()].time[action.work] = time;
        let left = under_way.iter().map(|action| self.costs.time(*action)).sum::<f64>();
        self.free[device.index()] = now + left;
    }

    /// Counts the oldest parcel on its way over `link` as arrived.
    pub fn arrive(&mut self, link: Link) {
        self.due[link.index()].pop_front().expect("a parcel arrives that was sent");
        self.count(link);
    }

    /// What actions are expected to take: what the last of each kind took.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    fn count(&mut self, link: Link) {
        let arrived = &mut self.arrived[link.to.index()];
        if link.is_forward() { arrived.activations += 1 } else { arrived.gradients += 1 }
    }

    /// When the parcel of `action` is due, if it is on its way and all that is missing.
    fn due(&self, action: Action) -> Option<f64> {
        if action.work == Work::F && !self.can_open(action.stage) {
            return None;
        }
        self.due[self.placement.inbound(action)?.index()].front().copied()
    }

    fn is_ready(&self, action: Action) -> bool {
        let k = action.microbatch.0;
        let arrived = self.arrived[action.stage.index()];
        let started = self.started.of(action.stage);
        let is_top = action.stage.index() + 1 == self.placement.stage_count();
        match action.work {
            Work::F => k < arrived.activations && self.can_open(action.stage),
            Work::B if is_top => k < started[Work::F],
            Work::B => k < arrived.gradients,
            Work::W => k < started[Work::B],
        }
    }

    /// Whether one more microbatch may be open on `stage`.
    fn can_open(&self, stage: StageId) -> bool {
        let opens_segment = self.started.segment(stage).start == stage.index();
        if opens_segment
            && self.started.open_on_segment(stage) >= self.limits.segments[stage.index()]
        {
            return false;
        }
        // A stage that holds nothing has a place kept for it, which no other takes.
        let open = |stage: StageId| self.started.open_on_stage(stage);
        let device = self.placement.device(stage).index();
        let taken: u32 = self.stages[device].iter().map(|stage| open(*stage).max(1)).sum();
        open(stage) == 0 || taken < self.limits.devices[device]
    }
}
