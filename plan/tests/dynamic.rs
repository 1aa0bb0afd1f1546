//! Promise: whatever the timing, a step under the dynamic policy ends, does every action once and
//! in its stage's order, and stays within what memory and channels were made for.

use std::collections::HashMap;

use proptest::prelude::*;
use zerobubble_plan::trace::{Label, Span, Timeline, bubble};
use zerobubble_plan::{
    Action, Channel, CheckedPlan, Costs, FAMILIES, FORWARD_ONLY, Family, PerWork, Plan, StageBytes,
    StashLimits, TransferCost, Transfers, ZB_H1, check, dynamic, generate, play, progress,
    simulate, simulate_dynamic,
};

fn base(family: &Family, p: u32, v: Option<u32>, m: u32) -> CheckedPlan {
    check(generate(family, p, v, m).unwrap()).unwrap()
}

/// Every family that trains, with its own chunks and, where it takes them, with others.
fn any_base() -> impl Strategy<Value = CheckedPlan> {
    let family = prop::sample::select(FAMILIES).prop_filter("trains", |f| **f != FORWARD_ONLY);
    (family, 1u32..=8, 1u32..=4, 1u32..=24).prop_map(|(family, p, v, m)| {
        let v = Some(v).filter(|_| generate(family, p, Some(v), m).is_ok());
        base(family, p, v, m)
    })
}

/// Costs of `stages` stages of which some transfer late.
fn costs(stages: usize, delays: &[f64]) -> Costs {
    let mut costs = Costs::unit(stages);
    costs.transfers = Transfers::from_fn(stages.max(8), |from, to| {
        let at = 3 * from.index() + to.index();
        TransferCost::of_any_size(delays[at % delays.len()])
    });
    costs
}

/// The order that a timeline ran in, as a plan.
fn order(base: &CheckedPlan, timeline: &Timeline) -> Plan {
    let action = |span: &Span| match span.label {
        Label::Action(action) => action,
        Label::Transfer | Label::Parcel { .. } | Label::Update => {
            unreachable!("only actions are played")
        }
    };
    let lane = |lane: &Vec<Span>| lane.iter().map(action).collect();
    Plan { lanes: timeline.lanes.iter().map(lane).collect(), ..base.plan().clone() }
}

/// The most parcels that were on a link at once: sent at the end of an action, taken at the start.
fn most_on(link: &Channel, plan: &CheckedPlan, timeline: &Timeline) -> u32 {
    let mut changes: Vec<(f64, i32)> = Vec::new();
    for span in timeline.lanes.iter().flatten() {
        let Label::Action(action) = span.label else { continue };
        changes.extend((plan.sends(action) == Some(link.link)).then_some((span.end, 1)));
        changes.extend((plan.receives(action) == Some(link.link)).then_some((span.start, -1)));
    }
    // What is sent is there before something is taken.
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let on = changes.iter().scan(0, |on, (_, change)| {
        *on += change;
        Some(*on)
    });
    on.max().unwrap_or(0) as u32
}

