//! The list scheduler: devices in the order of their times, each with its F and B in their order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::Plan;
use crate::action::{Action, DeviceId};
use crate::check::CheckedPlan;
use crate::placement::{Link, Placement};
use crate::simulate::Costs;
use crate::work::Work;

/// When W runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Only where the device would be idle, hold too much, or has nothing else left; otherwise also
    /// where the plan has it.
    pub puts_off: bool,
    /// The least idle time that it fills, as a fraction of its own.
    pub least_gap: f64,
}

/// The plan with W placed by `rule`, at these costs.
pub(super) fn run(plan: &CheckedPlan, costs: &Costs, rule: Rule) -> Plan {
    let mut filler = Filler::new(plan, costs, rule);
    while let Some(Reverse(Wake { time, device })) = filler.wakes.pop() {
        // Another wake of the device may have come before.
        if filler.devices[device].wakes == Some(time) {
            filler.decide(device, time);
        }
    }
    let lanes: Vec<Vec<Action>> = filler.devices.into_iter().map(|device| device.done).collect();
    let Plan { schedule, microbatches, placement, .. } = plan.plan();
    Plan {
        schedule: schedule.clone(),
        microbatches: *microbatches,
        placement: placement.clone(),
        lanes,
    }
}

struct Filler<'a> {
    plan: &'a CheckedPlan,
    placement: &'a Placement,
    costs: &'a Costs,
    rule: Rule,
    devices: Vec<Device<'a>>,
    /// When the parcel of microbatch k has arrived over a link, at `link * microbatches + k`.
    arrivals: Vec<f64>,
    microbatches: usize,
    wakes: BinaryHeap<Reverse<Wake>>,
}

/// A device on the way through its lane.
struct Device<'a> {
    lane: &'a [Action],
    /// The next action of the lane, W left out where it is put off.
    next: usize,
    /// Positions of its W in the lane, ascending, and how many of them have run.
    weights: Vec<usize>,
    weights_done: usize,
    done: Vec<Action>,
    free: f64,
    /// When it decides next; nothing while it waits for a parcel that nobody has begun to make.
    wakes: Option<f64>,
    /// Chunks of microbatches between F and W, now and at most.
    open: u32,
    most_open: u32,
}

impl<'a> Filler<'a> {
    fn new(checked: &'a CheckedPlan, costs: &'a Costs, rule: Rule) -> Self {
        let plan = checked.plan();
        let microbatches = plan.microbatches as usize;
        let mut wakes = BinaryHeap::new();
        let device = |(device, lane)| {
            wakes.push(Reverse(Wake { time: 0.0, device }));
            Device::new(lane)
        };
        let devices = plan.lanes.iter().map(Vec::as_slice).enumerate().map(device).collect();
        Self {
            plan: checked,
            placement: &plan.placement,
            costs,
            rule,
            devices,
            arrivals: vec![f64::NAN; 2 * plan.placement.stage_count() * microbatches],
            microbatches,
            wakes,
        }
    }

    /// Lets a device that is free at `now` begin its next action, or wait.
    fn decide(&mut self, at: usize, now: f64) {
        let Rule { puts_off, least_gap } = self.rule;
        let device = &mut self.devices[at];
        device.wakes = None;
        device.skip_done(puts_off);
        let weight = device.weight();
        let Some(&action) = device.lane.get(device.next) else {
            if let Some(weight) = weight {
                self.begin(at, weight, now);
            }
            return;
        };
        if action.work == Work::W {
            return self.begin(at, action, now);
        }
        let device = &self.devices[at];
        let is_full = action.work == Work::F && device.open >= device.most_open;
        let is_due = is_full || device.owes_before(action);
        let ready = self.ready(action);
        let (Ok(earliest) | Err(earliest)) = ready;
        let gap = earliest - now;
        let fits = |weight: &Action| is_due || gap > 0.0 && gap >= least_gap * self.time(*weight);
        match (weight.filter(fits), ready) {
            (Some(weight), _) => self.begin(at, weight, now),
            (None, Ok(ready)) if ready <= now => self.begin(at, action, now),
            (None, Ok(ready)) => self.wake(at, ready),
            (None, Err(_)) => {}
        }
    }

