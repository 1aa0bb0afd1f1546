//! Groups of devices with fast links among them, so that few parcels cross a slow one.
//!
//! A loop or a V over all devices crosses every link between neighbours once or more for each
//! chunk. Where some of them are slow, the devices before and after such a link do better with a
//! loop or a V of their own: the pipeline then crosses it once, however many chunks there are.

use super::SearchInput;
use crate::action::DeviceId;

/// An order of the devices in which each is followed by the one that is nearest to it.
pub(super) fn nearest_first(input: &SearchInput) -> Vec<usize> {
    let p = input.blocks.len();
    let starts = if p <= MOST_STARTS { p } else { 1 };
    let length = |order: &Vec<usize>| {
        order.windows(2).map(|pair| there_and_back(input, pair[0], pair[1])).sum::<f64>()
    };
    let chains = (0..starts).map(|start| chain(input, start));
    chains.min_by(|a, b| length(a).total_cmp(&length(b))).unwrap_or_default()
}

fn chain(input: &SearchInput, start: usize) -> Vec<usize> {
    let mut order = vec![start];
    let mut left: Vec<usize> = (0..input.blocks.len()).filter(|device| *device != start).collect();
    while let Some(&last) = order.last()
        && !left.is_empty()
    {
        let distance = |device: &usize| there_and_back(input, last, *device);
        let nearest = (0..left.len())
            .min_by(|a, b| distance(&left[*a]).total_cmp(&distance(&left[*b])))
            .expect("some are left");
        order.push(left.remove(nearest));
    }
    order
}

/// Patterns of stages that cross slow links once: places in line, of which `order` says the
/// devices. None where no link is much slower than the others.
pub(super) fn patterns(input: &SearchInput, order: &[usize]) -> Vec<Vec<usize>> {
    let times: Vec<f64> =
        order.windows(2).map(|pair| there_and_back(input, pair[0], pair[1])).collect();
    let mut slowest: Vec<usize> = (0..times.len()).collect();
    slowest.sort_by(|a, b| times[*b].total_cmp(&times[*a]));
    let mut patterns = Vec::new();
    for count in 1..slowest.len().min(MOST_SLOW + 1) {
        let (least, next) = (times[slowest[count - 1]], times[slowest[count]]);
        if least <= MUCH_SLOWER * next {
            continue;
        }
        let mut ends: Vec<usize> = slowest[..count].iter().map(|at| at + 1).collect();
        ends.push(order.len());
        ends.sort_unstable();
        let starts = [0].into_iter().chain(ends.iter().copied());
        let groups: Vec<_> = starts.zip(&ends).map(|(start, end)| start..*end).collect();
        for chunks in 2..=MOST_CHUNKS {
            let loops = groups.iter().flat_map(|group| (0..chunks).flat_map(|_| group.clone()));
            patterns.push(loops.collect());
        }
        // The first group ends its V where the second one begins.
        let first = groups[0].clone().rev().chain(groups[0].clone());
        let others = groups[1..].iter().flat_map(|of| of.clone().chain(of.clone().rev()));
        patterns.push(first.chain(others).collect());
    }
    patterns
}

/// What the largest activation and the largest gradient take between two devices.
fn there_and_back(input: &SearchInput, one: usize, other: usize) -> f64 {
    let [one, other] = [one, other].map(|device| DeviceId(device as u32));
    let parcels = input.crossings.iter().map(|of| of.activation_bytes.max(of.gradient_bytes));
    let bytes = parcels.max().unwrap_or(0);
    input.transfers.time(one, other, bytes) + input.transfers.time(other, one, bytes)
}

/// A link is slow if it takes so many times as long as those that are not.
const MUCH_SLOWER: f64 = 2.0;
/// How many slow links are parted at, at most.
const MOST_SLOW: usize = 3;
/// Chunks of a loop of a group's devices, at most.
const MOST_CHUNKS: usize = 3;
/// Of more devices one order is tried, that of the first.
const MOST_STARTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoundaryCost, StageCost, TransferCost, Transfers};

    fn input(devices: usize, transfers: Transfers) -> SearchInput {
        SearchInput {
            blocks: vec![vec![StageCost::default(); devices]; devices],
            crossings: vec![BoundaryCost::default(); devices - 1],
            transfers,
            marks: Vec::new(),
            microbatches: 1,
            memory_limits: Vec::new(),
        }
    }

    #[test]
    fn a_slow_link_is_crossed_once() {
        let times = [1.0, 20.0, 1.0].map(TransferCost::of_any_size);
        let input = input(4, Transfers::along_a_line(&times));
        let order = nearest_first(&input);
        assert_eq!(order, [0, 1, 2, 3]);
        let expected = [
            vec![0, 1, 0, 1, 2, 3, 2, 3],
            vec![0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3],
            vec![1, 0, 0, 1, 2, 3, 3, 2],
        ];
        assert_eq!(patterns(&input, &order), expected);
    }

    #[test]
    fn devices_of_a_group_stand_together_wherever_they_are() {
        let apart = |from: DeviceId, to: DeviceId| {
            TransferCost::of_any_size(if from.0 % 2 == to.0 % 2 { 1.0 } else { 9.0 })
        };
        let input = input(4, Transfers::from_fn(4, apart));
        let order = nearest_first(&input);
        assert_eq!(order, [0, 2, 1, 3]);
        assert_eq!(patterns(&input, &order).len(), 3);
    }

    #[test]
    fn links_that_are_about_as_slow_make_no_groups() {
        let times = [1.0, 1.9, 1.0].map(TransferCost::of_any_size);
        let input = input(4, Transfers::along_a_line(&times));
        assert!(patterns(&input, &nearest_first(&input)).is_empty());
    }
}
