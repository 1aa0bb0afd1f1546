//! A run of the runtime, drawn from a seed, and what is expected of it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerobubble::engine::{Clipping, Engine, MicrobatchLoss, ParameterState};
use zerobubble::error::{Error, Result};
use zerobubble::graph::ParameterId;
use zerobubble::plan::{
    Action, Channel, CheckedPlan, Costs, Family, Plan, StashLimits, channel_capacities, check,
    dynamic, evaluation, generate,
};
use zerobubble::trace::{Label, Timeline};

use crate::alone::Alone;
use crate::device::{FakeDevice, How, Place, Trouble, Troubles, problem};
use crate::model::{Held, Model, Share, held_in, word};
use crate::runtime::{Dispatch, OnNan, Runtime, StepOutcome, StepRules};
use crate::world::{self, Event, Random, What, mix};

pub struct Case {
    pub seed: u64,
    pub model: Arc<Model>,
    pub plan: CheckedPlan,
    /// The base of a dynamic order.
    pub base: Option<CheckedPlan>,
    pub rules: StepRules,
    pub calls: Vec<Call>,
    pub troubles: Vec<Trouble>,
    /// Threads that the operating system gives.
    pub threads: usize,
}

/// What the caller asks of the runtime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Call {
    Step,
    /// A step in which no loss weighs anything.
    WeightlessStep,
    /// Of so many microbatches.
    Evaluate(u32),
    Parameters,
    State,
    /// Of what the last `State` gave, if there was one.
    Restore,
}

impl Case {
    /// A run of a family, in its own order or as the base of a dynamic one.
    pub fn draw(seed: u64, family: &Family, is_dynamic: bool, devices: u32) -> Self {
        let random = &mut Random::new(seed);
        let most = if random.once_in(8) { 17 } else { 6 };
        let microbatches = 1 + random.below(most) as u32;
        let planned = plan(random, family, devices, microbatches);
        let placement = planned.plan().placement.clone();
        let stages = placement.stage_count() as u64;
        let tied = |random: &mut Random| {
            let first = random.below(stages - 1);
            let users = (first..stages)
                .filter(|stage| *stage == first || *stage == stages - 1 || random.once_in(3));
            users.map(|stage| stage as u32).collect()
        };
        let tied = (0..random.below(3)).map(|_| tied(random)).collect();
        let weighted = random.once_in(3);
        let max_norm = random.of(&[0.5, 30.0, 150.0, 300.0, 1e9]);
        let clipping = Clipping { max_norm, post_validation: random.once_in(2) };
        let clipping = (!random.once_in(3)).then_some(clipping);
        let on_nan = random.of(&[OnNan::Stop, OnNan::Skip]);
        let unit = Costs::unit(placement.stage_count());
        let (plan, base) = match is_dynamic {
            true => (dynamic(&planned, &unit).unwrap(), Some(planned)),
            false => (planned, None),
        };
        let model = Arc::new(Model { placement, microbatches, weighted, tied });
        let lacking = if random.once_in(16) { random.below(u64::from(devices) + 1) + 1 } else { 0 };
        let mut case = Self {
            seed,
            model,
            plan,
            base,
            rules: StepRules { clipping, on_nan },
            calls: Vec::new(),
            troubles: Vec::new(),
            threads: devices as usize + 1 - lacking as usize,
        };
        case.calls = case.draw_calls(random);
        let mut call = 0;
        for number in 0..random.of(&[0, 0, 0, 1, 1, 2, 4]) {
            if number == 0 || random.once_in(3) {
                call = random.below(case.calls.len().max(1) as u64) as usize;
            }
            let trouble = case.draw_trouble(random, call);
            case.troubles.extend(trouble.filter(|one| case.bears(one)));
        }
        case
    }

    /// The same run with the same actions in an order of its own, in which microbatches ascend only
    /// by chance; of a dynamic one the base.
    pub fn reordered(mut self) -> Self {
        let random = &mut Random::new(mix(self.seed));
        match &mut self.base {
            Some(base) => {
                *base = shuffled(random, base);
                let unit = Costs::unit(self.model.placement.stage_count());
                self.plan = dynamic(base, &unit).unwrap();
            }
            None => self.plan = shuffled(random, &self.plan),
        }
        self
    }

    fn draw_calls(&self, random: &mut Random) -> Vec<Call> {
        let call = |random: &mut Random| match random.below(10) {
            0..5 => Call::Step,
            5 if self.model.weighted => Call::WeightlessStep,
            5 | 6 => Call::Evaluate(1 + random.below(5) as u32),
            7 => Call::Parameters,
            8 => Call::State,
            _ => Call::Restore,
        };
        let mut calls: Vec<Call> = (0..random.below(5)).map(|_| call(random)).collect();
        if !random.once_in(4) {
            calls.extend([Call::Step, Call::State, Call::Parameters]);
        }
        calls
    }

