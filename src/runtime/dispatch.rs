//! Which action a device gets next: that of its lane, or that which a policy chooses.

use crate::plan::{Action, CheckedPlan, Choice, Costs, DeviceId, Policy};

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

/// An action and the one on another device that must be done before it, as lane and position.
struct Next {
    action: Action,
    after: Option<(usize, usize)>,
}

/// A policy and what it decides about. It starts every step with what it learned about times.
pub(super) struct Dynamic {
    base: CheckedPlan,
    policy: Policy,
}

impl Dispatcher {
    pub(super) fn new(plan: &CheckedPlan, dispatch: Dispatch) -> Self {
        match dispatch {
            Dispatch::Planned => Self::Planned(Planned::new(plan)),
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
            Self::Planned(planned) => planned.ended[device] += 1,
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
    fn new(checked: &CheckedPlan) -> Self {
        let plan = checked.plan();
        let position = |action: Action| {
            let lane = plan.placement.device(action.stage).index();
            let at = plan.lanes[lane].iter().position(|&other| other == action);
            (lane, at.expect("a checked plan holds every action"))
        };
        let next = |&action: &Action| {
            let producer = checked.inputs(action).parcel.filter(|_| {
                // Within a lane the order itself sees to it.
                checked.receives(action).is_some()
            });
            Next { action, after: producer.map(position) }
        };
        let lanes: Vec<Vec<Next>> =
            plan.lanes.iter().map(|lane| lane.iter().map(next).collect()).collect();
        Self { started: vec![0; lanes.len()], ended: vec![0; lanes.len()], lanes }
    }

    fn next(&mut self, lane: usize) -> Choice {
        let next = self.lanes[lane].get(self.started[lane]);
        let ready = |after: (usize, usize)| self.ended[after.0] > after.1;
        match next.filter(|next| next.after.is_none_or(ready)) {
            Some(next) => {
                self.started[lane] += 1;
                Choice::Run(next.action)
            }
            None => Choice::Idle,
        }
    }
}
