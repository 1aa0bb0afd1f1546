//! Promise: W moves to where costs leave time for it, and nothing else changes.

use proptest::array::uniform3;
use proptest::prelude::*;
use zerobubble_plan::*;

fn family(of: &str) -> &'static Family {
    FAMILIES.iter().find(|family| family.name == of).unwrap()
}

fn costs(plan: &CheckedPlan, [f, b, w]: [f64; 3], transfer: f64) -> Costs {
    let placement = &plan.plan().placement;
    let chunks = placement.stage_count() as f64 / placement.device_count() as f64;
    let mut costs = Costs::uniform(placement.stage_count(), f / chunks, b / chunks, w / chunks);
    costs.transfers = Transfers::uniform(TransferCost::of_any_size(transfer));
    costs
}

fn generated(of: &str, devices: u32, microbatches: u32) -> CheckedPlan {
    check(generate(family(of), devices, None, microbatches).unwrap()).unwrap()
}

/// The actions of one kind in their order, on every device.
fn order(plan: &CheckedPlan, keeps: impl Fn(&Action) -> bool) -> Vec<Vec<Action>> {
    let of = |lane: &Vec<Action>| lane.iter().copied().filter(|action| keeps(action)).collect();
    plan.plan().lanes.iter().map(of).collect()
}

#[test]
fn idle_time_of_published_orders_is_filled() {
    let check = |of, devices, microbatches, times, transfer, before: f64, after: f64| {
        let plan = generated(of, devices, microbatches);
        let costs = costs(&plan, times, transfer);
        let step = |plan: &CheckedPlan| 100.0 * simulate(plan, &costs).unwrap().bubble.step;
        let (own, filled) = (step(&plan), step(&fill(plan, &costs).unwrap()));
        assert!((own - before).abs() < 0.01, "{of}: {own}");
        assert!((filled - after).abs() < 0.01, "{of}: {filled}");
    };
    check("zb-v", 16, 24, [1.0, 1.3, 0.8], 0.05, 17.61, 14.63);
    check("v-half", 8, 16, [1.0, 1.5, 0.7], 0.1, 30.39, 28.54);
    check("zb-h2", 16, 24, [1.0, 1.3, 0.8], 0.05, 21.48, 19.13);
}

#[test]
fn what_has_no_w_of_its_own_stays() {
    for of in ["gpipe", "1f1b", "interleaved-1f1b", "forward-only"] {
        let plan = generated(of, 4, 8);
        let costs = costs(&plan, [1.0, 2.0, 1.0], 0.5);
        assert_eq!(fill(plan.clone(), &costs).unwrap().plan(), plan.plan());
    }
}

#[test]
fn a_backward_with_its_w_in_it_comes_after_the_w_that_were_put_off() {
    // Of dualpipe-v's stage 4, microbatch 0 has a W of its own and microbatch 1 has none.
    let plan = generated("dualpipe-v", 3, 2);
    let mut costs = costs(&plan, [0.0; 3], 0.0);
    costs.stages[4].time = PerWork([0.0, 1.0, 8.0]);
    let filled = fill(plan.clone(), &costs).unwrap();
    assert_eq!(order(&filled, |of| of.work == Work::W), order(&plan, |of| of.work == Work::W));
}

proptest! {
    #[test]
    fn a_filled_plan_is_not_slower_holds_no_more_and_has_the_same_orders(
        family in prop::sample::select(FAMILIES.to_vec()),
        devices in 1u32..7,
        microbatches in 1u32..14,
        stages in prop::collection::vec(uniform3(0u32..9), 14),
        bytes in prop::collection::vec(uniform3(0u64..9), 14),
        transfers in prop::collection::vec(0u32..4, 13),
    ) {
        let plan = check(generate(family, devices, None, microbatches).unwrap()).unwrap();
        let mut costs = costs(&plan, [1.0; 3], 0.0);
        for ((stage, times), bytes) in costs.stages.iter_mut().zip(&stages).zip(&bytes) {
            stage.time = PerWork(times.map(f64::from));
            stage.bytes.forward_for_b = bytes[0];
            stage.bytes.forward_for_w = bytes[1];
            stage.bytes.backward_for_w = bytes[2];
        }
        costs.transfers = Transfers::from_fn(devices as usize, |from, to| {
            TransferCost::of_any_size(f64::from(transfers[from.index() + 7 * to.index() % 6]))
        });
        let filled = fill(plan.clone(), &costs).unwrap();
        let (own, after) = (simulate(&plan, &costs).unwrap(), simulate(&filled, &costs).unwrap());
        prop_assert!(after.bubble.makespan <= own.bubble.makespan);
        for (own, after) in own.memory.iter().zip(&after.memory) {
            prop_assert!(after.peak_bytes() <= own.peak_bytes());
            prop_assert!(after.peak_stash <= own.peak_stash);
        }
        let is_weight = |action: &Action| action.work == Work::W;
        prop_assert_eq!(order(&filled, |of| !is_weight(of)), order(&plan, |of| !is_weight(of)));
        prop_assert_eq!(order(&filled, is_weight), order(&plan, is_weight));
    }
}
