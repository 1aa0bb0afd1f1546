//! Promise: every parcel is charged what its link takes, from its device to the other; one time
//! for all links is the same as a matrix of it, and no slower link makes a plan faster.

use proptest::prelude::*;
use zerobubble_plan::trace::Label;
use zerobubble_plan::*;

const MOST_DEVICES: usize = 6;

fn planned(family: &Family, devices: usize, microbatches: u32) -> CheckedPlan {
    check(generate(family, devices as u32, None, microbatches).unwrap()).unwrap()
}

fn costs(plan: &CheckedPlan, times: &[f64; 3], transfers: Transfers) -> Costs {
    let [f, b, w] = *times;
    let mut costs = Costs::uniform(plan.plan().placement.stage_count(), f, b, w);
    for (k, boundary) in (1..).zip(&mut costs.boundaries) {
        *boundary = BoundaryCost { activation_bytes: k, gradient_bytes: 2 * k };
    }
    Costs { transfers, ..costs }
}

fn matrix(devices: usize, links: &[(f64, f64)]) -> Transfers {
    Transfers::from_fn(devices, |from, to| {
        let (latency, per_byte) = links[from.index() * MOST_DEVICES + to.index()];
        TransferCost { latency, per_byte }
    })
}

prop_compose! {
    fn any_case()(
        family in prop::sample::select(FAMILIES.to_vec()),
        devices in 1usize..=MOST_DEVICES,
        microbatches in 1u32..12,
    ) -> CheckedPlan {
        planned(family, devices, microbatches)
    }
}

fn any_links() -> impl Strategy<Value = Vec<(f64, f64)>> {
    prop::collection::vec((0.0..4.0, 0.0..0.2), MOST_DEVICES * MOST_DEVICES)
}

proptest! {
    #[test]
    fn one_time_for_all_links_is_a_matrix_of_it(
        plan in any_case(),
        times in prop::array::uniform3(0.0..3.0),
        latency in 0.0..4.0,
        elsewhere in 0.0..4.0,
    ) {
        let cost = TransferCost::of_any_size(latency);
        // A device more, whose links differ, so that the matrix stays one.
        let devices = plan.plan().placement.device_count();
        let each = Transfers::from_fn(devices + 1, |from, to| {
            let is_used = from.index().max(to.index()) < devices;
            if is_used { cost } else { TransferCost::of_any_size(latency + 1.0 + elsewhere) }
        });
        let one = simulate(&plan, &costs(&plan, &times, Transfers::uniform(cost))).unwrap();
        prop_assert_eq!(simulate(&plan, &costs(&plan, &times, each.clone())).unwrap(), one);
        let one = fill(plan.clone(), &costs(&plan, &times, Transfers::uniform(cost))).unwrap();
        let filled = fill(plan.clone(), &costs(&plan, &times, each)).unwrap();
        prop_assert_eq!(filled.plan(), one.plan());
    }

    #[test]
    fn no_slower_link_makes_a_plan_faster_and_no_plan_beats_the_lower_bound(
        plan in any_case(),
        times in prop::array::uniform3(0.0..3.0),
        links in any_links(),
        slower in (0..MOST_DEVICES * MOST_DEVICES, 0.0..5.0),
    ) {
        let devices = plan.plan().placement.device_count();
        let run = |links: &[(f64, f64)]| {
            simulate(&plan, &costs(&plan, &times, matrix(devices, links))).unwrap()
        };
        let before = run(&links);
        let mut after = links.clone();
        after[slower.0].0 += slower.1;
        let (before, after) = (&before.bubble, &run(&after));
        prop_assert!(before.makespan <= after.bubble.makespan + 1e-9);
        prop_assert!(after.lower_bound <= after.bubble.makespan + 1e-9);
    }

    #[test]
    fn every_transfer_is_shown_where_its_parcel_is_under_way(
        plan in any_case(),
        times in prop::array::uniform3(0.1..3.0),
        links in any_links(),
    ) {
        let placement = &plan.plan().placement;
        let costs = costs(&plan, &times, matrix(placement.device_count(), &links));
        let timeline = simulate(&plan, &costs).unwrap().timeline;
        let spans: Vec<_> = timeline.lanes.iter().flatten().collect();
        let mut shown = 0;
        for (device, transfers) in (0u32..).map(DeviceId).zip(&timeline.transfers) {
            for span in transfers {
                let Label::Parcel { of, to } = span.label else { panic!("{span:?}") };
                let sent = spans.iter().find(|span| span.label == Label::Action(of)).unwrap();
                prop_assert_eq!(span.start, sent.end);
                prop_assert_eq!(placement.device(of.stage), device);
                prop_assert_ne!(to, device);
                shown += 1;
            }
        }
        let directions = if plan.plan().is_forward_only() { 1 } else { 2 };
        let links = placement.links().count() / 2 * directions;
        prop_assert_eq!(shown, links * plan.plan().microbatches as usize);
    }
}

#[test]
fn each_direction_has_its_own_time() {
    let plan = planned(&GPIPE, 2, 1);
    let transfers = Transfers::from_fn(2, |from, _| {
        let (latency, per_byte) = if from.0 == 0 { (1.0, 0.5) } else { (10.0, 2.0) };
        TransferCost { latency, per_byte }
    });
    let costs = costs(&plan, &[1.0; 3], transfers);
    // F, 1 byte up, F, B with W, 2 bytes down, B with W.
    let makespan = simulate(&plan, &costs).unwrap().bubble.makespan;
    assert_eq!(makespan, 1.0 + 1.5 + 1.0 + 2.0 + 14.0 + 2.0);
}
