//! What made a measured bubble differ from the predicted one is told in parts that add up, and each
//! part is named for what really happened.

use proptest::prelude::*;
use zerobubble_plan::trace::{Label, Timeline};
use zerobubble_plan::{
    CheckedPlan, Costs, Explanation, FAMILIES, TransferCost, Transfers, ZB_H1, check, explain,
    generate, simulate,
};

/// A step that took exactly what `costs` say.
fn step(plan: &CheckedPlan, costs: &Costs) -> Timeline {
    simulate(plan, costs).unwrap().timeline
}

fn zb_h1() -> CheckedPlan {
    check(generate(&ZB_H1, 4, None, 8).unwrap()).unwrap()
}

fn explained(plan: &CheckedPlan, steps: &[Timeline], which: usize) -> Explanation {
    let prediction = simulate(plan, &Costs::unit(plan.plan().placement.stage_count())).unwrap();
    let all: Vec<&Timeline> = steps.iter().collect();
    let none = Costs::unit(plan.plan().placement.stage_count());
    explain(plan, &prediction, &none, &all, &steps[which]).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn other_costs_than_the_plans_are_all_of_the_difference_on_devices_that_keep_to_them() {
    let plan = zb_h1();
    let steps = vec![step(&plan, &Costs::uniform(4, 1.0, 1.7, 0.8)); 3];
    let found = explained(&plan, &steps, 1);
    assert!(near(found.expected.step, found.measured.step));
    assert!(near(found.slowed, 0.0) && near(found.hand_over, 0.0), "{found}");
    assert!(found.costs > 0.01, "{found}");
}

#[test]
fn what_lies_between_actions_is_hand_over() {
    let plan = zb_h1();
    let mut costs = Costs::unit(4);
    costs.transfers = Transfers::uniform(TransferCost::of_any_size(0.2));
    let steps = [step(&plan, &costs)];
    let found = explained(&plan, &steps, 0);
    assert!(near(found.costs, 0.0) && near(found.slowed, 0.0), "{found}");
    assert!(found.hand_over > 0.01, "{found}");

    let prediction = simulate(&plan, &Costs::unit(4)).unwrap();
    let told = explain(&plan, &prediction, &costs, &[&steps[0]], &steps[0]).unwrap();
    assert!(near(told.hand_over, 0.0) && told.costs > 0.01, "{told}");
}

#[test]
fn an_action_longer_than_its_median_is_a_device_that_was_slowed() {
    // 0 |F-..B-W-|  and with 1F0 slowed from 1 to 4:  0 |F-........B-W-|
    // 1 |..F-B-W-|                                   1 |..F-------B-W-|
    let plan = check(generate(&ZB_H1, 2, None, 1).unwrap()).unwrap();
    let usual = step(&plan, &Costs::unit(2));
    let mut slow = usual.clone();
    for span in slow.lanes.iter_mut().flatten() {
        span.start += if span.start >= 2.0 { 3.0 } else { 0.0 };
        span.end += if span.end >= 2.0 { 3.0 } else { 0.0 };
    }
    let found = explained(&plan, &[usual.clone(), usual.clone(), slow, usual], 2);
    assert!(near(found.costs, 0.0) && near(found.hand_over, 0.0), "{found}");
    // Of two devices 4 of 10 are idle, and 7 of 16.
    assert!(near(found.slowed, 7.0 / 16.0 - 0.4), "{found}");
    assert!(found.to_string().contains("slowed devices"));
}

#[test]
fn a_step_of_another_plan_is_refused() {
    let plan = zb_h1();
    let prediction = simulate(&plan, &Costs::unit(4)).unwrap();
    let fewer = check(generate(&ZB_H1, 3, None, 8).unwrap()).unwrap();
    let cut = Timeline {
        lanes: step(&plan, &Costs::unit(4)).lanes.into_iter().map(|l| l[1..].to_vec()).collect(),
        transfers: Vec::new(),
    };
    for step in [step(&fewer, &Costs::unit(3)), cut] {
        explain(&plan, &prediction, &Costs::unit(4), &[&step], &step).unwrap_err();
    }
}

proptest! {
    /// Whatever a step took: the parts are the difference.
    #[test]
    fn the_parts_add_up(
        family in 0..FAMILIES.len(),
        half in 1_u32..4,
        microbatches in 1_u32..9,
        delays in proptest::collection::vec(0.0..3.0_f64, 1..40),
    ) {
        let made = generate(FAMILIES[family], 2 * half, None, microbatches);
        let Ok(plan) = made else { return Ok(()) };
        let plan = check(plan).unwrap();
        let stages = plan.plan().placement.stage_count();
        let mut measured = step(&plan, &Costs::unit(stages));
        // Time stretches by another amount in every unit of it, so that no order changes.
        let later = |at: f64| {
            let whole = at as usize;
            let passed: f64 = (0..whole).map(|unit| 1.0 + delays[unit % delays.len()]).sum();
            passed + (at - whole as f64) * (1.0 + delays[whole % delays.len()])
        };
        for span in measured.lanes.iter_mut().flatten() {
            span.start = later(span.start);
            span.end = later(span.end) - 0.1 * (later(span.end) - later(span.start));
        }
        let actions = measured.lanes.iter().flatten();
        let count = actions.filter(|span| matches!(span.label, Label::Action(_))).count();
        prop_assert_eq!(count, plan.plan().lanes.iter().map(Vec::len).sum::<usize>());
        let found = explained(&plan, std::slice::from_ref(&measured), 0);
        let prediction = simulate(&plan, &Costs::unit(stages)).unwrap();
        let difference = found.measured.step - prediction.bubble.step;
        prop_assert!(near(found.costs + found.slowed + found.hand_over, difference), "{}", found);
        prop_assert!((0.0..=1.0).contains(&found.expected.step));
    }
}
