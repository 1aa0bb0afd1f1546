//! Plan -> CheckedPlan: every action exactly once, on its device, in a legal order that ends.
//!
//! A stage may take the microbatches of F, of B and of W in any order, each in its own. Which order
//! a plan has, and what that says about bits, is in `order.rs`.

use std::collections::HashSet;

use super::Plan;
use super::action::{Action, DeviceId, MicrobatchId, StageId};
use super::placement::Link;
use super::token_run::{self, LanePosition};
use super::work::{PerWork, Work};
use crate::error::{Error, PlanPart, Result};

/// What a link holds is known from what every device knows of every other: beyond so many devices
/// that is more than a plan is worth.
const MOST_DEVICES: usize = 1 << 12;

/// Proves that `plan` can run: complete, in order, on the right devices, free of deadlock.
///
/// A plan without any backward work is complete when every F is there; it only evaluates. Any
/// other needs F, B and W, or F and BW, of every stage for every microbatch.
///
/// # Errors
///
/// The first fault: sizes that contradict each other, an action that is missing, there twice, on
/// the wrong device or out of order, or the action that a device waits for in vain.
pub fn check(plan: Plan) -> Result<CheckedPlan> {
    check_sizes(&plan)?;
    let fused = check_lanes(&plan)?;
    let order = token_run::run(&plan, &[])?;
    assert_eq!(order.len(), plan.lanes.iter().map(Vec::len).sum::<usize>());
    Ok(CheckedPlan { plan, fused, order })
}

/// A plan that [`check`] has proved, with what each action waits for.
#[derive(Debug, Clone)]
pub struct CheckedPlan {
    plan: Plan,
    /// Whether stage s runs B and W on microbatch k as one, at `s * microbatches + k`. Empty where
    /// there is no backward work.
    fused: Vec<bool>,
    /// All actions, each after everything it waits for.
    order: Vec<LanePosition>,
}

/// What must have happened before an action starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// The action of the same stage whose stash it needs: F for B, fused or not, and B for W.
    pub stash: Option<Action>,
    /// The action of the neighbouring stage whose parcel it takes.
    pub parcel: Option<Action>,
}

impl CheckedPlan {
    /// The plan itself.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the plan has no backward work: it evaluates and trains nothing.
    pub fn is_forward_only(&self) -> bool {
        self.fused.is_empty()
    }

    /// What `action` waits for.
    pub fn inputs(&self, action: Action) -> Inputs {
        let stash = match action.work {
            Work::F => None,
            Work::B => Some(action.alone(Work::F)),
            Work::W => Some(action.alone(Work::B)),
        };
        let parcel = self.plan.placement.inbound(action).map(|link| {
            if link.is_forward() {
                Action::new(link.from, Work::F, action.microbatch)
            } else {
                self.backward(link.from, action.microbatch)
            }
        });
        Inputs { stash, parcel }
    }

    /// The action that produces the gradient of the stage's input: B, fused with W or not.
    ///
    /// # Panics
    ///
    /// If there is no such action, as in a plan that is forward only.
    pub fn backward(&self, stage: StageId, microbatch: MicrobatchId) -> Action {
        assert!(microbatch.0 < self.plan.microbatches, "no microbatch {microbatch}");
        assert!(!self.is_forward_only(), "no backward work");
        let position = stage.index() * self.plan.microbatches as usize + microbatch.index();
        if self.fused[position] {
            Action::fused(stage, microbatch)
        } else {
            Action::new(stage, Work::B, microbatch)
        }
    }

    /// The link from another device that `action` receives from at its start.
    pub fn receives(&self, action: Action) -> Option<Link> {
        self.plan.placement.inbound(action).filter(|link| self.plan.placement.crosses(*link))
    }

    /// The link to another device that `action` sends on at its end.
    pub fn sends(&self, action: Action) -> Option<Link> {
        self.plan.placement.outbound(action).filter(|link| self.plan.placement.crosses(*link))
    }

