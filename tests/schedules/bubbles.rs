//! The closed forms of the bubbles, exact.

use proptest::prelude::*;
use zerobubble::plan::{Family, GPIPE, ONE_F_ONE_B, ZB_H1, simulate};

use super::random::{any_costs, first_stages};
use super::{Case, every_case};

/// The families whose bubble has a closed form at any costs with W <= B, of every size.
fn closed_forms() -> Vec<Case> {
    every_case().filter(|case| bubble(*case, 1.0, 1.0, 1.0).is_some()).collect()
}

/// The bubble in absolute time, span of device 0 and step alike, for stages of equal cost with
/// W <= B: what the makespan adds to the work of one device. The generators' comments say where it
/// comes from.
fn bubble(case: Case, f: f64, b: f64, w: f64) -> Option<f64> {
    let Case { family, p, m, .. } = case;
    let p_1 = f64::from(p - 1);
    match family.name {
        "gpipe" | "1f1b" => Some(p_1 * (f + b + w)),
        "zb-h1" => Some(p_1 * (f + b) - f64::from(m.min(p) - 1) * f.min(w)),
        _ => None,
    }
}

#[test]
fn every_plan_has_exactly_its_bubble_at_unit_costs() {
    for case in closed_forms() {
        let simulation = case.at_unit_costs();
        let idle = bubble(case, 1.0, 1.0, 1.0).unwrap();
        let (work, found) = (3.0 * f64::from(case.m), &simulation.bubble);
        assert_eq!(found.makespan, work + idle, "{case}");
        assert_eq!(found.devices[0].span_idle, idle, "{case}");
        assert!(found.devices.iter().all(|d| d.step_idle == idle && d.span_idle <= idle), "{case}");
        assert_eq!(found.span, idle / (work + idle), "{case}");
        assert_eq!(found.step, idle / (work + idle), "{case}");
        if *case.family == ZB_H1 && case.m >= case.p {
            assert_eq!(idle, f64::from(case.p - 1), "{case}");
            assert_eq!(found.makespan, simulation.lower_bound, "{case}: no schedule is shorter");
        }
    }
}

#[test]
fn step_bubbles_at_4_devices_and_12_microbatches() {
    let check = |family: &'static Family, v, expected: &str| {
        let step = Case { family, p: 4, v, m: 12 }.at_unit_costs().bubble.step;
        assert_eq!(format!("{:.1}", 100.0 * step), expected, "{family} v={v}");
    };
    check(&GPIPE, 1, "20.0");
    check(&ONE_F_ONE_B, 1, "20.0");
    check(&ZB_H1, 1, "7.7");
}

proptest! {
    #[test]
    fn bubbles_are_exact_whenever_w_takes_no_longer_than_b(
        case in prop::sample::select(closed_forms()),
        (f, w, more) in (0.1..5.0, 0.0..5.0, 0.0..5.0),
    ) {
        let b = w + more;
        let simulation = case.simulate(f, b, w);
        let idle = bubble(case, f, b, w).unwrap();
        let work = f64::from(case.m) * (f + b + w);
        prop_assert!((simulation.bubble.devices[0].span_idle - idle).abs() < 1e-9);
        prop_assert!((simulation.bubble.makespan - work - idle).abs() < 1e-9);
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