    fn draw_trouble(&self, random: &mut Random, call: usize) -> Option<Trouble> {
        let device = random.below(self.plan.plan().lanes.len() as u64) as usize;
        let action = |random: &mut Random, plan: &CheckedPlan| random.of(&actions(plan));
        let duties = match self.calls.get(call)? {
            Call::WeightlessStep => return None,
            Call::Step if !random.once_in(3) => {
                let place = action(random, &self.plan);
                return Some(Trouble { call, place, how: how(random, place) });
            }
            Call::Evaluate(count) if !random.once_in(4) => {
                let place = action(random, &self.evaluation(*count));
                return Some(Trouble { call, place, how: how(random, place) });
            }
            Call::Step => &[
                "begin_step",
                "take_partial_sums",
                "reduce",
                "squared_norms",
                "update",
                "undo",
                "set_parameters",
            ][..],
            Call::Evaluate(_) => &["begin_evaluation"],
            Call::Parameters => &["parameters"],
            Call::State => &["state"],
            Call::Restore => &["restore"],
        };
        let place = Place::Duty(device, random.of(duties));
        Some(Trouble { call, place, how: how(random, place) })
    }

    /// Whether one more trouble leaves one result right. At one place there is one. A norm that is
    /// not finite is known when all devices have reduced: what comes of another trouble in its step
    /// depends on when that is.
    fn bears(&self, one: &Trouble) -> bool {
        let is_norm =
            |of: &Trouble| of.how == How::NotFinite && matches!(of.place, Place::Duty(..));
        let mut others = self.troubles.iter().filter(|other| other.call == one.call);
        others.all(|other| other.place != one.place && !is_norm(other) && !is_norm(one))
    }

    /// The plan of an evaluation, as the trainer makes it.
    fn evaluation(&self, microbatches: u32) -> CheckedPlan {
        let channels = self.channels().into_iter().filter(|channel| channel.link.is_forward());
        let round = channels.map(|channel| channel.capacity).min().unwrap_or(microbatches);
        check(evaluation(&self.model.placement, microbatches, round)).unwrap()
    }

    fn channels(&self) -> Vec<Channel> {
        match &self.base {
            Some(base) => StashLimits::of(base).channels(&self.model.placement),
            None => channel_capacities(&self.plan),
        }
    }

    /// The actions of a step.
    pub fn actions(&self) -> Vec<Place> {
        actions(&self.plan)
    }

    /// Plays the run and compares. To be called within a world.
    pub fn play(&self) {
        let troubles = Arc::new(Troubles { list: self.troubles.clone(), ..Troubles::default() });
        let engine = |number: usize| {
            let share = Share::new(self.model.clone(), number);
            let seed = mix(self.seed ^ number as u64);
            Box::new(FakeDevice::new(number, share, troubles.clone(), seed)) as Box<dyn Engine>
        };
        let devices = self.plan.plan().lanes.len();
        let dispatch =
            self.base.clone().map_or(Dispatch::Planned, |base| Dispatch::Dynamic(Box::new(base)));
        let engines = (0..devices).map(engine).collect();
        let started =
            Runtime::start(self.plan.clone(), dispatch, &self.channels(), engines, self.rules);
        if self.threads <= devices {
            let error = started.expect_err("there are not enough threads").to_string();
            assert!(error.contains("no thread for"), "{error}");
            return;
        }
        let mut runtime = started.unwrap();
        let mut alone = Alone::new(&self.model, &self.plan, self.rules);
        let mut saved = None;
        for (number, call) in self.calls.iter().enumerate() {
            troubles.call.store(number, Ordering::Relaxed);
            let before = world::events().len();
            let met = || self.met(&world::events()[before..]);
            let result = self.call(&mut runtime, &mut alone, number, *call, &mut saved, &met);
            let ends = |trouble: &&Trouble| {
                let is_step = *call == Call::Step && self.rules.on_nan == OnNan::Stop;
                trouble.how != How::NotFinite || is_step
            };
            let weightless = *call == Call::WeightlessStep && self.rules.on_nan == OnNan::Stop;
            match (result, met().iter().find(ends)) {
                (Ok(()), None) if !weightless => {}
                (Ok(()), trouble) => panic!("call {number}, {call:?}: {trouble:?} was lost"),
                (Err(error), Some(trouble)) => {
                    self.assert_names(&error, trouble);
                    return assert_stopped(&mut runtime);
                }
                (Err(error), None) if weightless => {
                    assert_eq!(error.problem, WEIGHTLESS);
                    return assert_stopped(&mut runtime);
                }
                (Err(error), None) => panic!("call {number}, {call:?}: {error}"),
            }
        }
    }

