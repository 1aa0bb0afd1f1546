//! The closed forms of the bubbles, exact.

use proptest::prelude::*;
use zerobubble_plan::{
    FORWARD_ONLY, Family, GPIPE, INTERLEAVED_1F1B, ONE_F_ONE_B, V_HALF, V_MIN, ZB_H1, ZB_H2, ZB_V,
    simulate,
};

use super::random::{any_costs, first_stages};
use super::{Case, every_case};

/// What the makespan adds to the work of one device when F, B and W of a chunk take 1 each. The
/// generators' comments say where it comes from. `None` where there is only a bound.
fn step_bubble(case: Case) -> Option<u32> {
    let Case { family, p, v, m } = case;
    let work = m * v;
    match family.name {
        "gpipe" | "1f1b" => Some(3 * (p - 1)),
        "interleaved-1f1b" if m > p && m % p > 0 => None,
        "interleaved-1f1b" | "looped-bfs" => Some(3 * (v * m.max(p) + m.min(p) - 1 - work)),
        "zb-h1" => Some(2 * (p - 1) - (m.min(p) - 1)),
        "zb-h2" => Some((p - 1).max((2 * (p - 1)).saturating_sub(m / 2))),
        "zb-v" => Some(folded(case, p, p - 1)),
        "v-half" => Some(folded(case, (p + 2) / 2, (3 * (p + p % 2)).saturating_sub(7))),
        "v-min" => {
            let turn = if p % 3 == 1 { 5 } else { 7 };
            Some(folded(case, (p + 4) / 3, (4 * p).saturating_sub(turn)))
        }
        "dualpipe-v" => {
            let few = if m > p { 5 * p - 1 } else { 5 * p - 3 };
            Some((p - 1).max(few.saturating_sub(2 * m)))
        }
        "forward-only" => {
            let empty = m.next_multiple_of(p) - m;
            Some(m.next_multiple_of(p) * v - empty + p - 1 - work)
        }
        name => panic!("no bubble is known for {name}"),
    }
}

/// A V whose devices hold at most `stash` microbatches idles `bubble` when that many do not do,
/// and never less than p - 1; until then it is as long as a V without a limit.
fn folded(Case { p, m, .. }: Case, stash: u32, bubble: u32) -> u32 {
    let bubble = if m > stash { bubble } else { 0 };
    let way = (4 * p - 1).saturating_sub(4 * m);
    let few = (3 * p - 1).saturating_sub(2 * m);
    bubble.max(way).max(few).max(p - 1)
}

#[test]
fn every_plan_has_exactly_its_bubble_at_unit_costs() {
    for case in every_case() {
        let Some(idle) = step_bubble(case).map(f64::from) else { continue };
        let work =
            f64::from(case.m * case.v) * if *case.family == FORWARD_ONLY { 1.0 } else { 3.0 };
        let found = case.at_one_per_action().bubble;
        assert_eq!(found.makespan, work + idle, "{case}");
        assert!(found.devices.iter().all(|d| d.step_idle == idle && d.span_idle <= idle), "{case}");
        assert_eq!(found.step, idle / (work + idle), "{case}");
        // In times of a chunk, a device spends v on F, on B and on W.
        let whole = f64::from(case.v);
        if let Some((span, step)) = bubbles(case, whole, whole, whole) {
            assert!((found.devices[0].span_idle - span).abs() < 1e-9, "{case}");
            assert!((idle - step).abs() < 1e-9, "{case}");
        }
    }
}

#[test]
fn a_ragged_last_round_takes_no_longer_than_a_whole_one() {
    for case in every_case().filter(|case| step_bubble(*case).is_none()) {
        let whole = Case { m: case.m.next_multiple_of(case.p), ..case };
        let [found, bound] = [case, whole].map(|case| case.at_one_per_action().bubble.makespan);
        assert!(found <= bound, "{case}: {found} is more than {bound}");
    }
}

