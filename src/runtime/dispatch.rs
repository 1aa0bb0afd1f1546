//! Which action a device gets next: that of its lane, or that which a policy chooses.

use std::collections::HashMap;

use crate::plan::{Action, Channel, CheckedPlan, Choice, Costs, DeviceId, Link, Policy};

/// What decides the order of the actions.
#[derive(Debug, Clone)]
pub enum Dispatch {
    /// The lanes of the plan.
    Planned,
    /// [`Policy`], while the step runs, with this plan as its base.
    Dynamic(Box<CheckedPlan>),
}

/// One step after another, as far as it has come.
pub(super) enum Dispatcher {
    Planned(Planned),
    Dynamic(Box<Dynamic>),
}

/// Every lane in its order, each action when the parcel that it waits for has been sent.
pub(super) struct Planned {
    lanes: Vec<Vec<Next>>,
    /// How many actions of every lane have been started, and have ended.
    started: Vec<usize>,
    ended: Vec<usize>,
}

/// An action and those on other devices that must be done before it, as lane and position: the one
/// whose parcel it takes, and the one that frees the link's capacity for its own.
struct Next {
    action: Action,
    after: [Option<(usize, usize)>; 2],
}

/// A policy and what it decides about. It starts every step with what it learned about times.
pub(super) struct Dynamic {
    base: CheckedPlan,
    policy: Policy,
}

impl Dispatcher {
    pub(super) fn new(plan: &CheckedPlan, dispatch: Dispatch) -> Self {
        match dispatch {
            Dispatch::Planned => Self::Planned(Planned::new(plan, &[])),
            Dispatch::Dynamic(base) => {
                let unknown = Costs::uniform(base.plan().placement.stage_count(), 0.0, 0.0, 0.0);
                let policy = Policy::new(&base, &unknown);
                Self::Dynamic(Box::new(Dynamic { base: *base, policy }))
            }
        }
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) {
        match self {
            Self::Planned(Planned { started, ended, .. }) => {
                started.fill(0);
                ended.fill(0);
            }
            Self::Dynamic(dynamic) => {
                dynamic.policy = Policy::new(&dynamic.base, dynamic.policy.costs());
            }
        }
    }

    /// What `device` does next, or after what it has under way. What is to run counts as started.
    pub(super) fn next(&mut self, device: usize, now: f64) -> Choice {
        match self {
            Self::Planned(planned) => planned.next(device),
            Self::Dynamic(dynamic) => {
                let choice = dynamic.policy.next(DeviceId(device as u32), now);
                if let Choice::Run(action) = choice {
                    dynamic.policy.start(action, now);
                }
                choice
            }
        }
    }

    /// Counts `action` as ended, and its parcel as arrived.
    pub(super) fn end(&mut self, device: usize, action: Action, start: f64, end: f64) {
        match self {
            Self::Planned(planned) => planned.end(device),
            Self::Dynamic(dynamic) => {
                let Dynamic { base, policy } = &mut **dynamic;
                policy.end(DeviceId(device as u32), end - start, end);
                if let Some(link) = base.sends(action) {
                    policy.arrive(link);
                }
            }
        }
    }
}

impl Planned {
    /// The lanes of a plan, over links that hold any of its orders; or, forward only, over
    /// `channels`.
    pub(super) fn new(checked: &CheckedPlan, channels: &[Channel]) -> Self {
        let plan = checked.plan();
        let lanes = plan.lanes.iter().enumerate();
        let positions: HashMap<Action, (usize, usize)> = lanes
            .flat_map(|(lane, actions)| (0..).zip(actions).map(move |(at, &of)| (of, (lane, at))))
            .collect();
        // The actions that take from a link, in their order, and how many send over it.
        let mut takers: HashMap<Link, Vec<Action>> = HashMap::new();
        for &action in plan.lanes.iter().flatten() {
            if let Some(link) = checked.receives(action) {
                takers.entry(link).or_default().push(action);
            }
        }
        let mut sent: HashMap<Link, usize> = HashMap::new();
        let mut frees_capacity = |action: Action| {
            let link = checked.sends(action)?;
            let channel = channels.iter().find(|channel| channel.link == link)?;
            let sent = sent.entry(link).or_default();
            *sent += 1;
            let taken = sent.checked_sub(1 + channel.capacity.max(1) as usize)?;
            Some(takers[&link][taken])
        };
        let mut next = |&action: &Action| {
            let producer = checked.inputs(action).parcel.filter(|_| {
                // Within a lane the order itself sees to it.
                checked.receives(action).is_some()
            });
            let position = |action: Action| positions[&action];
            Next { action, after: [producer, frees_capacity(action)].map(|of| of.map(position)) }
        };
        let lanes: Vec<Vec<Next>> =
            plan.lanes.iter().map(|lane| lane.iter().map(&mut next).collect()).collect();
        Self { started: vec![0; lanes.len()], ended: vec![0; lanes.len()], lanes }
    }

    /// Counts the action of a lane that is next to end.
    pub(super) fn end(&mut self, lane: usize) {
        self.ended[lane] += 1;
    }

    pub(super) fn next(&mut self, lane: usize) -> Choice {
        let next = self.lanes[lane].get(self.started[lane]);
        let ready = |&(lane, at): &(usize, usize)| self.ended[lane] > at;
        match next.filter(|next| next.after.iter().flatten().all(ready)) {
            Some(next) => {
                self.started[lane] += 1;
                Choice::Run(next.action)
            }
            None => Choice::Idle,
        }
    }
}
