//! Blocks -> stages: a contiguous partition that minimises the slowest stage.
//!
//! Exact, by dynamic programming over prefixes: the linear partition problem (Skiena, "The
//! Algorithm Design Manual", section on partitioning), O(stages x blocks^2).

use std::ops::Range;

use super::action::StageId;
use super::work::PerWork;
use crate::error::{Error, Result};

/// What one block costs per microbatch, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BlockCost {
    /// Times of F, B and W.
    pub time: PerWork<f64>,
    /// Memory on its device.
    pub bytes: u64,
}

/// What a partition must keep to. The default is free.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlaceOptions {
    /// Where the user allows a cut: k is between block k - 1 and block k. Empty allows all.
    pub marks: Vec<usize>,
    /// Bytes that every stage may hold; the index is the [`StageId`]. Empty limits none.
    pub memory_limits: Vec<u64>,
    /// What a byte costs that crosses between stage s and stage s + 1. Empty, or where bytes come
    /// to the same cost, all bytes count alike.
    pub byte_costs: Vec<f64>,
}

/// A contiguous partition of blocks into stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// The blocks of every stage; the index is the [`StageId`].
    pub stage_blocks: Vec<Range<usize>>,
    /// Time of the slowest stage: its blocks' cost over its speed.
    pub slowest: f64,
    /// Bytes that cross from stage to stage, summed over the cuts.
    pub crossing_bytes: u64,
}

/// Cuts `blocks` into one stage per entry of `speeds`, so that the slowest stage is as fast as can
/// be, and among such partitions what crosses costs the least, and then the fewest bytes cross.
///
/// `crossing_bytes[k]` is what crosses between block k and block k + 1. A speed of 2 halves the
/// time of a stage. Every stage gets a block.
///
/// # Errors
///
/// When a time or a speed cannot be used, lengths differ, there are fewer blocks or marks than the
/// stages need, or no cut is within the memory limits; then it names the stage and its bytes.
pub fn place(
    blocks: &[BlockCost],
    crossing_bytes: &[u64],
    speeds: &[f64],
    options: &PlaceOptions,
) -> Result<Partition> {
    check_input(blocks, crossing_bytes, speeds, options)?;
    let allowed = allowed_cuts(blocks.len(), speeds.len(), &options.marks)?;
    // Prefix sums: blocks a..b take times[b] - times[a].
    let mut times = vec![0.0; blocks.len() + 1];
    let mut bytes = vec![0u128; blocks.len() + 1];
    for (i, block) in blocks.iter().enumerate() {
        times[i + 1] = times[i] + block.time.total();
        bytes[i + 1] = bytes[i] + u128::from(block.bytes);
    }
    let time =
        |stage: usize, part: &Range<usize>| (times[part.end] - times[part.start]) / speeds[stage];
    let excess = |stage: usize, part: &Range<usize>| {
        let held = bytes[part.end] - bytes[part.start];
        options.memory_limits.get(stage).map_or(0, |limit| held.saturating_sub(u128::from(*limit)))
    };
    let (worst, stages) =
        best(&allowed, speeds.len(), 0, RISES, |s, part| Some(excess(s, part)), u128::max)
            .expect("the allowed cuts are enough for the stages");
    if worst > 0 {
        return Err(does_not_fit(&stages, &bytes, &options.memory_limits));
    }
    let fits = |stage: usize, part: &Range<usize>| excess(stage, part) == 0;
    let fitting = |stage: usize, part: &Range<usize>| fits(stage, part).then(|| time(stage, part));
    let (slowest, _) = best(&allowed, speeds.len(), 0.0, RISES, fitting, f64::max)
        .expect("some cut fits in memory");
    let crossing = |stage: usize, part: &Range<usize>| {
        let bytes = part.start.checked_sub(1).map_or(0, |k| crossing_bytes[k]);
        let cost = stage.checked_sub(1).and_then(|below| options.byte_costs.get(below));
        (cost.map_or(0.0, |cost| cost * bytes as f64), bytes)
    };
    let fast = |stage: usize, part: &Range<usize>| {
        (fits(stage, part) && time(stage, part) <= slowest).then(|| crossing(stage, part))
    };
    let both = |a: (f64, u64), b: (f64, u64)| (a.0 + b.0, a.1.saturating_add(b.1));
    let ((_, crossing_bytes), stage_blocks) =
        best(&allowed, speeds.len(), (0.0, 0), !RISES, fast, both)
            .expect("the cut that set the slowest stage is as fast");
    Ok(Partition { stage_blocks, slowest, crossing_bytes })
}