    /// All actions with their devices, each after everything it waits for.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (LanePosition, Action)> + '_ {
        self.order.iter().map(|at| (*at, self.plan.lanes[at.device.index()][at.position]))
    }
}

fn check_sizes(plan: &Plan) -> Result<()> {
    let (lanes, devices) = (plan.lanes.len(), plan.placement.device_count());
    if plan.microbatches == 0 || devices == 0 {
        let part = if devices == 0 { PlanPart::Placement } else { PlanPart::Microbatches };
        return Err(Error::plan(format!(
            "{} stages and {} microbatches: a plan needs at least one of each",
            plan.placement.stage_count(),
            plan.microbatches
        ))
        .in_part(part));
    }
    if lanes != devices {
        return Err(Error::plan(format!(
            "the placement names {devices} devices, but there are {lanes} lanes"
        ))
        .in_part(PlanPart::Placement)
        .hint("one lane per device"));
    }
    if devices > MOST_DEVICES {
        return Err(Error::plan(format!("{devices} devices are too many"))
            .in_part(PlanPart::Placement)
            .hint(format!("at most {MOST_DEVICES}")));
    }
    let mut holds_stage = vec![false; devices];
    plan.placement.stages.iter().for_each(|device| holds_stage[device.index()] = true);
    match holds_stage.iter().position(|holds| !holds) {
        Some(device) => Err(Error::plan(format!("device {device} holds no stage"))
            .in_part(PlanPart::Placement)
            .hint("number the devices of the placement from 0 without gaps")),
        None => Ok(()),
    }
}

/// Walks every lane in its order, and gives which backwards are fused.
///
/// What is in the wrong lane comes first: it would be missed in its own lane otherwise.
fn check_lanes(plan: &Plan) -> Result<Vec<bool>> {
    for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
        for (position, action) in lane.iter().enumerate() {
            check_site(plan, device, *action)
                .map_err(|error| error.in_part(PlanPart::Action(device, position)))?;
        }
    }
    check_count(plan)?;
    let mut done = Done::new(plan);
    for (device, lane) in (0u32..).map(DeviceId).zip(&plan.lanes) {
        for (position, &action) in lane.iter().enumerate() {
            check_turn(lane, &done, action).map_err(|error| {
                // What is missing has no position.
                let part = match error.action {
                    Some(_) => PlanPart::Action(device, position),
                    None => PlanPart::Lane(device),
                };
                error.in_part(part)
            })?;
            done.count(action);
        }
    }
    let is_forward_only = plan.is_forward_only();
    let needed = if is_forward_only { &[Work::F][..] } else { &Work::ALL };
    for stage in (0..plan.placement.stage_count() as u32).map(StageId) {
        for &work in needed {
            let action = |k| Action::new(stage, work, MicrobatchId(k));
            if let Some(lost) = (0..plan.microbatches).map(action).find(|of| !done.has(*of)) {
                let lane = PlanPart::Lane(plan.placement.device(stage));
                return Err(missing(lost).in_part(lane));
            }
        }
    }
    Ok(if is_forward_only { Vec::new() } else { done.fused })
}

/// Whether every stage has at least as many F as there are microbatches: what is counted for each
/// pair of them takes memory of the size of the plan then, whatever number the plan says.
fn check_count(plan: &Plan) -> Result<()> {
    let mut forward = vec![0u64; plan.placement.stage_count()];
    let is_forward = |action: &&Action| action.work == Work::F;
    for action in plan.lanes.iter().flatten().filter(is_forward) {
        forward[action.stage.index()] += 1;
    }
    let few = forward.iter().position(|count| *count < u64::from(plan.microbatches));
    let Some(stage) = few.map(|stage| StageId(stage as u32)) else { return Ok(()) };
    let home = plan.placement.device(stage);
    let lane = plan.lanes[home.index()].iter();
    let there: HashSet<&Action> = lane.filter(is_forward).collect();
    let mut all = (0..plan.microbatches).map(|k| Action::new(stage, Work::F, MicrobatchId(k)));
    let lost = all.find(|action| !there.contains(action)).expect("there are fewer than all");
    Err(missing(lost).in_part(PlanPart::Lane(home)))
}