    /// The troubles that were met, in the order in which they were reported.
    fn met(&self, events: &[Event]) -> Vec<Trouble> {
        let mut met = Vec::new();
        for (at, event) in events.iter().enumerate() {
            let What::Trouble(number) = event.what else { continue };
            let by = |later: &&(usize, &Event)| {
                later.0 > at && later.1.thread == event.thread && is_sent(later.1, "Report")
            };
            let events: Vec<(usize, &Event)> = events.iter().enumerate().collect();
            let (reported, _) = *events.iter().find(by).expect("a trouble is reported");
            met.push((reported, self.troubles[number]));
        }
        met.sort_by_key(|(reported, _)| *reported);
        met.into_iter().map(|(_, trouble)| trouble).collect()
    }

    fn assert_names(&self, error: &Error, trouble: &Trouble) {
        let same = |other: &Trouble| other.call == trouble.call && other.place == trouble.place;
        let number = self.troubles.iter().position(same).expect("a trouble of the run");
        let expected = match (trouble.how, trouble.place) {
            (How::NotFinite, Place::Duty(..)) => "the norm of the gradients is NaN".to_owned(),
            _ => problem(number),
        };
        assert!(error.problem.contains(&expected), "{error}, and not {trouble:?}");
        let action = match trouble.place {
            Place::Action(action) => Some(action),
            Place::Duty(..) => None,
        };
        assert_eq!(error.site.action, action, "{error}, and not {trouble:?}");
    }

    fn call(
        &self,
        runtime: &mut Runtime,
        alone: &mut Alone,
        number: usize,
        call: Call,
        saved: &mut Option<Vec<(ParameterId, ParameterState)>>,
        met: &dyn Fn() -> Vec<Trouble>,
    ) -> Result<()> {
        match call {
            Call::Step | Call::WeightlessStep => {
                let weightless = call == Call::WeightlessStep;
                let inputs = self.model.inputs(mix(self.seed), self.model.microbatches, weightless);
                let rate = 0.5 / (number + 1) as f64;
                let outcome = runtime.step(number as u64, inputs.clone(), rate)?;
                let fault = met().first().copied();
                let skips = weightless || fault.is_some();
                let (losses, norm) = alone.step(number as u64, &inputs, rate, skips);
                self.assert_skipped(&outcome, fault, weightless);
                assert_eq!(bits(&outcome.losses), bits(&losses), "the losses");
                let norm_bits = |norm: Option<f64>| norm.map(f64::to_bits);
                assert_eq!(norm_bits(outcome.gradient_norm), norm_bits(norm), "the norm");
                self.assert_complete(&outcome.timeline, &self.plan);
                let peaks: Vec<u64> = (1000..).take(outcome.peak_bytes.len()).collect();
                assert!(skips || outcome.peak_bytes == peaks, "{:?}", outcome.peak_bytes);
            }
            Call::Evaluate(count) => {
                let inputs = self.model.inputs(mix(!self.seed), count, false);
                let plan = self.evaluation(count);
                let outcome = runtime.evaluate(plan.clone(), inputs.clone())?;
                self.assert_skipped(&outcome, met().first().copied(), false);
                assert_eq!(bits(&outcome.losses), bits(&alone.evaluate(&inputs)), "the losses");
                self.assert_complete(&outcome.timeline, &plan);
            }
            Call::Parameters => {
                let all = alone.held().into_iter().map(|(id, _)| id).collect();
                let given = runtime.parameters(all)?;
                let mut given: Vec<(ParameterId, u64)> =
                    given.iter().map(|(id, value)| (*id, word(value))).collect();
                given.sort_unstable();
                let expected = alone.held().into_iter().map(|(id, held)| (id, held.value));
                assert_eq!(given, expected.collect::<Vec<_>>(), "the parameters");
            }
            Call::State => {
                let all = alone.held().into_iter().map(|(id, _)| id).collect();
                let state = runtime.state(all)?;
                let mut given: Vec<(ParameterId, Held)> =
                    state.iter().map(|(id, state)| (*id, held_in(state))).collect();
                given.sort_unstable_by_key(|(id, _)| *id);
                assert_eq!(given, alone.held(), "the state");
                *saved = Some(state);
            }
            Call::Restore => {
                if let Some(state) = saved {
                    runtime.restore(state.clone())?;
                    alone.restore(state);
                }
            }
        }
        Ok(())
    }

    fn assert_skipped(&self, outcome: &StepOutcome, fault: Option<Trouble>, weightless: bool) {
        match (&outcome.skipped, fault) {
            (Some(error), Some(trouble)) => self.assert_names(error, &trouble),
            (Some(error), None) if weightless => assert_eq!(error.problem, WEIGHTLESS),
            (None, None) if !weightless => {}
            (skipped, fault) => panic!("skipped for {skipped:?}, and not for {fault:?}"),
        }
    }

