//! The search for an order on one assignment: the best of several priorities, then coordinate
//! search.

use super::dispatch::{Order, Priorities, dispatch};
use super::instance::Instance;
use super::priorities::{change, change_count};

/// What the search may still spend, in actions dispatched.
#[derive(Debug)]
pub(super) struct Budget(pub u64);

/// Priorities and what comes of them.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    pub priorities: Priorities,
    pub makespan: f64,
    mean_end: f64,
}

impl Budget {
    /// Takes one of `parts` equal parts away.
    pub fn take(&mut self, parts: u64) -> Self {
        let part = self.0 / parts;
        self.0 -= part;
        Self(part)
    }

    /// Counts actions that were dispatched.
    pub fn spend(&mut self, actions: usize) {
        self.0 = self.0.saturating_sub(actions as u64);
    }
}

/// The best of `variations`, if any fits in memory. All are tried while the budget lasts, and the
/// first whatever it is.
pub(super) fn best_of(
    instance: &Instance,
    variations: &[Priorities],
    order: &mut Order,
    budget: &mut Budget,
) -> Option<Scored> {
    let mut best = None;
    for (tried, priorities) in variations.iter().enumerate() {
        if tried > 0 && budget.0 == 0 {
            break;
        }
        best = score(instance, priorities, best.as_ref(), order, budget).or(best);
    }
    best
}

/// Changes priorities for as long as that helps and the budget lasts: first by `step` cycles, then
/// by half of it, and so on (coordinate search; Hooke and Jeeves 1961).
pub(super) fn improve(
    instance: &Instance,
    best: &mut Scored,
    mut step: f64,
    order: &mut Order,
    budget: &mut Budget,
) {
    let most = instance.microbatches as u32;
    let changes = change_count(instance.stages.len());
    while step >= SMALLEST_STEP {
        let (mut index, mut in_vain) = (0, 0);
        while in_vain < changes {
            if budget.0 == 0 {
                return;
            }
            let changed = change(&best.priorities, index, step, most);
            let found = changed
                .and_then(|priorities| score(instance, &priorities, Some(best), order, budget));
            if let Some(found) = found {
                // What has helped is tried again.
                *best = found;
                in_vain = 0;
            } else {
                in_vain += 1;
                index = (index + 1) % changes;
            }
        }
        step /= 2.0;
    }
}

/// Runs priorities; nothing unless they beat `best`: by a smaller makespan, or by the same and
/// devices that are done earlier.
pub(super) fn score(
    instance: &Instance,
    priorities: &Priorities,
    best: Option<&Scored>,
    order: &mut Order,
    budget: &mut Budget,
) -> Option<Scored> {
    let cutoff = best.map_or(f64::INFINITY, |best| best.makespan * (1.0 + TIE));
    let makespan = dispatch(instance, priorities, cutoff, order);
    budget.spend(order.dispatched());
    let (makespan, mean_end) = (makespan?, order.mean_end());
    let better = best.is_none_or(|best| {
        makespan < best.makespan * (1.0 - TIE) || mean_end < best.mean_end * (1.0 - TIE)
    });
    better.then(|| Scored { priorities: priorities.clone(), makespan, mean_end })
}

/// Makespans are the same within this fraction.
const TIE: f64 = 1e-9;
const SMALLEST_STEP: f64 = 1.0 / 16.0;
