//! Promise: on small instances the order that `auto` finds is within 3% of the best there is on its
//! placement, and 0.5% in the mean; and no lower bound is above the best.
//!
//! `cargo test --release -p zerobubble-plan --test optimum -- --nocapture` prints the distances.

use zerobubble_plan::{
    Action, BoundaryCost, Costs, DeviceId, MicrobatchId, Optimum, PerWork, Placement, Plan,
    SearchInput, SearchOutput, StageBytes, StageCost, StageId, TransferCost, Transfers, Work,
    check, lower_bound_within, optimum, search, simulate, sum_of_blocks,
};

/// Numbers that depend on the seed alone (SplitMix64, Steele et al. 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Blocks of unequal times, one or two for each of 2 to 4 devices, up to 6 microbatches; with a
/// limit of the stash on every other.
fn instance(seed: u64) -> SearchInput {
    let mut draw = Draw(seed);
    let devices = 2 + draw.below(3) as usize;
    let chunks = 1 + usize::from(draw.below(3) == 0);
    let microbatches = 2 + draw.below(if chunks == 2 { 3 } else { 5 }) as u32;
    let n = devices * chunks;
    let times: Vec<PerWork<f64>> =
        (0..n).map(|_| PerWork::from_fn(|_| (5 + draw.below(16)) as f64)).collect();
    let transfer = draw.below(6) as f64;
    let limit = 1 + draw.below(devices as u64);
    let bytes = StageBytes { forward_for_w: 100, ..StageBytes::default() };
    let row = times.iter().map(|time| StageCost { time: *time, bytes }).collect();
    SearchInput {
        blocks: vec![row; devices],
        crossings: vec![BoundaryCost::default(); n - 1],
        transfers: Transfers::uniform(TransferCost::of_any_size(transfer)),
        marks: Vec::new(),
        microbatches,
        memory_limits: if seed.is_multiple_of(2) {
            Vec::new()
        } else {
            vec![limit * chunks as u64 * 100; devices]
        },
    }
}

fn found(input: &SearchInput) -> SearchOutput {
    let cost_model = |placement: &Placement, blocks: &[std::ops::Range<usize>]| {
        sum_of_blocks(input, placement, blocks)
    };
    search(input, &cost_model).expect("one microbatch fits")
}

fn best(input: &SearchInput, found: &SearchOutput) -> Optimum {
    let makespan = found.simulation.bubble.makespan;
    let placement = &found.plan.plan().placement;
    let (limits, m) = (&input.memory_limits, input.microbatches);
    optimum(placement, m, &found.costs, limits, makespan, 200_000).unwrap()
}

/// The smallest makespan of all lanes, each tried with all of the others. Every microbatch stashes
/// 100 bytes after F, and so many after B.
fn by_brute_force(
    placement: &Placement,
    m: u32,
    costs: &Costs,
    limit: Option<u64>,
    after_b: u64,
) -> f64 {
    let lanes: Vec<Vec<Vec<Action>>> = (0..placement.device_count() as u32)
        .map(|device| {
            let stages: Vec<StageId> = placement.stages_of(DeviceId(device)).collect();
            let mut lanes = Vec::new();
            extend(&stages, m, (limit, after_b), &mut Vec::new(), &mut lanes);
            lanes
        })
        .collect();
    let [first, second] = &lanes[..] else { panic!("two devices") };
    let mut best = f64::INFINITY;
    for one in first {
        for other in second {
            let (placement, lanes) = (placement.clone(), vec![one.clone(), other.clone()]);
            let plan = Plan { schedule: "test".into(), microbatches: m, placement, lanes };
            if let Ok(plan) = check(plan) {
                best = best.min(simulate(&plan, costs).unwrap().bubble.makespan);
            }
        }
    }
    best
}

