//! What holds for any legal plan, in whichever orders its stages take microbatches: the bound on
//! its makespan, its channels' capacities, its stash, its text, and that the standard order is no
//! worse.

use std::collections::HashSet;

use proptest::prelude::*;
use zerobubble_plan::{
    Action, Channel, CheckedPlan, Costs, DeviceId, Link, MicrobatchId, PerWork, Plan, StageId,
    StashLimits, Work, channel_capacities, check, dynamic, fill, from_csv, progress, simulate,
    to_csv,
};

use super::random::{any_costs, any_plan, first_stages};

/// Runs all interleavings of a plan on unbounded links; the most parcels each link ever holds.
fn most_parcels(plan: &CheckedPlan) -> Vec<Channel> {
    let lanes = &plan.plan().lanes;
    // A state says for each lane how many actions have started, and how many have ended.
    let sent = |state: &[(usize, usize)], link: Link| {
        let ended = lanes.iter().zip(state).flat_map(|(lane, (_, ended))| &lane[..*ended]);
        ended.filter(|action| plan.sends(**action) == Some(link)).count()
    };
    let taken = |state: &[(usize, usize)], link: Link| {
        let started = lanes.iter().zip(state).flat_map(|(lane, (started, _))| &lane[..*started]);
        started.filter(|action| plan.receives(**action) == Some(link)).count()
    };
    let mut most: Vec<Channel> =
        plan.plan().placement.links().map(|link| Channel { link, capacity: 0 }).collect();
    let mut states = vec![vec![(0, 0); lanes.len()]];
    let mut seen: HashSet<_> = states.iter().cloned().collect();
    while let Some(state) = states.pop() {
        for channel in &mut most {
            let held = sent(&state, channel.link) - taken(&state, channel.link);
            channel.capacity = channel.capacity.max(held as u32);
        }
        for (device, lane) in lanes.iter().enumerate() {
            let mut after = state.clone();
            let (started, ended) = state[device];
            if started > ended {
                after[device].1 += 1;
            } else if let Some(action) = lane.get(started) {
                let done = |action: &Action| {
                    lanes
                        .iter()
                        .zip(&state)
                        .any(|(lane, (_, ended))| lane[..*ended].contains(action))
                };
                let inputs = plan.inputs(*action);
                if ![inputs.stash, inputs.parcel].iter().flatten().all(done) {
                    continue;
                }
                after[device].0 += 1;
            }
            if seen.insert(after.clone()) {
                states.push(after);
            }
        }
    }
    most
}

/// What is most of all that `count` says after every action of a lane.
fn most(lane: &[Action], mut count: impl FnMut(&[Action]) -> usize) -> usize {
    (0..=lane.len()).map(|done| count(&lane[..done])).max().unwrap()
}

/// Whether the work has been done.
fn has(done: &[Action], stage: StageId, work: Work, k: u32) -> bool {
    let is = |of: &&Action| of.stage == stage && of.microbatch.0 == k && of.computes(work);
    done.iter().find(is).is_some()
}

/// The stages on the device of `stage` that are joined to it.
fn segment(plan: &Plan, stage: StageId) -> Vec<StageId> {
    let stages = (0..plan.placement.stage_count() as u32).map(StageId).collect::<Vec<_>>();
    let device = |stage: &StageId| plan.placement.device(*stage);
    let mut segments = stages.chunk_by(|a, b| device(a) == device(b));
    segments.find(|segment| segment.contains(&stage)).unwrap().to_vec()
}

/// B and W of fused backwards as two.
fn apart(lane: &[Action]) -> impl Iterator<Item = Action> {
    lane.iter().flat_map(|of| of.works().iter().map(|work| of.alone(*work)))
}

/// The same kinds of work in the same lanes, with microbatches ascending on every stage.
fn standard(plan: &Plan) -> Plan {
    let mut next = vec![PerWork([0u32; 3]); plan.placement.stage_count()];
    let mut ascending = |action: Action| {
        let k = &mut next[action.stage.index()][action.work];
        *k += 1;
        action.on(MicrobatchId(*k - 1))
    };
    let mut lane = |lane: &Vec<Action>| apart(lane).map(&mut ascending).collect();
    Plan { lanes: plan.lanes.iter().map(&mut lane).collect(), ..plan.clone() }
}

