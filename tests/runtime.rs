//! Promise: the first error ends a run, names its action, and stops every thread; parcels arrive
//! in order whatever the devices' speeds.

#[path = "common/families.rs"]
mod families;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use families::families;
use proptest::prelude::*;
use zerobubble::engine::{Compute, Engine, Outcome, OwnParameters, Parcel, StepInputs};
use zerobubble::error::{Error, Result};
use zerobubble::plan::{
    Action, Channel, CheckedPlan, Costs, DeviceId, Family, MicrobatchId, ONE_F_ONE_B, Placement,
    Plan, StageId, StashLimits, Work, ZB_H1, channel_capacities, check, dynamic, evaluation,
    generate,
};
use zerobubble::runtime::{Dispatch, Runtime, StepRules};

/// An engine whose actions are a function.
struct Scripted<F>(F);

impl<F: FnMut(Action, Parcel) -> Result<Parcel> + Send> Compute for Scripted<F> {
    fn begin_step(&mut self, _step: u64, _inputs: &StepInputs) -> Result<()> {
        Ok(())
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        Ok(Some(Outcome { parcel: (self.0)(action, arrived)?, ..Outcome::default() }))
    }
}

impl<F> OwnParameters for Scripted<F> {}

impl<F> Engine for Scripted<F>
where
    Self: Compute,
{
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

fn plan(family: &Family, devices: u32, microbatches: u32) -> CheckedPlan {
    check(generate(family, devices, None, microbatches).unwrap()).unwrap()
}

fn start<F>(plan: &CheckedPlan, mut script: impl FnMut(usize) -> F) -> Runtime
where
    F: FnMut(Action, Parcel) -> Result<Parcel> + Send + 'static,
{
    let engine = |device| Box::new(Scripted(script(device))) as Box<dyn Engine>;
    let engines = (0..plan.plan().lanes.len()).map(engine).collect();
    Runtime::start(
        plan.clone(),
        Dispatch::Planned,
        &channel_capacities(plan),
        engines,
        StepRules::default(),
    )
    .unwrap()
}

/// The same, where the order is decided while a step runs and `base` is its base.
fn start_dynamic<F>(base: &CheckedPlan, mut script: impl FnMut(usize) -> F) -> Runtime
where
    F: FnMut(Action, Parcel) -> Result<Parcel> + Send + 'static,
{
    let engine = |device| Box::new(Scripted(script(device))) as Box<dyn Engine>;
    let engines = (0..base.plan().lanes.len()).map(engine).collect();
    let placement = &base.plan().placement;
    let plan = dynamic(base, &Costs::unit(placement.stage_count())).unwrap();
    let channels = StashLimits::of(base).channels(placement);
    Runtime::start(
        plan,
        Dispatch::Dynamic(Box::new(base.clone())),
        &channels,
        engines,
        StepRules::default(),
    )
    .unwrap()
}

fn step(runtime: &mut Runtime) -> Result<()> {
    runtime.step(0, Arc::new(Vec::new()), 0.0).map(drop)
}

#[test]
fn a_worker_that_panics_is_an_error_that_names_the_action() {
    for family in families() {
        for victim in ["0F0", "1F2", "2F3"] {
            let victim: Action = victim.parse().unwrap();
            let mut runtime = start(&plan(family, 3, 4), |_| {
                move |action, _| {
                    assert!(action != victim, "out of luck");
                    Ok(Vec::new())
                }
            });
            let error = step(&mut runtime).unwrap_err();
            assert_eq!(error.site.action, Some(victim), "{error}");
            assert!(error.to_string().contains("out of luck"), "{error}");
            let later = step(&mut runtime).unwrap_err();
            assert!(later.to_string().contains("stopped"), "{later}");
        }
    }
}

/// A request that met a scheduler on its way out stayed in the channel, and with it the sender of
/// an answer that never came.
#[test]
fn a_request_right_after_an_error_is_answered() {
    let plan = plan(&ONE_F_ONE_B, 1, 1);
    for _ in 0..1000 {
        let mut runtime = start(&plan, |_| |_: Action, _| Err(Error::run("broken")));
        assert!(step(&mut runtime).is_err());
        let later = runtime.parameters(Vec::new()).unwrap_err();
        assert!(later.to_string().contains("stopped"), "{later}");
    }
}

#[test]
fn the_first_error_wins() {
    // Every later device fails too, but only after the first has handed on its parcel.
    let mut runtime = start(&plan(&ONE_F_ONE_B, 4, 8), |_| {
        |action: Action, _| match (action.stage.0, action.work) {
            (1, Work::F) => Err(Error::run("the first")),
            (2.., _) => Err(Error::run("a later one")),
            _ => Ok(Vec::new()),
        }
    });
    let error = step(&mut runtime).unwrap_err();
    assert_eq!(error.to_string(), "action 1F0: the first");
}

#[test]
fn every_device_obeys_its_lane_and_gets_its_own_parcels() {
    let device = Device::flex();
    for family in families() {
        let plan = plan(family, 4, 9);
        let done = Arc::new(Mutex::new(vec![Vec::new(); 4]));
        let mut runtime = start(&plan, |lane| {
            let (done, device) = (done.clone(), device.clone());
            // Devices take turns at being the slow one.
            move |action: Action, arrived: Parcel| {
                let turns = (lane as u32 * 7 + action.microbatch.0 * 5) % 11;
                std::hint::black_box((0..turns * 20_000).fold(0u32, |x, y| x.wrapping_mul(31) ^ y));
                for value in arrived {
                    let sender = Tensor::<1>::from_dispatch(value).into_scalar::<f32>();
                    assert_eq!(sender, action.microbatch.0 as f32, "{action}");
                }
                done.lock().unwrap()[lane].push(action);
                let tell = Tensor::<1>::from_floats([action.microbatch.0 as f32], &device);
                let tells = action.work != Work::W;
                Ok(tells.then(|| tell.into_dispatch()).into_iter().collect())
            }
        });
        step(&mut runtime).unwrap();
        assert_eq!(*done.lock().unwrap(), plan.plan().lanes, "{family}");
    }
}

#[test]
fn what_is_decided_while_a_step_runs_is_a_legal_order() {
    for family in families() {
        let base = plan(family, 4, 9);
        let done = Arc::new(Mutex::new(vec![Vec::new(); 4]));
        let mut runtime = start_dynamic(&base, |lane| {
            let done = done.clone();
            move |action: Action, _| {
                // Devices take turns at being the slow one.
                let turns = (lane as u32 * 7 + action.microbatch.0 * 5) % 11;
                std::hint::black_box((0..turns * 20_000).fold(0u32, |x, y| x.wrapping_mul(31) ^ y));
                done.lock().unwrap()[lane].push(action);
                Ok(Vec::new())
            }
        });
        for _ in 0..3 {
            step(&mut runtime).unwrap();
            let lanes = done.lock().unwrap().iter_mut().map(std::mem::take).collect();
            check(Plan { lanes, ..base.plan().clone() }).unwrap();
        }
    }
}

#[test]
fn a_late_parcel_does_not_stall_a_lane_that_has_other_work() {
    let base = plan(&ZB_H1, 2, 3);
    let [late, other]: [Action; 2] = ["0F1", "1W0"].map(|action| action.parse().unwrap());
    let lane = &base.plan().lanes[1];
    let position = |of: &str| lane.iter().position(|action| action.to_string() == of);
    assert!(position("1F1") < position("1W0"), "the base has the other work later");
    let (open, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let mut runtime = start_dynamic(&base, |_| {
        let (open, gate) = (open.clone(), gate.clone());
        move |action: Action, _| {
            if action == other {
                open.send(()).unwrap();
            }
            if action == late {
                // In the order of the base this would never come.
                let opened = gate.lock().unwrap().recv_timeout(Duration::from_secs(20));
                opened.map_err(|_| Error::run("the other device stands still"))?;
            }
            Ok(Vec::new())
        }
    });
    for _ in 0..3 {
        step(&mut runtime).unwrap();
    }
}

#[test]
fn a_step_reports_every_action_once_and_in_order() {
    let plan = plan(&ZB_H1, 3, 5);
    let mut runtime = start(&plan, |_| |_, _| Ok(Vec::new()));
    let outcome = runtime.step(0, Arc::new(Vec::new()), 0.0).unwrap();
    for (lane, actions) in outcome.timeline.lanes.iter().zip(&plan.plan().lanes) {
        let times: Vec<(f64, f64)> = lane.iter().map(|span| (span.start, span.end)).collect();
        assert!(times.iter().all(|(start, end)| start <= end));
        assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert_eq!(lane.len(), actions.len() + 1, "all actions and one update");
    }
}

/// A plan that trains on any placement: all F, then every microbatch back through all stages.
fn trains(placement: &Placement, microbatches: u32) -> CheckedPlan {
    let stages = || (0..placement.stage_count() as u32).map(StageId);
    let mut lanes = vec![Vec::new(); placement.device_count()];
    let mut add = |action: Action| lanes[placement.device(action.stage).index()].push(action);
    for k in (0..microbatches).map(MicrobatchId) {
        stages().for_each(|stage| add(Action::new(stage, Work::F, k)));
    }
    for k in (0..microbatches).map(MicrobatchId) {
        stages().rev().for_each(|stage| add(Action::fused(stage, k)));
    }
    let schedule = "any".to_owned();
    check(Plan { schedule, microbatches, placement: placement.clone(), lanes }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_evaluation_ends_over_links_of_any_capacity_wherever_stages_are(
        picks in prop::collection::vec(0usize..3, 1..9),
        microbatches in 1u32..9,
        capacity in 1u32..4,
    ) {
        // Devices by their first stage, so that none is left out.
        let mut seen = Vec::new();
        for pick in &picks {
            if !seen.contains(pick) {
                seen.push(*pick);
            }
        }
        let device = |pick: &usize| seen.iter().position(|other| other == pick).unwrap() as u32;
        let stages = picks.iter().map(|pick| DeviceId(device(pick))).collect();
        let placement = Placement { stages };
        let plan = trains(&placement, 2);
        let channels: Vec<Channel> =
            placement.links().map(|link| Channel { link, capacity }).collect();
        let script = |_: Action, arrived: Parcel| {
            let one = Tensor::<1>::from_floats([1.0], &Device::flex()).into_dispatch();
            Ok(if arrived.is_empty() { vec![one] } else { arrived })
        };
        let engine = |_| Box::new(Scripted(script)) as Box<dyn Engine>;
        let engines = (0..placement.device_count()).map(engine).collect();
        let rules = StepRules::default();
        let started = Runtime::start(plan, Dispatch::Planned, &channels, engines, rules);
        let mut runtime = started.unwrap();
        for _ in 0..2 {
            let forward = check(evaluation(&placement, microbatches, capacity)).unwrap();
            for lane in &forward.plan().lanes {
                for pair in lane.windows(2) {
                    let (one, next) = (pair[0], pair[1]);
                    let goes_on = next.stage.0 == one.stage.0 + 1;
                    let last = placement.stages.get(one.stage.index() + 1)
                        != Some(&placement.device(one.stage));
                    prop_assert!(last || goes_on && one.microbatch == next.microbatch);
                }
            }
            let outcome = runtime.evaluate(forward, Arc::new(Vec::new())).unwrap();
            prop_assert_eq!(outcome.losses.len(), microbatches as usize);
        }
    }
}