fn check_input(
    blocks: &[BlockCost],
    crossing_bytes: &[u64],
    speeds: &[f64],
    options: &PlaceOptions,
) -> Result<()> {
    let (n, p) = (blocks.len(), speeds.len());
    if p == 0 || n < p {
        return Err(Error::config(format!("{n} blocks cannot fill {p} stages"))
            .hint(format!("between 1 and {n} stages, or a model of more blocks")));
    }
    if crossing_bytes.len() + 1 != n {
        let found = crossing_bytes.len();
        return Err(Error::config(format!("{found} crossings between {n} blocks")));
    }
    if !options.memory_limits.is_empty() && options.memory_limits.len() != p {
        let found = options.memory_limits.len();
        return Err(Error::config(format!("{found} memory limits for {p} stages")));
    }
    let usable = |time: f64| time.is_finite() && time >= 0.0;
    let costs = &options.byte_costs;
    if !costs.is_empty() && costs.len() + 1 != p {
        let found = costs.len();
        return Err(Error::config(format!("{found} costs of bytes between {p} stages")));
    }
    if let Some(cost) = costs.iter().find(|cost| !usable(**cost)) {
        return Err(Error::config(format!("{cost} is not what a byte costs")));
    }
    for (k, block) in blocks.iter().enumerate() {
        if let Some(time) = block.time.0.into_iter().find(|time| !usable(*time)) {
            return Err(Error::config(format!("block {k}: {time} is not a time")));
        }
    }
    let total: f64 = blocks.iter().map(|block| block.time.total()).sum();
    if !total.is_finite() {
        return Err(Error::config("the blocks' times add up to no finite number"));
    }
    match speeds.iter().position(|speed| !usable(*speed) || *speed == 0.0) {
        Some(stage) => Err(Error::config(format!("{} is not a speed", speeds[stage]))
            .in_stage(StageId(stage as u32))),
        None => Ok(()),
    }
}

/// Whether a stage may end before block k, at k. The end of the last block is always one.
fn allowed_cuts(blocks: usize, stages: usize, marks: &[usize]) -> Result<Vec<bool>> {
    if let Some(mark) = marks.iter().find(|mark| !(1..blocks).contains(*mark)) {
        return Err(Error::config(format!(
            "boundary {mark} is not between two of {blocks} blocks"
        ))
        .hint(format!("1 to {}", blocks - 1)));
    }
    let mut allowed = vec![marks.is_empty(); blocks + 1];
    marks.iter().for_each(|mark| allowed[*mark] = true);
    let parts = 1 + (1..blocks).filter(|k| allowed[*k]).count();
    if parts < stages {
        return Err(Error::config(format!(
            "the marked boundaries cut the model in {parts}, too few for {stages} stages"
        ))
        .hint(format!("{parts} stages, or more boundaries, or none to cut anywhere")));
    }
    allowed[blocks] = true;
    Ok(allowed)
}

/// The partition with the least value, if any is possible: `weigh` values a stage, or forbids it,
/// and `combine` joins the values of all stages, never to less than either. Of equals it takes the
/// shortest last stages.
///
/// What is forbidden stays so with more blocks. With `rises` more blocks are never of less value
/// either: then nothing beyond a stage that is as much as the best whole is tried.
fn best<V: Copy + PartialOrd>(
    allowed: &[bool],
    stages: usize,
    zero: V,
    rises: bool,
    weigh: impl Fn(usize, &Range<usize>) -> Option<V>,
    combine: impl Fn(V, V) -> V,
) -> Option<(V, Vec<Range<usize>>)> {
    let blocks = allowed.len() - 1;
    assert!((1..=blocks).contains(&stages), "{stages} stages of {blocks} blocks");
    // least[end]: the least value of the stages so far, when they hold exactly blocks 0..end.
    let mut least = vec![None; blocks + 1];
    least[0] = Some(zero);
    let mut starts = vec![vec![0; blocks + 1]; stages];
    for (stage, start_of) in starts.iter_mut().enumerate() {
        let mut with_stage: Vec<Option<V>> = vec![None; blocks + 1];
        for end in (stage + 1..=blocks).filter(|end| allowed[*end]) {
            for start in (stage..end).rev() {
                let Some(value) = weigh(stage, &(start..end)) else { break };
                if rises && with_stage[end].is_some_and(|best| value >= best) {
                    break;
                }
                let Some(before) = least[start] else { continue };
                let value = combine(before, value);
                if with_stage[end].is_none_or(|best| value < best) {
                    (with_stage[end], start_of[end]) = (Some(value), start);
                }
            }
        }
        least = with_stage;
    }
    let value = least[blocks]?;
    let mut end = blocks;
    let mut parts: Vec<Range<usize>> = starts
        .iter()
        .rev()
        .map(|start_of| {
            let part = start_of[end]..end;
            end = part.start;
            part
        })
        .collect();
    parts.reverse();
    assert_eq!(end, 0, "stages leave blocks out: {parts:?}");
    Some((value, parts))
}