    /// When the parcel of an action is there; where that is not known, the time before which it
    /// cannot be.
    fn ready(&self, action: Action) -> Result<f64, f64> {
        let Some(link) = self.placement.inbound(action) else { return Ok(0.0) };
        let arrival = self.arrivals[self.index(link, action)];
        if !arrival.is_nan() {
            return Ok(arrival);
        }
        let producer = self.plan.inputs(action).parcel.expect("a link has a producer");
        let begins = self.devices[self.placement.device(link.from).index()].free;
        Err(begins + self.time(producer) + self.costs.transfer(self.placement, link))
    }

    fn begin(&mut self, at: usize, action: Action, now: f64) {
        let end = now + self.time(action);
        let device = &mut self.devices[at];
        device.count(action);
        device.free = end;
        self.wake(at, end);
        let Some(link) = self.placement.outbound(action) else { return };
        let index = self.index(link, action);
        self.arrivals[index] = end + self.costs.transfer(self.placement, link);
        let DeviceId(to) = self.placement.device(link.to);
        let receiver = &self.devices[to as usize];
        if receiver.wakes.is_none() && to as usize != at {
            self.wake(to as usize, now.max(receiver.free));
        }
    }

    fn wake(&mut self, device: usize, time: f64) {
        self.devices[device].wakes = Some(time);
        self.wakes.push(Reverse(Wake { time, device }));
    }

    fn index(&self, link: Link, action: Action) -> usize {
        link.index() * self.microbatches + action.microbatch.index()
    }

    fn time(&self, action: Action) -> f64 {
        self.costs.time(action)
    }
}

impl<'a> Device<'a> {
    fn new(lane: &'a [Action]) -> Self {
        let is_weight = |at: &usize| lane[*at].work == Work::W;
        let mut device = Self {
            lane,
            next: 0,
            weights: (0..lane.len()).filter(is_weight).collect(),
            weights_done: 0,
            done: Vec::with_capacity(lane.len()),
            free: 0.0,
            wakes: Some(0.0),
            open: 0,
            most_open: 0,
        };
        for action in lane {
            device.open += u32::from(action.work == Work::F);
            device.most_open = device.most_open.max(device.open);
            device.open -= u32::from(action.computes(Work::W));
        }
        device
    }

    /// The next W, if all that it comes after is done.
    fn weight(&self) -> Option<Action> {
        let at = *self.weights.get(self.weights_done)?;
        let weight = self.lane[at];
        // W of a stage keep their order, those of fused backwards among them.
        let comes_first = |action: &Action| {
            let is_of_stage = action.stage == weight.stage;
            *action == weight.alone(Work::B) || is_of_stage && action.is_fused()
        };
        let is_next = at < self.next || !self.lane[self.next..at].iter().any(comes_first);
        is_next.then_some(weight)
    }

    /// Whether a backward with its W in it comes next, and a W of the same stage was put off.
    fn owes_before(&self, next: Action) -> bool {
        let left = self.weights[self.weights_done..].iter();
        let mut put_off = left.take_while(|at| **at < self.next);
        next.is_fused() && put_off.any(|at| self.lane[*at].stage == next.stage)
    }

    /// Leaves out W that has run, or all W where it is put off.
    fn skip_done(&mut self, puts_off: bool) {
        let next_weight = self.weights.get(self.weights_done).copied().unwrap_or(usize::MAX);
        while let Some(action) = self.lane.get(self.next)
            && action.work == Work::W
            && (puts_off || self.next < next_weight)
        {
            self.next += 1;
        }
    }

    fn count(&mut self, action: Action) {
        self.open += u32::from(action.work == Work::F);
        self.open -= u32::from(action.computes(Work::W));
        match action.work {
            Work::W => self.weights_done += 1,
            _ => self.next += 1,
        }
        self.done.push(action);
    }
}

/// A device that decides at a time. The earliest comes first, and of equals the first device.
#[derive(Debug, Clone, Copy)]
struct Wake {
    time: f64,
    device: usize,
}

impl Ord for Wake {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time.total_cmp(&other.time).then(self.device.cmp(&other.device))
    }
}

impl PartialOrd for Wake {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Wake {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Wake {}