#[test]
fn zero_bubble_plans_have_none_within_a_device_and_no_plan_is_shorter() {
    for case in every_case() {
        let Case { p, m, .. } = case;
        let (spans_are_full, is_shortest) = match case.family.name {
            "zb-h1" => (false, m >= p),
            "zb-h2" => (m >= 2 * p - 1, m >= 2 * p - 1),
            "zb-v" => (m >= 2 * p - 1, m >= p),
            "dualpipe-v" => (false, m >= 2 * p),
            "forward-only" => (m % p == 0, m % p == 0 || m <= p),
            _ => (false, false),
        };
        let simulation = case.at_one_per_action();
        let found = &simulation.bubble;
        if spans_are_full {
            assert_eq!(found.span, 0.0, "{case}");
        }
        if is_shortest {
            assert_eq!(found.makespan, simulation.lower_bound, "{case}");
        }
    }
}

#[test]
fn step_bubbles_at_4_devices_and_12_microbatches() {
    let check = |family: &'static Family, v, expected: &str| {
        let step = Case { family, p: 4, v, m: 12 }.at_one_per_action().bubble.step;
        assert_eq!(format!("{:.1}", 100.0 * step), expected, "{family} v={v}");
    };
    check(&GPIPE, 1, "20.0");
    check(&ONE_F_ONE_B, 1, "20.0");
    check(&INTERLEAVED_1F1B, 2, "11.1");
    check(&INTERLEAVED_1F1B, 4, "5.9");
    check(&ZB_H1, 1, "7.7");
    check(&ZB_H2, 1, "7.7");
    check(&ZB_V, 2, "4.0");
    check(&V_HALF, 2, "6.5");
    check(&V_MIN, 2, "13.3");
}

/// The span bubble of device 0 and the step bubble in absolute time, when every device spends `f`,
/// `b` and `w` on a microbatch, evenly over its chunks, and W <= B.
fn bubbles(case: Case, f: f64, b: f64, w: f64) -> Option<(f64, f64)> {
    let Case { family, p, v, m } = case;
    let (p_1, all) = (f64::from(p - 1), f + b + w);
    let after = |behind: u32| p_1 * (f + b) - f64::from(m.min(behind) - 1) * f.min(w);
    let both = |bubble: f64| Some((bubble, bubble));
    match family.name {
        "gpipe" | "1f1b" => both(p_1 * all),
        "interleaved-1f1b" if m > p && m % p > 0 => None,
        "interleaved-1f1b" | "looped-bfs" => {
            let turns = f64::from(m.max(p) - m) + f64::from(m.min(p) - 1) / f64::from(v);
            both(turns * all)
        }
        "zb-h1" => both(after(p)),
        "zb-h2" if m >= 2 * p - 1 => Some((after(2 * p - 1), after(2 * p - 1).max(p_1 * f))),
        _ => None,
    }
}

fn closed_forms() -> Vec<Case> {
    every_case().filter(|case| bubbles(*case, 1.0, 1.0, 1.0).is_some()).collect()
}

proptest! {
    #[test]
    fn bubbles_are_exact_whenever_w_takes_no_longer_than_b(
        case in prop::sample::select(closed_forms()),
        (f, w, more) in (0.1..5.0, 0.0..5.0, 0.0..5.0),
    ) {
        let b = w + more;
        let found = case.simulate(f, b, w).bubble;
        let (span, step) = bubbles(case, f, b, w).unwrap();
        let work = f64::from(case.m) * (f + b + w);
        prop_assert!((found.devices[0].span_idle - span).abs() < 1e-9, "{}", case);
        prop_assert!((found.makespan - work - step).abs() < 1e-9, "{}", case);
    }

    #[test]
    fn any_costs_keep_the_schedules_above_the_lower_bound(
        case in prop::sample::select(every_case().collect::<Vec<_>>()),
        costs in any_costs(),
    ) {
        let costs = first_stages(&costs, (case.p * case.v) as usize);
        let simulation = simulate(&case.plan(), &costs).unwrap();
        prop_assert!(simulation.bubble.makespan >= simulation.lower_bound - 1e-9);
        let busy: f64 = simulation.bubble.devices.iter().map(|device| device.busy).sum();
        let whole = simulation.bubble.makespan * f64::from(case.p);
        prop_assert!((simulation.bubble.step - (1.0 - busy / whole)).abs() < 1e-9);
    }
}