/// See [`best`].
const RISES: bool = true;

/// `stages` is the partition that exceeds its limits the least; so no partition fits.
fn does_not_fit(stages: &[Range<usize>], bytes: &[u128], limits: &[u64]) -> Error {
    let held = |part: &Range<usize>| bytes[part.end] - bytes[part.start];
    let (stage, (part, limit)) = (0u32..)
        .map(StageId)
        .zip(stages.iter().zip(limits))
        .max_by_key(|(_, (part, limit))| held(part).saturating_sub(u128::from(**limit)))
        .expect("there is a stage");
    let need = held(part);
    let last = part.end - 1;
    Error::plan(format!(
        "blocks {} to {last} need {need} bytes, the limit is {limit}, and no other cut fits better",
        part.start
    ))
    .in_stage(stage)
    .hint(format!("a limit of {need} bytes, more devices, or a smaller microbatch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(costs: &[(u32, u64)]) -> Vec<BlockCost> {
        let block = |(time, bytes): &(u32, u64)| BlockCost {
            time: PerWork([f64::from(*time), 0.0, 0.0]),
            bytes: *bytes,
        };
        costs.iter().map(block).collect()
    }

    /// What crosses at these cuts costs.
    fn cost_of_cuts(
        cuts: impl Iterator<Item = usize>,
        crossing: &[u64],
        options: &PlaceOptions,
    ) -> f64 {
        let costs = options.byte_costs.iter();
        costs.zip(cuts).map(|(cost, cut)| cost * crossing[cut - 1] as f64).sum()
    }

    /// Tries every way to cut; the least (slowest, cost of what crosses, crossing bytes) that keeps
    /// to the options.
    fn brute_force(
        blocks: &[BlockCost],
        crossing: &[u64],
        speeds: &[f64],
        options: &PlaceOptions,
    ) -> Option<(f64, f64, u64)> {
        let n = blocks.len();
        let value = |set: u32| {
            let cuts: Vec<usize> = (1..n).filter(|k| set >> k & 1 == 1).collect();
            let marked = |k: &usize| options.marks.is_empty() || options.marks.contains(k);
            if cuts.len() + 1 != speeds.len() || !cuts.iter().all(marked) {
                return None;
            }
            let ends = cuts.iter().copied().chain([n]);
            let mut slowest = 0.0f64;
            for (stage, (start, end)) in [0].iter().chain(&cuts).copied().zip(ends).enumerate() {
                let part = &blocks[start..end];
                let held: u64 = part.iter().map(|block| block.bytes).sum();
                if options.memory_limits.get(stage).is_some_and(|limit| held > *limit) {
                    return None;
                }
                let time: f64 = part.iter().map(|block| block.time.total()).sum();
                slowest = slowest.max(time / speeds[stage]);
            }
            let cost = cost_of_cuts(cuts.iter().copied(), crossing, options);
            Some((slowest, cost, cuts.iter().map(|k| crossing[k - 1]).sum::<u64>()))
        };
        (0..1u32 << n).step_by(2).filter_map(value).min_by(|a, b| a.partial_cmp(b).unwrap())
    }

    proptest! {
        #[test]
        fn no_cut_is_better(
            costs in prop::collection::vec((0u32..20, 0u64..20), 1..10),
            crossing in prop::collection::vec(0u64..5, 9),
            // Powers of two, so that sums of whole numbers over them are exact.
            speeds in prop::collection::vec(prop::sample::select(vec![0.5, 1.0, 2.0]), 1..5),
            marks in prop::collection::btree_set(1usize..9, 0..8),
            limits in prop::option::of(prop::collection::vec(10u64..80, 5)),
            byte_costs in prop::option::of(prop::collection::vec(0u32..4, 5)),
        ) {
            prop_assume!(speeds.len() <= costs.len());
            let blocks = blocks(&costs);
            let crossing = &crossing[1..costs.len()];
            let marks: Vec<usize> = marks.into_iter().filter(|k| *k < costs.len()).collect();
            let memory_limits = limits.map(|l| l[..speeds.len()].to_vec()).unwrap_or_default();
            let byte_costs = byte_costs.map(|costs| costs[1..speeds.len()].to_vec());
            let byte_costs = byte_costs.unwrap_or_default().into_iter().map(f64::from).collect();
            let options = PlaceOptions { marks, memory_limits, byte_costs };
            let partition = place(&blocks, crossing, &speeds, &options).ok();
            let found = partition.as_ref().map(|p| {
                let cuts = p.stage_blocks[1..].iter().map(|blocks| blocks.start);
                let cost = cost_of_cuts(cuts, crossing, &options);
                (p.slowest, cost, p.crossing_bytes)
            });
            prop_assert_eq!(found, brute_force(&blocks, crossing, &speeds, &options));
            if let Some(Partition { stage_blocks, .. }) = partition {
                let covered: Vec<usize> = stage_blocks.iter().cloned().flatten().collect();
                prop_assert_eq!(covered, (0..blocks.len()).collect::<Vec<_>>());
                prop_assert!(stage_blocks.iter().all(|part| !part.is_empty()));
            }
        }
    }

    #[test]
    fn marked_boundaries_are_the_cuts() {
        let blocks = blocks(&[(1, 0), (1, 0), (1, 0), (9, 0)]);
        let options = PlaceOptions { marks: vec![1, 2], ..PlaceOptions::default() };
        let partition = place(&blocks, &[0; 3], &[1.0; 3], &options).unwrap();
        assert_eq!(partition.stage_blocks, [0..1, 1..2, 2..4]);
    }

    #[test]
    fn less_crosses_where_bytes_cost_more() {
        let blocks = blocks(&[(1, 0); 5]);
        let cut = |byte_costs: &[f64]| {
            let options = PlaceOptions { byte_costs: byte_costs.into(), ..Default::default() };
            place(&blocks, &[1, 4, 6, 2], &[1.0; 3], &options).unwrap().stage_blocks
        };
        assert_eq!(cut(&[]), [0..2, 2..4, 4..5]);
        assert_eq!(cut(&[0.0, 0.0]), cut(&[]));
        assert_eq!(cut(&[1.0, 20.0]), cut(&[]));
        assert_eq!(cut(&[20.0, 1.0]), [0..1, 1..3, 3..5]);
    }

    #[test]
    fn what_cannot_be_placed_is_an_error_that_says_what_to_try() {
        let rejects = |stages: usize, marks: &[usize], limits: &[u64], error: &str| {
            let blocks = blocks(&[(1, 10), (1, 50), (1, 20)]);
            let options = PlaceOptions {
                marks: marks.into(),
                memory_limits: limits.into(),
                ..PlaceOptions::default()
            };
            let result = place(&blocks, &[0; 2], &vec![1.0; stages], &options);
            assert_eq!(result.expect_err(error).to_string(), error);
        };
        rejects(
            4,
            &[],
            &[],
            "3 blocks cannot fill 4 stages (try: between 1 and 3 stages, or a model \
             of more blocks)",
        );
        rejects(
            3,
            &[1],
            &[],
            "the marked boundaries cut the model in 2, too few for 3 stages \
             (try: 2 stages, or more boundaries, or none to cut anywhere)",
        );
        rejects(2, &[3], &[], "boundary 3 is not between two of 3 blocks (try: 1 to 2)");
        rejects(
            2,
            &[],
            &[40, 60],
            "stage 1: blocks 1 to 2 need 70 bytes, the limit is 60, and no other cut fits better \
             (try: a limit of 70 bytes, more devices, or a smaller microbatch)",
        );
    }
}