proptest! {
    #[test]
    fn any_timing_ends_with_every_action_once_within_the_limits(
        base in any_base(),
        times in prop::collection::vec(prop_oneof![3 => 0.1..2.0f64, 1 => 5.0..30.0f64], 97),
        delays in prop::collection::vec(0.0..4.0f64, 5),
    ) {
        let costs = costs(base.plan().placement.stage_count(), &delays);
        let mut times = times.iter().cycle();
        let timeline = play(&base, &costs, |_, start| start + times.next().unwrap());
        // `check` knows what is complete and in order.
        let ran = check(order(&base, &timeline)).unwrap();
        let (limits, held) = (StashLimits::of(&base), StashLimits::of(&ran));
        for (held, limit) in held.segments.iter().zip(&limits.segments) {
            prop_assert!(held <= limit);
        }
        for (held, limit) in held.devices.iter().zip(&limits.devices) {
            prop_assert!(held <= limit);
        }
        let channels = limits.channels(&base.plan().placement);
        for channel in &channels {
            prop_assert!(most_on(channel, &ran, &timeline) <= channel.capacity);
        }
        progress(&ran, &channels).unwrap();
    }

    #[test]
    fn no_order_needs_more_bytes_than_were_predicted(
        base in any_base(),
        times in prop::collection::vec(0.1..9.0f64, 97),
        bytes in prop::collection::vec(prop::array::uniform7(0u64..1000), 32),
        parcels in prop::collection::vec((0u64..1000, 0u64..1000), 31),
    ) {
        let mut costs = Costs::unit(base.plan().placement.stage_count());
        for (stage, of) in costs.stages.iter_mut().zip(bytes) {
            let [fixed, forward_for_b, forward_for_w, backward_for_w, f, b, w] = of;
            // While an action runs it holds what it leaves.
            let working_f = f + forward_for_b + forward_for_w;
            stage.bytes = StageBytes {
                fixed, forward_for_b, forward_for_w, backward_for_w,
                working: PerWork([working_f, b + backward_for_w, w]),
            };
        }
        for (boundary, (up, down)) in costs.boundaries.iter_mut().zip(parcels) {
            (boundary.activation_bytes, boundary.gradient_bytes) = (up, down);
        }
        let limits = StashLimits::of(&base);
        let planned = dynamic(&base, &costs).unwrap();
        let most = simulate_dynamic(&planned, &limits, &costs).unwrap().memory;
        let mut times = times.iter().cycle();
        let timeline = play(&base, &costs, |_, start| start + times.next().unwrap());
        let ran = simulate(&check(order(&base, &timeline)).unwrap(), &costs).unwrap().memory;
        for (ran, most) in ran.iter().zip(&most) {
            prop_assert_eq!(ran.fixed_bytes, most.fixed_bytes);
            prop_assert!(ran.peak_stash_bytes <= most.peak_stash_bytes, "{ran:?} {most:?}");
            prop_assert!(ran.channel_bytes <= most.channel_bytes, "{ran:?} {most:?}");
            prop_assert!(ran.peak_stash <= most.peak_stash);
        }
    }
}

#[test]
fn what_nothing_delays_is_as_fast_as_its_base() {
    for (p, m) in [(1, 1), (2, 3), (4, 4), (4, 12), (8, 8), (8, 24)] {
        let (base, costs) = (base(&ZB_H1, p, None, m), Costs::unit(p as usize));
        let planned = simulate(&base, &costs).unwrap().bubble.makespan;
        let plan = dynamic(&base, &costs).unwrap();
        assert_eq!(simulate(&plan, &costs).unwrap().bubble.makespan, planned, "p={p} m={m}");
    }
}

/// The end of a step in which every lane keeps its order.
fn static_end(base: &CheckedPlan, mut end: impl FnMut(Action, f64) -> f64) -> f64 {
    let lanes = &base.plan().lanes;
    let mut next = vec![0; lanes.len()];
    let mut free = vec![0.0f64; lanes.len()];
    let mut done: HashMap<Action, f64> = HashMap::new();
    while done.len() < lanes.iter().map(Vec::len).sum() {
        for (device, lane) in lanes.iter().enumerate() {
            while let Some(&action) = lane.get(next[device]) {
                let parcel = base.inputs(action).parcel;
                let Some(&at) = parcel.map_or(Some(&0.0), |of| done.get(&of)) else { break };
                free[device] = end(action, free[device].max(at));
                done.insert(action, free[device]);
                next[device] += 1;
            }
        }
    }
    free.into_iter().fold(0.0, f64::max)
}

#[test]
fn a_device_that_is_slow_at_times_costs_less_than_in_a_fixed_order() {
    for p in [4u32, 8] {
        let (mut fixed, mut free) = (0.0, 0.0);
        let base = base(&ZB_H1, p, None, 16);
        let costs = Costs::unit(p as usize);
        for victim in 0..p {
            for from in (0..48).step_by(4).map(f64::from) {
                let end = |action: Action, start: f64| {
                    let slow = action.stage.0 == victim && (from..from + 6.0).contains(&start);
                    start + if slow { 3.0 } else { 1.0 }
                };
                fixed += static_end(&base, end);
                free += bubble(&play(&base, &costs, end)).makespan;
            }
        }
        assert!(free < fixed, "p={p}: {free} and {fixed}");
    }
}

#[test]
fn a_lane_does_not_wait_for_what_is_late_if_it_has_other_work() {
    let base = base(&ZB_H1, 2, None, 3);
    let lane = |plan: &Plan| plan.lanes[1].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lane(base.plan()).join(" "), "1F0 1B0 1F1 1B1 1W0 1F2 1B2 1W1 1W2");
    let late: Action = "0F1".parse().unwrap();
    let end = |action, start| start + if action == late { 9.0 } else { 1.0 };
    let ran = order(&base, &play(&base, &Costs::unit(2), end));
    assert_eq!(lane(&ran).join(" "), "1F0 1B0 1W0 1F1 1B1 1W1 1F2 1B2 1W2");
}