/// What has come so far of a plan in which no stage lacks an F.
struct Done {
    microbatches: usize,
    /// Of stage s and microbatch k at `s * microbatches + k`, and so for `fused`.
    works: Vec<PerWork<bool>>,
    /// Whether B and W are one.
    fused: Vec<bool>,
}

impl Done {
    fn new(plan: &Plan) -> Self {
        let microbatches = plan.microbatches as usize;
        let pairs = plan.placement.stage_count() * microbatches;
        Self { microbatches, works: vec![PerWork::default(); pairs], fused: vec![false; pairs] }
    }

    fn at(&self, action: Action) -> usize {
        action.stage.index() * self.microbatches + action.microbatch.index()
    }

    /// Whether all kinds of the action's work have come.
    fn has(&self, action: Action) -> bool {
        let works = self.works[self.at(action)];
        action.works().iter().all(|work| works[*work])
    }

    fn count(&mut self, action: Action) {
        let at = self.at(action);
        action.works().iter().for_each(|work| self.works[at][*work] = true);
        self.fused[at] |= action.is_fused();
    }
}

fn check_site(plan: &Plan, device: DeviceId, action: Action) -> Result<()> {
    let stages = plan.placement.stage_count();
    if action.stage.index() >= stages {
        return Err(Error::plan(format!("the placement has only {stages} stages"))
            .in_action(action)
            .hint(format!("stages 0 to {}", stages - 1)));
    }
    if action.microbatch.0 >= plan.microbatches {
        return Err(Error::plan(format!("the step has only {} microbatches", plan.microbatches))
            .in_action(action)
            .hint(format!("microbatches 0 to {}", plan.microbatches - 1)));
    }
    let home = plan.placement.device(action.stage);
    if home != device {
        return Err(Error::plan(format!("it is in the lane of device {device}"))
            .in_action(action)
            .hint(format!("stage {} is placed on device {home}", action.stage)));
    }
    Ok(())
}

/// Whether `action` may come where it is in its lane, after what is done.
fn check_turn(lane: &[Action], done: &Done, action: Action) -> Result<()> {
    if let Some(work) = action.works().iter().find(|work| done.has(action.alone(**work))) {
        let as_one = *work != Work::F && done.fused[done.at(action)];
        let by = if as_one { " (as BW)" } else { "" };
        return Err(
            Error::plan(format!("duplicate: this work is already done{by}")).in_action(action)
        );
    }
    let need = match action.work {
        Work::F => return Ok(()),
        Work::B => action.alone(Work::F),
        Work::W => action.alone(Work::B),
    };
    if done.has(need) {
        return Ok(());
    }
    if !lane.contains(&need) {
        return Err(missing(need));
    }
    Err(Error::plan(format!("it comes before {need}, whose result it needs")).in_action(action))
}