/// All lanes of `stages` that go on from `lane`, with at most so many bytes of stash, if they
/// are limited, where so many are left of a microbatch after B.
fn extend(
    stages: &[StageId],
    m: u32,
    (limit, after_b): (Option<u64>, u64),
    lane: &mut Vec<Action>,
    lanes: &mut Vec<Vec<Action>>,
) {
    let count = |lane: &[Action], stage: StageId, work: Work| {
        lane.iter().filter(|a| a.stage == stage && a.work == work).count() as u32
    };
    let mut ended = true;
    for &stage in stages {
        for (work, before) in [(Work::F, None), (Work::B, Some(Work::F)), (Work::W, Some(Work::B))]
        {
            let k = count(lane, stage, work);
            if k >= before.map_or(m, |before| count(lane, stage, before)) {
                continue;
            }
            ended = false;
            lane.push(Action::new(stage, work, MicrobatchId(k)));
            let all = |work: Work| lane.iter().filter(|a| a.work == work).count() as u64;
            let [f, b, w] = Work::ALL.map(all);
            if limit.is_none_or(|limit| 100 * (f - b) + after_b * (b - w) <= limit) {
                extend(stages, m, (limit, after_b), lane, lanes);
            }
            lane.pop();
        }
    }
    if ended {
        lanes.push(lane.clone());
    }
}

#[test]
fn the_best_order_is_that_of_all_lanes() {
    for seed in 0..60 {
        let mut draw = Draw(1000 + seed);
        let cases = [(vec![0, 1], 2), (vec![0, 1], 3), (vec![0, 1, 0], 1), (vec![0, 1, 1, 0], 1)];
        let (placement, m) = cases[draw.below(4) as usize].clone();
        let placement = Placement { stages: placement.into_iter().map(DeviceId).collect() };
        let n = placement.stage_count();
        let after_b = [100, 40, 0][draw.below(3) as usize];
        let bytes = StageBytes {
            forward_for_b: 100 - after_b,
            forward_for_w: after_b,
            ..StageBytes::default()
        };
        let mut stage = || StageCost { time: PerWork::from_fn(|_| draw.below(12) as f64), bytes };
        let mut costs = Costs::unit(n);
        costs.stages = (0..n).map(|_| stage()).collect();
        let transfers = [draw.below(5) as f64, draw.below(5) as f64];
        costs.transfers =
            Transfers::from_fn(2, |from, _| TransferCost::of_any_size(transfers[from.index()]));
        let limit = [None, Some(100), Some(200)][draw.below(3) as usize];
        let limits = limit.map_or(Vec::new(), |limit| vec![limit; 2]);
        let best = by_brute_force(&placement, m, &costs, limit, after_b);
        if best.is_finite() {
            let found = optimum(&placement, m, &costs, &limits, 1e9, 100_000).unwrap();
            assert!(found.proved);
            assert_eq!(
                found.makespan, best,
                "seed {seed}: {placement:?}, {m}, {costs:?}, {limit:?}"
            );
        }
    }
}

#[test]
fn auto_is_near_the_best_order() {
    let (mut sum, mut worst, mut bounds, mut simulated) = (0.0, 0.0f64, 0.0, 0.0);
    for seed in 0..INSTANCES {
        let input = instance(seed);
        let found = found(&input);
        let best = best(&input, &found);
        let makespan = found.simulation.bubble.makespan;
        let (bound, without_limits) = (found.lower_bound, found.simulation.lower_bound);
        let distance = makespan / best.makespan - 1.0;
        println!(
            "{seed:>3}: {} devices, {} stages, {} microbatches, {:?} bytes: {makespan} by {}, \
             {:.2}% above the best, which is {:.2}% above its bound",
            input.blocks.len(),
            found.stage_blocks.len(),
            input.microbatches,
            input.memory_limits.first(),
            found.plan.plan().schedule,
            100.0 * distance,
            100.0 * (best.makespan / bound - 1.0),
        );
        assert!(best.proved, "instance {seed}: too large");
        let placement = &found.plan.plan().placement;
        let limits = &input.memory_limits;
        let bound = bound
            .max(lower_bound_within(placement, input.microbatches, &found.costs, limits).unwrap());
        assert!(bound <= best.makespan * (1.0 + 1e-9), "instance {seed}: {bound}, {best:?}");
        sum += distance;
        bounds += best.makespan / bound - 1.0;
        simulated += best.makespan / without_limits - 1.0;
        worst = worst.max(distance);
    }
    let [mean, bounds, simulated] = [sum, bounds, simulated].map(|sum| sum / INSTANCES as f64);
    println!(
        "auto is {:.2}% above the best in the mean, {:.2}% at worst; the best is {:.2}% above its \
         lower bound in the mean, {:.2}% above one that knows no limits",
        100.0 * mean,
        100.0 * worst,
        100.0 * bounds,
        100.0 * simulated
    );
    assert!(mean <= 0.005 && worst <= 0.03, "{mean}, {worst}");
}

const INSTANCES: u64 = 120;
