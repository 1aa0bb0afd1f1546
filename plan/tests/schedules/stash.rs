//! The most that any device holds between F and W, in chunks of microbatches: v of them are one
//! microbatch of the device.

use super::{Case, every_case};

/// Device i of `case` holds at most so many chunks at its peak.
fn bound(case: Case, i: u32) -> u32 {
    let Case { family, p, v, m } = case;
    let most = match family.name {
        "gpipe" | "looped-bfs" => m * v,
        "1f1b" => p - i,
        "interleaved-1f1b" => p * v + p - 1 - 2 * i,
        "zb-h1" => p,
        "zb-h2" => 2 * p - 1,
        "zb-v" => 2 * p,
        "v-half" => 2 * ((p + 2) / 2),
        "v-min" => 2 * ((p + 4) / 3),
        "dualpipe-v" => 2 * p + 1,
        "forward-only" => 1,
        name => panic!("no stash is known for {name}"),
    };
    most.min(m * v)
}

/// Whether every device reaches its bound, and not the fullest device alone or none.
fn is_exact(case: Case) -> bool {
    match case.family.name {
        // A last round that is not whole leaves some of its turns empty.
        "interleaved-1f1b" => case.m.is_multiple_of(case.p),
        "zb-v" | "v-half" | "v-min" | "dualpipe-v" => false,
        _ => true,
    }
}

#[test]
fn every_plan_keeps_its_stash_bound() {
    for case in every_case() {
        let memory = case.at_one_per_action().memory;
        let chunks = f64::from(case.v);
        let found: Vec<f64> = memory.iter().map(|device| device.peak_stash * chunks).collect();
        let bounds: Vec<f64> = (0..case.p).map(|i| bound(case, i).into()).collect();
        if is_exact(case) {
            assert!(
                found.iter().zip(&bounds).all(|(a, b)| (a - b).abs() < 1e-9),
                "{case}: {found:?}"
            );
        }
        let fits = found.iter().zip(&bounds).all(|(found, bound)| *found <= bound + 1e-9);
        assert!(fits, "{case}: {found:?} of {bounds:?}");
        let fullest = |chunks: &[f64]| chunks.iter().copied().fold(0.0, f64::max);
        if case.m >= 2 * case.p {
            assert!((fullest(&found) - fullest(&bounds)).abs() < 1e-9, "{case}: {found:?}");
        }
    }
}