proptest! {
    #[test]
    fn a_plan_parses_back(plan in any_plan(), schedule in "[a-z0-9][a-z0-9 -]{0,9}[a-z0-9]") {
        let plan = Plan { schedule, ..plan };
        prop_assert_eq!(&plan.to_string().parse::<Plan>().unwrap(), &plan);
        let csv = to_csv(&check(plan.clone()).unwrap());
        let plan = Plan { schedule: "csv".into(), ..plan };
        prop_assert_eq!(from_csv(&csv).unwrap(), plan);
    }

    #[test]
    fn the_stash_is_that_of_a_recount_by_microbatch(plan in any_plan()) {
        let checked = check(plan.clone()).unwrap();
        let costs = Costs::unit(plan.placement.stage_count());
        let memory = simulate(&checked, &costs).unwrap().memory;
        let limits = StashLimits::of(&checked);
        prop_assume!(!plan.is_forward_only());
        // The W of a fused backward comes after its B.
        let lanes: Vec<Vec<Action>> = plan.lanes.iter().map(|lane| apart(lane).collect()).collect();
        for (device, lane) in (0u32..).map(DeviceId).zip(&lanes) {
            let stages: Vec<StageId> = plan.placement.stages_of(device).collect();
            let ks = 0..plan.microbatches;
            let pairs = || stages.iter().flat_map(|s| ks.clone().map(move |k| (*s, k)));
            let open = most(lane, |done| {
                let is_open = |&(s, k): &(StageId, u32)| {
                    has(done, s, Work::F, k) && !has(done, s, Work::W, k)
                };
                pairs().filter(is_open).count()
            });
            prop_assert_eq!(memory[device.index()].peak_stash, open as f64 / stages.len() as f64);
            prop_assert_eq!(limits.devices[device.index()] as usize, open.max(stages.len()));
            for &stage in &stages {
                let of = segment(&plan, stage);
                let (first, top) = (of[0], of[of.len() - 1]);
                let left = |done: &[Action], k| of.iter().all(|s| has(done, *s, Work::W, k));
                let count = |from, work| {
                    most(lane, |done| {
                        let is = |k: &u32| has(done, from, work, *k) && !left(done, *k);
                        ks.clone().filter(is).count()
                    })
                };
                prop_assert_eq!(limits.segments[stage.index()] as usize, count(first, Work::F));
                let backward = limits.backward[stage.index()] as usize;
                prop_assert_eq!(backward, count(top, Work::B));
            }
        }
    }

    #[test]
    fn no_order_of_microbatches_is_better_than_the_standard_one(
        plan in any_plan(), costs in any_costs(),
    ) {
        let plan = check(plan).unwrap();
        let costs = first_stages(&costs, plan.plan().placement.stage_count());
        let other = check(standard(plan.plan())).unwrap();
        prop_assert!(other.own_orders().is_empty());
        let [own, other] = [plan, other].map(|plan| simulate(&plan, &costs).unwrap());
        prop_assert!(other.bubble.makespan <= own.bubble.makespan + 1e-9);
        for (own, other) in own.memory.iter().zip(&other.memory) {
            prop_assert!(other.peak_stash <= own.peak_stash);
        }
    }

    #[test]
    fn what_fills_idle_time_or_decides_at_run_time_takes_any_order(
        plan in any_plan(), costs in any_costs(),
    ) {
        let plan = check(plan).unwrap();
        let costs = first_stages(&costs, plan.plan().placement.stage_count());
        let filled = fill(plan.clone(), &costs).unwrap();
        for stage in (0..plan.plan().placement.stage_count() as u32).map(StageId) {
            for work in Work::ALL {
                prop_assert_eq!(filled.order_of(stage, work), plan.order_of(stage, work));
            }
        }
        prop_assume!(!plan.is_forward_only());
        let decided = dynamic(&plan, &costs).unwrap();
        prop_assert!(decided.own_orders().is_empty());
        let (limits, held) = (StashLimits::of(&plan), StashLimits::of(&decided));
        prop_assert!(held.segments.iter().zip(&limits.segments).all(|(a, b)| a <= b));
        prop_assert!(held.devices.iter().zip(&limits.devices).all(|(a, b)| a <= b));
        progress(&decided, &limits.channels(&decided.plan().placement)).unwrap();
    }

    #[test]
    fn no_plan_beats_the_lower_bound(plan in any_plan(), costs in any_costs()) {
        let plan = check(plan).unwrap();
        let stages = plan.plan().placement.stage_count();
        let simulation = simulate(&plan, &first_stages(&costs, stages)).unwrap();
        prop_assert!(simulation.bubble.makespan >= simulation.lower_bound - 1e-9);
    }

    #[test]
    fn channel_capacities_are_the_most_that_any_interleaving_needs(plan in any_plan()) {
        let plan = check(plan).unwrap();
        let capacities = channel_capacities(&plan);
        progress(&plan, &capacities).unwrap();
        prop_assert_eq!(capacities, most_parcels(&plan));
    }
}
