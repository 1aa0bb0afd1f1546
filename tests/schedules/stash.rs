//! The most microbatches that any device holds between F and W.

use super::{Case, every_case};

/// The peak stash of device i.
fn stash(case: Case, i: u32) -> f64 {
    let Case { family, p, m, .. } = case;
    f64::from(match family.name {
        "gpipe" => m,
        "1f1b" => m.min(p - i),
        "zb-h1" => m.min(p),
        name => panic!("no stash is known for {name}"),
    })
}

#[test]
fn every_plan_keeps_its_stash_bound() {
    for case in every_case() {
        let memory = case.at_unit_costs().memory;
        let found: Vec<f64> = memory.iter().map(|device| device.peak_stash).collect();
        let expected: Vec<f64> = (0..case.p).map(|i| stash(case, i)).collect();
        assert_eq!(found, expected, "{case}");
    }
}