    /// Every action is reported once, in an order that is legal.
    fn assert_complete(&self, timeline: &Timeline, plan: &CheckedPlan) {
        let mut lanes = Vec::new();
        for spans in &timeline.lanes {
            let in_time = spans.windows(2).all(|pair| pair[0].end <= pair[1].start);
            assert!(in_time && spans.iter().all(|span| span.start <= span.end), "{spans:?}");
            let action = |label: Label| match label {
                Label::Action(action) => Some(action),
                _ => None,
            };
            lanes.push(spans.iter().filter_map(|span| action(span.label)).collect::<Vec<_>>());
        }
        if self.base.is_none() || plan.is_forward_only() {
            assert_eq!(lanes, plan.plan().lanes, "the actions that were reported");
        } else {
            check(Plan { lanes, ..plan.plan().clone() }).expect("a legal order");
        }
    }
}

/// With so many chunks as the family has by itself, or with others if it can.
fn plan(random: &mut Random, family: &Family, devices: u32, microbatches: u32) -> CheckedPlan {
    let generate = |chunks| generate(family, devices, chunks, microbatches);
    let chunks = random.of(&[None, Some(1), Some(3)]);
    check(generate(chunks).or_else(|_| generate(None)).unwrap()).unwrap()
}

/// The actions of a plan in any order in which they can run one at a time.
fn shuffled(random: &mut Random, plan: &CheckedPlan) -> CheckedPlan {
    let mut left: Vec<(usize, Action)> = Vec::new();
    for (device, lane) in plan.plan().lanes.iter().enumerate() {
        left.extend(lane.iter().map(|action| (device, *action)));
    }
    let mut done: HashSet<Action> = HashSet::new();
    let mut lanes = vec![Vec::new(); plan.plan().lanes.len()];
    while !left.is_empty() {
        let is_ready = |(_, action): &(usize, Action)| {
            let inputs = plan.inputs(*action);
            let needs = [inputs.stash, inputs.parcel].into_iter().flatten();
            needs.flat_map(apart).all(|need| done.contains(&need))
        };
        let ready: Vec<usize> = (0..left.len()).filter(|at| is_ready(&left[*at])).collect();
        let (device, action) = left.swap_remove(random.of(&ready));
        done.extend(apart(action));
        lanes[device].push(action);
    }
    check(Plan { lanes, ..plan.plan().clone() }).unwrap()
}

fn apart(action: Action) -> impl Iterator<Item = Action> {
    action.works().iter().map(move |work| action.alone(*work))
}

const WEIGHTLESS: &str = "the weights of all microbatches are 0";

fn actions(plan: &CheckedPlan) -> Vec<Place> {
    plan.plan().lanes.iter().flatten().copied().map(Place::Action).collect()
}

/// What may go wrong at a place.
fn how(random: &mut Random, place: Place) -> How {
    match place {
        Place::Action(action) if action.letters() == "F" => {
            random.of(&[How::Fails, How::FailsLater, How::Panics, How::NotFinite, How::NotFinite])
        }
        Place::Action(_) => random.of(&[How::Fails, How::FailsLater, How::Panics]),
        Place::Duty(_, "squared_norms") => random.of(&[How::Fails, How::NotFinite]),
        Place::Duty(..) => random.of(&[How::Fails, How::Panics]),
    }
}

fn assert_stopped(runtime: &mut Runtime) {
    for _ in 0..2 {
        let later = runtime.parameters(Vec::new()).expect_err("the run has ended").to_string();
        assert!(later.contains("the pipeline has stopped"), "{later}");
    }
}

fn bits(losses: &[MicrobatchLoss]) -> Vec<(u32, Option<u32>)> {
    losses.iter().map(|loss| (loss.value.to_bits(), loss.weight.map(f32::to_bits))).collect()
}

/// Whether a message was sent of a type of the runtime.
pub fn is_sent(event: &Event, name: &str) -> bool {
    matches!(event.what, What::Sent(of) if of.ends_with(&format!("::{name}")))
}

/// Whether a message was received of a type of the runtime.
pub fn is_received(event: &Event, name: &str) -> bool {
    matches!(event.what, What::Received(of) if of.ends_with(&format!("::{name}")))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan.plan();
        let base = self
            .base
            .as_ref()
            .map_or(String::new(), |base| format!(" on {}", base.plan().schedule));
        write!(f, "seed {}: {}{base} on {} devices", self.seed, plan.schedule, plan.lanes.len())?;
        write!(f, ", {} microbatches, {:?}", plan.microbatches, self.rules)?;
        write!(f, ", tied {:?}, {:?}", self.model.tied, self.calls)?;
        write!(f, ", {:?}", self.troubles)
    }
}
