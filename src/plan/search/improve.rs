//! The search for an order on one layout: the best of many policies, then coordinate search.

use super::dispatch::{Order, Policy, dispatch};
use super::instance::Instance;
use super::policy::{change, change_count};

/// A policy and what comes of it.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    pub policy: Policy,
    pub makespan: f64,
    mean_end: f64,
}

/// What the search may still spend, in actions dispatched: no clock, so that it is deterministic.
pub(super) struct Budget(pub u64);

impl Budget {
    /// Takes one of `parts` equal parts away.
    pub fn take(&mut self, parts: u64) -> Self {
        let part = self.0 / parts;
        self.0 -= part;
        Self(part)
    }

    pub fn spend(&mut self, actions: usize) {
        self.0 = self.0.saturating_sub(actions as u64);
    }
}

/// The best of `policies`, if any fits in memory; all of them are tried, whatever the budget.
pub(super) fn best_of(
    instance: &Instance,
    policies: Vec<Policy>,
    order: &mut Order,
    budget: &mut Budget,
) -> Option<Scored> {
    let mut best: Option<Scored> = None;
    for policy in policies {
        if let Some(found) = score(instance, &policy, best.as_ref(), order, budget) {
            best = Some(found);
        }
    }
    best
}

/// Changes one number of the policy at a time, by smaller and smaller steps, for as long as that
/// helps and the budget lasts (coordinate search; Hooke and Jeeves 1961).
pub(super) fn improve(
    instance: &Instance,
    best: &mut Scored,
    first_step: f64,
    order: &mut Order,
    budget: &mut Budget,
) {
    let most = instance.microbatches as u32;
    let changes = change_count(instance.stages.len());
    let mut step = first_step;
    while step > SMALLEST_STEP {
        let (mut index, mut since) = (0, 0);
        while since < changes {
            let changed = change(&best.policy, index, step, most);
            since += 1;
            if let Some(policy) = changed {
                if budget.0 == 0 {
                    return;
                }
                if let Some(found) = score(instance, &policy, Some(best), order, budget) {
                    *best = found;
                    since = 0;
                    // The same change again.
                    continue;
                }
            }
            index = (index + 1) % changes;
        }
        step /= 2.0;
    }
}

const SMALLEST_STEP: f64 = 0.05;

/// Runs a policy; nothing unless it beats `best`: a smaller makespan, or the same and devices that
/// are done earlier.
pub(super) fn score(
    instance: &Instance,
    policy: &Policy,
    best: Option<&Scored>,
    order: &mut Order,
    budget: &mut Budget,
) -> Option<Scored> {
    let cutoff = best.map_or(f64::INFINITY, |best| best.makespan * (1.0 + TIE));
    let makespan = dispatch(instance, policy, cutoff, order);
    budget.spend(order.dispatched());
    let makespan = makespan?;
    let mean_end = order.mean_end();
    let better = best.is_none_or(|best| {
        makespan < best.makespan * (1.0 - TIE) || mean_end < best.mean_end * (1.0 - TIE)
    });
    better.then(|| Scored { policy: policy.clone(), makespan, mean_end })
}

const TIE: f64 = 1e-9;
