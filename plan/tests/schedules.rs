//! Promise: every schedule, at every small size, is legal, free of deadlock, within its stash, and
//! has exactly the bubble that its source states, and at other costs none above what is published;
//! and what the simulator says of any legal plan holds: its bound on the makespan, its channels'
//! capacities, its text.

#[path = "schedules/bubbles.rs"]
mod bubbles;
#[path = "schedules/faults.rs"]
mod faults;
#[path = "schedules/laws.rs"]
mod laws;
#[path = "schedules/pictures.rs"]
mod pictures;
#[path = "schedules/published.rs"]
mod published;
#[path = "schedules/random.rs"]
mod random;
#[path = "schedules/requests.rs"]
mod requests;
#[path = "schedules/stash.rs"]
mod stash;

use std::fmt;

use zerobubble_plan::{
    CheckedPlan, Costs, FAMILIES, Family, Simulation, Work, check, generate, progress, simulate,
};

/// A family at one size: p devices of v chunks, m microbatches.
#[derive(Debug, Clone, Copy)]
struct Case {
    family: &'static Family,
    p: u32,
    v: u32,
    m: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} p={} v={} m={}", self.family, self.p, self.v, self.m)
    }
}

impl Case {
    fn plan(self) -> CheckedPlan {
        let plan = generate(self.family, self.p, Some(self.v), self.m).unwrap();
        check(plan).unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// Every device spends `f`, `b` and `w` on a microbatch, evenly over its chunks.
    fn costs(self, f: f64, b: f64, w: f64) -> Costs {
        let v = f64::from(self.v);
        Costs::uniform((self.p * self.v) as usize, f / v, b / v, w / v)
    }

    fn simulate(self, f: f64, b: f64, w: f64) -> Simulation {
        simulate(&self.plan(), &self.costs(f, b, w)).unwrap()
    }

    /// Every F, B and W of a chunk takes 1, so that all times are whole numbers.
    fn at_one_per_action(self) -> Simulation {
        simulate(&self.plan(), &Costs::unit((self.p * self.v) as usize)).unwrap()
    }
}

/// Every family at p <= 8, every v <= 4 that it takes, m <= 24.
fn every_case() -> impl Iterator<Item = Case> {
    FAMILIES.iter().copied().flat_map(|family| {
        let takes = move |v: &u32| generate(family, 1, Some(*v), 1).is_ok();
        (1..=4).filter(takes).flat_map(move |v| {
            (1..=8).flat_map(move |p| (1..=24).map(move |m| Case { family, p, v, m }))
        })
    })
}

#[test]
fn every_plan_is_legal_and_ends_on_its_bounded_channels() {
    for case in every_case() {
        let (plan, simulation) = (case.plan(), case.at_one_per_action());
        progress(&plan, &simulation.channels).unwrap_or_else(|error| panic!("{case}: {error}"));
        let links = plan.plan().placement.links().count();
        assert_eq!(simulation.channels.len(), links, "{case}");
        assert!(simulation.bubble.makespan >= simulation.lower_bound - 1e-9, "{case}");
    }
}

#[test]
fn parameter_gradients_accumulate_in_ascending_order() {
    for case in every_case() {
        let plan = case.plan();
        for device in &plan.plan().lanes {
            for stage in 0..case.p * case.v {
                let adds = device
                    .iter()
                    .filter(|action| action.stage.0 == stage && action.computes(Work::W));
                let order: Vec<u32> = adds.map(|action| action.microbatch.0).collect();
                assert!(order.is_empty() || order == (0..case.m).collect::<Vec<_>>(), "{case}");
            }
        }
    }
}
