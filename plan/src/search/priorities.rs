//! Where the search for an order starts: the timetable of an unhindered pipeline, and variations.

use super::dispatch::Priorities;
use super::instance::Instance;
use crate::work::{PerWork, Work};

/// How priorities differ from the unhindered timetable.
#[derive(Debug, Clone, Copy)]
struct Variant {
    /// How many microbatches are between F and B: so many times as in the unhindered timetable...
    ahead_factor: f64,
    /// ...and so many more.
    ahead_more: u32,
    /// Whether every B that is ready comes before every F.
    b_first: bool,
    /// How many cycles W is due after B.
    w_lag: f64,
    /// See [`Priorities::wait_fraction`].
    wait_fraction: f64,
}

const NO_LIMIT: f64 = f64::INFINITY;

/// What to try on every assignment.
pub(super) fn few(instance: &Instance) -> Vec<Priorities> {
    let base = Variant {
        ahead_factor: 1.0,
        ahead_more: 1,
        b_first: true,
        w_lag: NO_LIMIT,
        wait_fraction: 0.5,
    };
    let more = Variant { ahead_factor: 1.5, ..base };
    let eager = Variant { ahead_factor: NO_LIMIT, b_first: false, ..base };
    variations(instance, &[base, more, eager, Variant { w_lag: 1.0, b_first: false, ..base }])
}

/// What to try on the best assignments.
pub(super) fn many(instance: &Instance) -> Vec<Priorities> {
    let mut variants = Vec::new();
    for (ahead_factor, ahead_more) in
        [(1.0, 0), (1.0, 1), (1.0, 2), (1.5, 0), (2.0, 0), (NO_LIMIT, 0)]
    {
        for (b_first, w_lag) in
            [(true, NO_LIMIT), (true, 1.0), (false, NO_LIMIT), (false, 1.0), (false, 0.0)]
        {
            for wait_fraction in [0.0, 0.5, 1.0] {
                variants.push(Variant { ahead_factor, ahead_more, b_first, w_lag, wait_fraction });
            }
        }
    }
    variations(instance, &variants)
}

fn variations(instance: &Instance, variants: &[Variant]) -> Vec<Priorities> {
    let cycle = instance.cycle();
    let ready = unhindered(instance);
    let mut variations: Vec<Priorities> = Vec::new();
    for variant in variants {
        // Further apart than any two microbatches.
        let far = (instance.microbatches + 1) as f64 * cycle;
        let offsets = ready.iter().map(|Ready { f, b }| {
            let b_offset = if variant.b_first { b - far } else { *b };
            PerWork([*f, b_offset, b + far.min(variant.w_lag * cycle)])
        });
        let ahead = ready.iter().map(|Ready { f, b }| {
            let cycles = if cycle > 0.0 { ((b - f) / cycle).floor() + 1.0 } else { 1.0 };
            // A cast saturates.
            ((cycles * variant.ahead_factor) as u32).saturating_add(variant.ahead_more)
        });
        let priorities = Priorities {
            cycle,
            offsets: offsets.collect(),
            ahead: ahead.map(|ahead| ahead.clamp(1, instance.microbatches as u32)).collect(),
            wait_fraction: variant.wait_fraction,
        };
        if !variations.contains(&priorities) {
            variations.push(priorities);
        }
    }
    variations
}

/// When a single microbatch is ready for F and for B of a stage.
#[derive(Clone, Copy, Default)]
struct Ready {
    f: f64,
    b: f64,
}

/// The same of every stage, in a pipeline that nothing else hinders.
fn unhindered(instance: &Instance) -> Vec<Ready> {
    let stages = &instance.stages;
    let mut ready = vec![Ready::default(); stages.len()];
    for s in 1..stages.len() {
        let below = &stages[s - 1];
        ready[s].f = ready[s - 1].f + below.time[Work::F] + below.transfer_up;
    }
    let top = stages.len() - 1;
    ready[top].b = ready[top].f + stages[top].time[Work::F];
    for s in (0..top).rev() {
        let above = &stages[s + 1];
        ready[s].b = ready[s + 1].b + above.time[Work::B] + above.transfer_down;
    }
    ready
}

/// How many changes [`change`] knows for priorities of so many stages.
pub(super) fn change_count(stages: usize) -> usize {
    CHANGES_OF_ALL + CHANGES * (2 * stages.next_power_of_two() - 1)
}

/// Change number `index` of priorities, by `step` cycles; nothing where it would change nothing.
///
/// The first change `wait_fraction`. The others move F, B or W of some neighbouring stages earlier
/// or later, or let their F run further ahead: of all stages, of each half, of each quarter, and so
/// on to every stage alone.
pub(super) fn change(
    priorities: &Priorities,
    index: usize,
    step: f64,
    most: u32,
) -> Option<Priorities> {
    let mut changed = priorities.clone();
    let sign = if index.is_multiple_of(2) { 1.0 } else { -1.0 };
    let Some(index) = index.checked_sub(CHANGES_OF_ALL) else {
        changed.wait_fraction = (priorities.wait_fraction + sign * step / 2.0).clamp(0.0, 1.0);
        return (changed != *priorities).then_some(changed);
    };
    let stages = priorities.offsets.len();
    let (part, what) = (index / CHANGES + 1, index % CHANGES / 2);
    // Parts are numbered as in a heap: 1 is all, 2 and 3 are the halves.
    let parts = 1 << part.ilog2();
    let range = (part - parts) * stages / parts..(part - parts + 1) * stages / parts;
    for stage in range {
        if let Some(work) = Work::ALL.get(what) {
            changed.offsets[stage][*work] += sign * step * priorities.cycle;
        } else {
            let ahead = &mut changed.ahead[stage];
            *ahead = ahead.saturating_add_signed(sign as i32).clamp(1, most);
        }
    }
    (changed != *priorities).then_some(changed)
}

const CHANGES_OF_ALL: usize = 2;
/// Of a part of the stages: F, B, W and how far ahead F is, each up and down.
const CHANGES: usize = 2 * (Work::ALL.len() + 1);