fn missing(action: Action) -> Error {
    let needs = match action.work {
        Work::F => "every stage runs F",
        Work::B | Work::W => "every stage runs B and W, or BW,",
    };
    Error::plan(format!("action {action} is missing"))
        .hint(format!("{needs} once for every microbatch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a 1F1B plan of 2 devices and 2 microbatches in which `from` is replaced by `to`.
    fn rejects(from: &str, to: &str, error: &str) {
        let text = "schedule test\nmicrobatches 2\nplacement 0 1\n\
            device 0: 0F0 0F1 0BW0 0B1 0W1\ndevice 1: 1F0 1BW0 1F1 1BW1\n";
        check(text.parse().unwrap()).expect("the plan is legal before it is changed");
        assert!(text.contains(from), "{from} is not in the plan");
        let plan = text.replacen(from, to, 1).parse().unwrap();
        assert_eq!(check(plan).expect_err("illegal").to_string(), error);
    }

    #[test]
    fn an_illegal_plan_is_an_error_that_names_the_action() {
        let once = "(try: every stage runs F once for every microbatch)";
        let backward = "(try: every stage runs B and W, or BW, once for every microbatch)";
        rejects("0F1 ", "", &format!("action 0F1 is missing {once}"));
        rejects("1F1 1BW1", "", &format!("action 1F1 is missing {once}"));
        rejects("1F0 ", "", &format!("action 1F0 is missing {once}"));
        rejects("0W1", "", &format!("action 0W1 is missing {backward}"));
        rejects("0B1 0W1", "0W1 0B1", "action 0W1: it comes before 0B1, whose result it needs");
        rejects("1F0 1BW0", "1BW0 1F0", "action 1BW0: it comes before 1F0, whose result it needs");
        rejects("0F1", "0F0 0F1", "action 0F0: duplicate: this work is already done");
        let duplicate = "action 0B1: duplicate: this work is already done (as BW)";
        rejects("0BW0 0B1", "0BW0 0BW1 0B1", duplicate);
        rejects("0BW0", "0BW0 0W0", "action 0W0: duplicate: this work is already done (as BW)");
        rejects(
            "0F1",
            "1F1",
            "action 1F1: it is in the lane of device 0 (try: stage 1 is placed on device 1)",
        );
        rejects("0F1", "2F1", "action 2F1: the placement has only 2 stages (try: stages 0 to 1)");
        rejects(
            "0F1",
            "0F2",
            "action 0F2: the step has only 2 microbatches (try: microbatches 0 to 1)",
        );
    }

    #[test]
    fn microbatches_may_come_in_any_order_of_their_own_for_f_b_and_w() {
        for lanes in [
            ["0F1 0F0 0B0 0B1 0W1 0W0", "1F1 1F0 1BW0 1BW1"],
            ["0F0 0F1 0BW1 0BW0", "1F1 1F0 1BW0 1BW1"],
            ["0F0 0F1 0BW1 0B0 0W0", "1F1 1B1 1F0 1B0 1W0 1W1"],
        ] {
            let [lane_0, lane_1] = lanes;
            let text = format!(
                "schedule test\nmicrobatches 2\nplacement 0 1\n\
                 device 0: {lane_0}\ndevice 1: {lane_1}\n"
            );
            let plan = check(text.parse().unwrap()).unwrap();
            let made: HashSet<Action> = plan.in_order().map(|(_, action)| action).collect();
            let fused = |microbatch| plan.backward(StageId(1), MicrobatchId(microbatch));
            assert!(made.contains(&fused(0)) && made.contains(&fused(1)), "{lane_1}");
        }
        let crossed = "schedule test\nmicrobatches 2\nplacement 0 1\n\
            device 0: 0F0 0BW0 0F1 0BW1\ndevice 1: 1F1 1BW1 1F0 1BW0\n";
        let error = check(crossed.parse().unwrap()).unwrap_err();
        let expected = "deadlock: device 0 waits at 0BW0 for 1BW0, device 1 waits at 1F1 for 0F1";
        assert_eq!(error.problem, expected);
    }

    #[test]
    fn a_plan_without_backward_work_needs_every_forward_and_no_more() {
        let plan = |lane_1: &str| {
            let text = format!(
                "schedule test\nmicrobatches 2\nplacement 0 1\n\
                 device 0: 0F0 0F1\ndevice 1: {lane_1}\n"
            );
            check(text.parse().unwrap()).map(|plan| plan.is_forward_only())
        };
        assert!(plan("1F0 1F1").unwrap());
        let error = |lane_1: &str| plan(lane_1).unwrap_err().to_string();
        let once = "(try: every stage runs F once for every microbatch)";
        assert_eq!(error("1F0"), format!("action 1F1 is missing {once}"));
        let backward = "(try: every stage runs B and W, or BW, once for every microbatch)";
        assert_eq!(error("1F0 1BW0 1F1"), format!("action 0B0 is missing {backward}"));
    }

    #[test]
    fn a_plan_of_the_wrong_size_is_an_error() {
        rejects(
            "microbatches 2",
            "microbatches 0",
            "2 stages and 0 microbatches: a plan needs at least one of each",
        );
        rejects(
            "microbatches 2",
            "microbatches 4000000000",
            "action 0F2 is missing (try: every stage runs F once for every microbatch)",
        );
        rejects(
            "placement 0 1",
            "placement 0 1 2",
            "the placement names 3 devices, but there are 2 lanes (try: one lane per device)",
        );
        rejects(
            "placement 0 1",
            "placement 1 1",
            "device 0 holds no stage \
             (try: number the devices of the placement from 0 without gaps)",
        );
    }

    #[test]
    fn a_deadlock_names_what_every_lane_waits_for_on_one_line() {
        rejects(
            "0F1 0BW0 0B1 0W1\ndevice 1: 1F0 1BW0 1F1",
            "0BW0 0F1 0B1 0W1\ndevice 1: 1F0 1F1 1BW0",
            "deadlock: device 0 waits at 0BW0 for 1BW0, device 1 waits at 1F1 for 0F1 \
             (try: move one of these actions later in its lane)",
        );
    }

    #[test]
    fn inputs_are_the_stash_and_the_parcel() {
        let text = "schedule test\nmicrobatches 1\nplacement 0 1\n\
            device 0: 0F0 0B0 0W0\ndevice 1: 1F0 1BW0\n";
        let plan = check(text.parse().unwrap()).unwrap();
        let inputs = |action: &str| {
            let Inputs { stash, parcel } = plan.inputs(action.parse().unwrap());
            [stash, parcel].map(|action| action.map_or("-".into(), |action| action.to_string()))
        };
        assert_eq!(inputs("0F0"), ["-", "-"]);
        assert_eq!(inputs("1F0"), ["-", "0F0"]);
        assert_eq!(inputs("1BW0"), ["1F0", "-"]);
        assert_eq!(inputs("0B0"), ["0F0", "1BW0"]);
        assert_eq!(inputs("0W0"), ["0B0", "-"]);
    }

    #[test]
    fn a_deadlock_of_many_devices_is_a_short_error() {
        let lane = |device: u32| match device {
            0 => "0F0 0BW0 0F1 0BW1".to_owned(),
            s => format!("{s}F0 {s}F1 {s}BW0 {s}BW1"),
        };
        let lanes: String = (0..10).map(|d| format!("device {d}: {}\n", lane(d))).collect();
        let text = format!("schedule test\nmicrobatches 2\nplacement 0 1 2 3 4 5 6 7 8 9\n{lanes}");
        let error = check(text.parse().unwrap()).unwrap_err();
        assert!(error.problem.starts_with("deadlock: device 0 waits at 0BW0 for 1BW0, device 1"));
        assert!(error.problem.ends_with("device 7 waits at 7F1 for 6F1, and 2 more"), "{error}");
    }

    #[test]
    fn more_devices_than_the_memory_of_a_check_is_for_are_refused() {
        let plan = |devices: u32| {
            let devices = 0..devices;
            let forward = |d| vec![Action::new(StageId(d), Work::F, MicrobatchId(0))];
            Plan {
                schedule: "test".to_owned(),
                microbatches: 1,
                placement: crate::Placement { stages: devices.clone().map(DeviceId).collect() },
                lanes: devices.map(forward).collect(),
            }
        };
        check(plan(4096)).unwrap();
        let error = check(plan(4097)).unwrap_err().to_string();
        assert_eq!(error, "4097 devices are too many (try: at most 4096)");
    }
}
