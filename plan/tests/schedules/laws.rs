//! What holds for any legal plan: the bound on its makespan, its channels' capacities, its text.

use std::collections::HashSet;

use proptest::prelude::*;
use zerobubble_plan::{
    Action, Channel, CheckedPlan, Link, Plan, channel_capacities, check, progress, simulate,
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

proptest! {
    #[test]
    fn a_plan_parses_back(plan in any_plan(), schedule in "[a-z0-9][a-z0-9 -]{0,9}[a-z0-9]") {
        let plan = Plan { schedule, ..plan };
        prop_assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
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
