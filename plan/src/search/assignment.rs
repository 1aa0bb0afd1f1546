//! Where the blocks go: device orders and cuts with a small bound on the makespan.

use std::ops::Range;

use super::bound::{Encoding, Estimator, Load};
use super::groups::nearest_first;
use super::improve::Budget;
use crate::action::DeviceId;
use crate::error::Result;
use crate::place::{BlockCost, PlaceOptions, place};
use crate::placement::Placement;
use crate::simulate::StageCost;

/// A placement, and the blocks of each of its stages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    pub placement: Placement,
    pub stage_blocks: Vec<Range<usize>>,
}

/// Two partitions for a placement: the one of [`place`] for the devices' mean speeds, and the best
/// one found from there.
pub(super) fn assignments_of_placement(
    estimator: &Estimator,
    placement: &Placement,
) -> Result<Vec<Assignment>> {
    let placed = placed(estimator, placement)?;
    let mut found = placed.clone();
    improve_cuts(estimator, &mut found, rounds(placement), MOST_SHIFTED, &mut Vec::new());
    let mut encodings = vec![placed, found];
    encodings.dedup();
    Ok(encodings.iter().map(|encoding| decode(estimator, encoding)).collect())
}

/// Assignments of one pattern for several orders of the devices, the most promising first.
///
/// `pattern[s]` is the place in line of the device of stage s. The orders are the given one, the
/// fastest first and the slowest first, and where links differ one of near neighbours, each
/// improved by exchanges of two devices.
pub(super) fn assignments_of_pattern(
    estimator: &Estimator,
    pattern: &[usize],
    budget: &mut Budget,
) -> Result<Vec<Assignment>> {
    let given: Vec<usize> = (0..estimator.input.blocks.len()).collect();
    let mut fastest_first = given.clone();
    fastest_first.sort_by(|a, b| estimator.whole(*a).total_cmp(&estimator.whole(*b)));
    let slowest_first: Vec<usize> = fastest_first.iter().rev().copied().collect();
    let same = |one: &[usize], other: &[usize]| {
        one.iter().zip(other).all(|(one, other)| !differ(estimator, *one, *other))
    };
    let mut orders: Vec<Vec<usize>> = Vec::new();
    let is_uniform = estimator.input.transfers.is_uniform();
    let near = (!is_uniform).then(|| nearest_first(estimator.input));
    for order in [given, fastest_first, slowest_first].into_iter().chain(near) {
        if !orders.iter().any(|other| same(&order, other)) {
            orders.push(order);
        }
    }
    let mut found: Vec<(f64, Encoding)> = Vec::new();
    for (left, order) in (1..=orders.len() as u64).rev().zip(orders) {
        let mut share = budget.take(left);
        let (bound, encoding) = improve_order(estimator, pattern, order, &mut share)?;
        budget.0 += share.0;
        if !found.iter().any(|(_, other)| *other == encoding) {
            found.push((bound, encoding));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(found.iter().map(|(_, encoding)| decode(estimator, encoding)).collect())
}

/// Assignments that differ by one or two neighbouring cuts or by an exchange of two devices: the
/// `most` of them with the smallest bound, the smallest first.
pub(super) fn neighbours(
    estimator: &Estimator,
    of: &Assignment,
    most: usize,
    budget: &mut Budget,
) -> Vec<Assignment> {
    let encoding = encode(estimator, of);
    let (stages, devices) = (encoding.devices.len(), estimator.input.blocks.len());
    let mut loads = Vec::new();
    let mut found: Vec<(f64, Encoding)> = Vec::new();
    let mut keep = |encoding: Encoding| {
        budget.spend(stages / STAGES_PER_ACTION);
        let bound = estimator.bound(&encoding, &mut loads);
        let place = found.partition_point(|(other, _)| other.total_cmp(&bound).is_le());
        if place < most {
            found.truncate(most - 1);
            found.insert(place, (bound, encoding));
        }
    };
    for length in 1..=2.min(stages - 1) {
        for first in 1..=stages - length {
            for up in [true, false] {
                let mut shifted = encoding.clone();
                if shift(&mut shifted.cuts, first..first + length, up) {
                    keep(shifted);
                }
            }
        }
    }
    for one in 0..devices {
        for other in (one + 1..devices).filter(|other| differ(estimator, one, *other)) {
            keep(exchanged(&encoding, one, other));
        }
    }
    found.iter().map(|(_, encoding)| decode(estimator, encoding)).collect()
}

fn differ(estimator: &Estimator, one: usize, other: usize) -> bool {
    let input = estimator.input;
    let limit = |device: usize| input.memory_limits.get(device);
    let [a, b] = [one, other].map(|device| DeviceId(device as u32));
    input.blocks[one] != input.blocks[other]
        || limit(one) != limit(other)
        || !input.transfers.are_alike(a, b)
}

/// The bound and the encoding after all exchanges of two devices that help, or that the budget
/// allows.
fn improve_order(
    estimator: &Estimator,
    pattern: &[usize],
    mut order: Vec<usize>,
    budget: &mut Budget,
) -> Result<(f64, Encoding)> {
    let stages = pattern.iter().map(|at| DeviceId(order[*at] as u32)).collect();
    let placement = Placement { stages };
    let rounds = rounds(&placement);
    let mut best = placed(estimator, &placement)?;
    let mut loads = Vec::new();
    let mut least = improve_cuts(estimator, &mut best, rounds, MOST_SHIFTED, &mut loads);
    loop {
        let before = least;
        for i in 0..order.len() {
            for j in (i + 1)..order.len() {
                if budget.0 == 0 || !differ(estimator, order[i], order[j]) {
                    continue;
                }
                let mut encoding = exchanged(&best, order[i], order[j]);
                let bounds = 1 + 4 * pattern.len();
                budget.spend(bounds * pattern.len() / STAGES_PER_ACTION);
                let bound = improve_cuts(estimator, &mut encoding, 1, 2, &mut loads);
                if bound < least {
                    (least, best) = (bound, encoding);
                    order.swap(i, j);
                }
            }
        }
        least = improve_cuts(estimator, &mut best, rounds, MOST_SHIFTED, &mut loads);
        if least >= before * (1.0 - WORTHWHILE) || budget.0 == 0 {
            return Ok((least, best));
        }
    }
}

/// How often all cuts of a placement are gone through at most.
fn rounds(placement: &Placement) -> usize {
    let stages = placement.stage_count();
    (STAGES_OF_CUTS / (2 * MOST_SHIFTED * stages * stages)).max(1)
}

/// Shifts adjacent cuts together by one while that lowers the bound; returns the bound.
fn improve_cuts(
    estimator: &Estimator,
    encoding: &mut Encoding,
    rounds: usize,
    most_shifted: usize,
    loads: &mut Vec<Load>,
) -> f64 {
    let mut least = estimator.bound(encoding, loads);
    let stages = encoding.devices.len();
    for _ in 0..rounds {
        let before = least;
        for length in 1..=most_shifted.min(stages - 1) {
            for first in 1..=stages - length {
                for up in [true, false] {
                    let shifted = first..first + length;
                    if !shift(&mut encoding.cuts, shifted.clone(), up) {
                        continue;
                    }
                    let bound = estimator.bound(encoding, loads);
                    if bound < least {
                        least = bound;
                    } else {
                        shift(&mut encoding.cuts, shifted, !up);
                    }
                }
            }
        }
        if least >= before {
            break;
        }
    }
    least
}

/// The partition of [`place`], with devices as fast as they are on all blocks together.
fn placed(estimator: &Estimator, placement: &Placement) -> Result<Encoding> {
    let input = estimator.input;
    let block = |block: &StageCost| BlockCost { time: block.time, bytes: block.bytes.fixed };
    let blocks: Vec<BlockCost> = input.blocks[0].iter().map(block).collect();
    let crossing: Vec<u64> = input
        .crossings
        .iter()
        .map(|crossing| crossing.activation_bytes.saturating_add(crossing.gradient_bytes))
        .collect();
    let speed = |device: &DeviceId| {
        let (own, first) = (estimator.whole(device.index()), estimator.whole(0));
        if own > 0.0 && first > 0.0 { first / own } else { 1.0 }
    };
    let speeds: Vec<f64> = placement.stages.iter().map(speed).collect();
    let options = PlaceOptions {
        marks: input.marks.clone(),
        memory_limits: Vec::new(),
        byte_costs: input.transfers.byte_costs(placement),
    };
    let stage_blocks = place(&blocks, &crossing, &speeds, &options)?.stage_blocks;
    Ok(encode(estimator, &Assignment { placement: placement.clone(), stage_blocks }))
}

fn encode(estimator: &Estimator, assignment: &Assignment) -> Encoding {
    let end =
        |part: &Range<usize>| estimator.ends.binary_search(&part.end).expect("cut where allowed");
    Encoding {
        devices: assignment.placement.stages.iter().map(|device| device.index()).collect(),
        cuts: [0].into_iter().chain(assignment.stage_blocks.iter().map(end)).collect(),
    }
}

fn decode(estimator: &Estimator, encoding: &Encoding) -> Assignment {
    let block = |end: usize| estimator.ends[end];
    let stages = encoding.devices.iter().map(|device| DeviceId(*device as u32)).collect();
    Assignment {
        placement: Placement { stages },
        stage_blocks: encoding.cuts.windows(2).map(|cut| block(cut[0])..block(cut[1])).collect(),
    }
}

/// Moves adjacent cuts by one; whether every stage keeps a block.
fn shift(cuts: &mut [usize], shifted: Range<usize>, up: bool) -> bool {
    let (before, after) = (cuts[shifted.start - 1], cuts[shifted.end]);
    if up {
        if cuts[shifted.end - 1] + 1 >= after {
            return false;
        }
        cuts[shifted].iter_mut().for_each(|cut| *cut += 1);
    } else {
        if before + 1 >= cuts[shifted.start] {
            return false;
        }
        cuts[shifted].iter_mut().for_each(|cut| *cut -= 1);
    }
    true
}

/// Two devices change places, and each takes as many blocks along as it has.
fn exchanged(encoding: &Encoding, one: usize, other: usize) -> Encoding {
    let sizes = |of: usize| {
        let held = encoding.devices.iter().zip(encoding.cuts.windows(2));
        held.filter(move |(device, _)| **device == of).map(|(_, cut)| cut[1] - cut[0])
    };
    let (mut of_one, mut of_other) = (sizes(one), sizes(other));
    let (mut devices, mut cuts) = (Vec::new(), vec![0]);
    let mut end = 0;
    for (&device, cut) in encoding.devices.iter().zip(encoding.cuts.windows(2)) {
        let (device, size) = if device == one {
            (other, of_other.next())
        } else if device == other {
            (one, of_one.next())
        } else {
            (device, None)
        };
        // Placements in which two devices hold different numbers of chunks are not searched.
        end += size.unwrap_or(cut[1] - cut[0]);
        devices.push(device);
        cuts.push(end);
    }
    Encoding { devices, cuts }
}

/// The most neighbouring cuts that are shifted together.
const MOST_SHIFTED: usize = 4;
/// Exchanges go on while a round of them lowers the bound by this fraction.
const WORTHWHILE: f64 = 1e-3;
/// How many stages are weighed for the cuts of one placement at most.
const STAGES_OF_CUTS: usize = 1 << 27;
/// In the time that dispatching an action takes, a bound gets this far.
const STAGES_PER_ACTION: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchInput;
    use crate::search::bound::OTHERS;
    use crate::{
        BoundaryCost, Costs, GPIPE, PerWork, TransferCost, Transfers, check, generate, simulate,
        sum_of_blocks,
    };
    use proptest::prelude::*;

    prop_compose! {
        fn any_input()(
            devices in 1usize..5,
            blocks_per_device in 1usize..5,
            times in prop::collection::vec(0.1..2.0, 16),
            speeds in prop::collection::vec(0.5..2.0, 4),
            transfer in 0.0..0.5,
            links in prop_oneof![Just(vec![1.0; 16]), prop::collection::vec(0.0..2.0, 16)],
            marks in prop::collection::btree_set(1usize..16, 3..12),
        ) -> SearchInput {
            let n = devices * blocks_per_device;
            let block = |k: usize, speed: f64| StageCost {
                time: PerWork([times[k], 1.0, times[15 - k]]).map(|time| time / speed),
                ..StageCost::default()
            };
            let on = |speed: &f64| (0..n).map(|k| block(k, *speed)).collect();
            let marks: Vec<usize> = marks.into_iter().filter(|k| *k < n).collect();
            SearchInput {
                blocks: speeds[..devices].iter().map(on).collect(),
                crossings: vec![BoundaryCost::default(); n - 1],
                transfers: Transfers::from_fn(devices, |from, to| {
                    TransferCost::of_any_size(transfer * links[4 * from.index() + to.index()])
                }),
                marks: if marks.len() < devices { Vec::new() } else { marks },
                microbatches: 5,
                memory_limits: Vec::new(),
            }
        }
    }

    proptest! {
        #[test]
        fn assignments_have_all_blocks_in_order_and_cuts_where_allowed(input in any_input()) {
            let estimator = Estimator::new(&input);
            let (p, n) = (input.blocks.len(), input.blocks[0].len());
            let folded: Vec<usize> = (0..p).chain((0..p).rev()).collect();
            for pattern in [(0..p).collect(), folded] {
                if !estimator.can_fill(pattern.len()) {
                    continue;
                }
                let mut budget = Budget(10_000);
                let mut assignments =
                    assignments_of_pattern(&estimator, &pattern, &mut budget).unwrap();
                let (of, most) = (assignments[0].clone(), usize::MAX);
                assignments.extend(neighbours(&estimator, &of, most, &mut budget));
                for Assignment { placement, stage_blocks } in assignments {
                    prop_assert_eq!(placement.device_count(), p);
                    prop_assert!(stage_blocks.iter().all(|cut| !cut.is_empty()));
                    let covered: Vec<usize> = stage_blocks.iter().cloned().flatten().collect();
                    prop_assert_eq!(covered, (0..n).collect::<Vec<_>>());
                    let marked = |cut: &Range<usize>| input.marks.contains(&cut.start);
                    prop_assert!(input.marks.is_empty() || stage_blocks[1..].iter().all(marked));
                }
            }
        }

        #[test]
        fn without_a_memory_limit_a_bound_is_no_more_than_the_lower_bound(input in any_input()) {
            let estimator = Estimator::new(&input);
            let plan = generate(&GPIPE, input.blocks.len() as u32, None, input.microbatches);
            let plan = check(plan.unwrap()).unwrap();
            let placement = &plan.plan().placement;
            for assignment in assignments_of_placement(&estimator, placement).unwrap() {
                let Assignment { placement, stage_blocks } = &assignment;
                let costs: Costs = sum_of_blocks(&input, placement, stage_blocks).unwrap();
                let lower_bound = simulate(&plan, &costs).unwrap().lower_bound;
                let bound = estimator.bound(&encode(&estimator, &assignment), &mut Vec::new());
                prop_assert!(bound <= lower_bound * (1.0 + OTHERS) + 1e-9);
            }
        }
    }
}
