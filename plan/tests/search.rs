//! Promise: `auto` gives a legal plan within the memory limits, never behind a named family or the
//! order of `dynamic`, never slower with more memory, and the same one every time; where nothing
//! fits or the costs cannot be used, an error says so.

use std::ops::Range;

use proptest::prelude::*;
use zerobubble_plan::Error;
use zerobubble_plan::{
    BlockCost, BoundaryCost, Costs, DeviceId, FAMILIES, FORWARD_ONLY, PerWork, PlaceOptions,
    Placement, Plan, SearchInput, SearchOutput, StageBytes, StageCost, TransferCost, Transfers,
    Work, check, dynamic, dynamic_base, fit, generate, place, progress, search, simulate,
    sum_of_blocks,
};

fn run(input: &SearchInput) -> Result<SearchOutput, Error> {
    search(input, &|placement, stage_blocks| sum_of_blocks(input, placement, stage_blocks))
}

/// Equal devices and equal blocks: a device's share of a microbatch takes F = B = W = 1.
fn uniform(devices: usize, blocks_per_device: usize, microbatches: u32) -> SearchInput {
    let time = 1.0 / blocks_per_device as f64;
    let bytes = StageBytes { fixed: 10, forward_for_w: 100, ..StageBytes::default() };
    let block = StageCost { time: PerWork([time; 3]), bytes };
    let blocks = devices * blocks_per_device;
    SearchInput {
        blocks: vec![vec![block; blocks]; devices],
        crossings: vec![BoundaryCost::default(); blocks - 1],
        transfers: Transfers::default(),
        marks: Vec::new(),
        microbatches,
        memory_limits: Vec::new(),
    }
}

prop_compose! {
    /// Up to 6 devices of different speeds.
    fn any_input()(
        devices in 1usize..7,
        blocks_per_device in 1usize..5,
        microbatches in 1u32..10,
        times in prop::collection::vec(prop::array::uniform3(0.0..2.0), 24),
        bytes in prop::collection::vec(prop::array::uniform7(0u64..50), 24),
        speeds in prop::collection::vec(0.5..2.0, 6),
        links in prop_oneof![Just(vec![1.0; 36]), prop::collection::vec(0.0..2.0, 36)],
        crossing in (prop_oneof![0.0..0.5, 0.0..5.0], 0u64..20, 0u64..20),
    ) -> SearchInput {
        let n = devices * blocks_per_device;
        let block = |speed: f64, k: usize| {
            let bytes = StageBytes {
                fixed: bytes[k][0],
                forward_for_b: bytes[k][1],
                forward_for_w: bytes[k][2],
                backward_for_w: bytes[k][3],
                working: PerWork([bytes[k][4], bytes[k][5], bytes[k][6]]),
            };
            StageCost { time: PerWork(times[k]).map(|time: f64| time / speed), bytes }
        };
        let (transfer, activation_bytes, gradient_bytes) = crossing;
        SearchInput {
            blocks: (0..devices).map(|d| (0..n).map(|k| block(speeds[d], k)).collect()).collect(),
            crossings: vec![BoundaryCost { activation_bytes, gradient_bytes }; n - 1],
            transfers: Transfers::from_fn(devices, |from, to| TransferCost {
                latency: transfer * links[6 * from.index() + to.index()],
                per_byte: 0.01 * transfer,
            }),
            marks: Vec::new(),
            microbatches,
            memory_limits: Vec::new(),
        }
    }
}

/// All that can be made without a search, and what it costs on the partition that `place` finds for
/// its placement: the plan of every family with every number of chunks, and the order that
/// `dynamic` comes to.
fn made(input: &SearchInput) -> Vec<(Plan, Costs)> {
    let (p, n) = (input.blocks.len(), input.blocks[0].len());
    let families = FAMILIES.iter().filter(|family| **family != &FORWARD_ONLY);
    let chunks = || (1..=(n / p) as u32).map(Some).chain([None]);
    let plan = |family, chunks| generate(family, p as u32, chunks, input.microbatches).ok();
    let families = families.flat_map(|family| chunks().filter_map(move |v| plan(family, v)));
    let costed = |plan: Plan| {
        let costs = placed(input, &plan.placement)?;
        Some((plan, costs))
    };
    let bases = chunks().filter_map(|v| plan(dynamic_base(v).ok()?, v)).filter_map(costed);
    let orders = bases.map(|(base, costs)| {
        let order = dynamic(&check(base).unwrap(), &costs).unwrap();
        (order.plan().clone(), costs)
    });
    families.filter_map(costed).chain(orders.collect::<Vec<_>>()).collect()
}

/// What stages cost on the partition that `place` finds, if there are enough blocks.
fn placed(input: &SearchInput, placement: &Placement) -> Option<Costs> {
    let n = input.blocks[0].len();
    if placement.stage_count() > n {
        return None;
    }
    let time = |block: &StageCost| block.time.total();
    let whole = |device: usize| input.blocks[device].iter().map(time).sum::<f64>();
    let block = |block: &StageCost| BlockCost { time: block.time, bytes: 0 };
    let blocks: Vec<BlockCost> = input.blocks[0].iter().map(block).collect();
    let crossing = vec![0; n - 1];
    let speeds: Vec<f64> = placement.stages.iter().map(|d| whole(0) / whole(d.index())).collect();
    let partition = place(&blocks, &crossing, &speeds, &PlaceOptions::default()).unwrap();
    Some(sum_of_blocks(input, placement, &partition.stage_blocks).unwrap())
}

fn peaks(plan: Plan, costs: &Costs) -> Vec<u64> {
    let memory = simulate(&check(plan).unwrap(), costs).unwrap().memory;
    memory.iter().map(|device| device.peak_bytes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn never_behind_what_is_made_without_a_search_and_the_same_plan_again(
        mut input in any_input(),
        // In percent of what 1F1B needs; none for more.
        memory in 60u64..260,
    ) {
        let made = made(&input);
        let (one_f_one_b, costs) =
            made.iter().find(|(plan, _)| plan.schedule == "1f1b").unwrap();
        if memory < 220 {
            let needs = peaks(one_f_one_b.clone(), costs);
            input.memory_limits = needs.iter().map(|bytes| bytes * memory / 100).collect();
        }
        let fits = |memory: &[zerobubble_plan::DeviceMemory]| {
            input.memory_limits.is_empty() || fit(memory, &input.memory_limits).is_ok()
        };
        let mut best = f64::INFINITY;
        for (plan, costs) in &made {
            let simulation = simulate(&check(plan.clone()).unwrap(), costs).unwrap();
            if fits(&simulation.memory) {
                best = best.min(simulation.bubble.makespan);
            }
        }
        match run(&input) {
            Ok(found) => {
                let makespan = found.simulation.bubble.makespan;
                prop_assert!(makespan <= best, "{makespan} after {best}");
                prop_assert!(found.gain().is_none_or(|gain| gain >= 0.0));
                let again = simulate(&check(found.plan.plan().clone()).unwrap(), &found.costs);
                prop_assert_eq!(&again.unwrap(), &found.simulation);
                prop_assert!(fits(&found.simulation.memory));
                progress(&found.plan, &found.simulation.channels).unwrap();
                let covered: Vec<usize> = found.stage_blocks.iter().cloned().flatten().collect();
                prop_assert_eq!(covered, (0..input.blocks[0].len()).collect::<Vec<_>>());
                let again = run(&input).unwrap();
                prop_assert_eq!(again.plan.plan(), found.plan.plan());
            }
            Err(error) => {
                prop_assert_eq!(best, f64::INFINITY, "{}", error);
                prop_assert!(error.to_string().contains("no plan fits in memory"), "{}", error);
            }
        }
    }
}

#[test]
fn equal_devices_reach_the_lower_bound() {
    for blocks_per_device in [1, 2, 4] {
        let found = run(&uniform(4, blocks_per_device, 12)).unwrap();
        let (makespan, bound) = (found.simulation.bubble.makespan, found.simulation.lower_bound);
        assert!(makespan <= bound + 1e-9, "{blocks_per_device}: {makespan}, bound {bound}");
        // F of the first microbatch on the devices before the last.
        let ramp = 3.0 / blocks_per_device as f64;
        assert!(makespan <= 36.0 + ramp + 1e-9, "{blocks_per_device}: {makespan}");
    }
}

#[test]
fn the_smallest_pipelines_have_a_plan() {
    for (devices, microbatches) in [(1, 1), (1, 7), (2, 1), (5, 1), (5, 3)] {
        let found = run(&uniform(devices, 2, microbatches)).unwrap();
        assert_eq!(found.plan.plan().lanes.len(), devices);
        assert_eq!(found.plan.plan().microbatches, microbatches);
        if devices == 1 {
            assert_eq!(found.simulation.bubble.makespan, 3.0 * f64::from(microbatches));
        }
    }
    let mut free = uniform(3, 2, 4);
    free.blocks = vec![vec![StageCost::default(); 6]; 3];
    assert_eq!(run(&free).unwrap().simulation.bubble.makespan, 0.0);
}

#[test]
fn a_slow_device_gets_less_wherever_it_is() {
    for slow in 0..3 {
        let mut input = uniform(3, 6, 12);
        for block in &mut input.blocks[slow] {
            block.time = block.time.map(|time| 4.0 * time);
        }
        let found = run(&input).unwrap();
        let blocks = |device: usize| -> usize {
            let stages = found.plan.plan().placement.stages.iter().zip(&found.stage_blocks);
            stages
                .filter(|(d, _)| d.index() == device)
                .map(|(_, blocks): (_, &Range<usize>)| blocks.len())
                .sum()
        };
        assert_eq!(blocks(slow), 2, "device {slow}: {:?}", found.stage_blocks);
        assert!(found.gain().unwrap() >= 0.0);
    }
}

#[test]
fn cuts_are_only_where_they_are_allowed() {
    let input = SearchInput { marks: vec![1, 6], ..uniform(3, 4, 6) };
    let found = run(&input).unwrap();
    assert_eq!(found.stage_blocks, [0..1, 1..6, 6..12]);
}

#[test]
fn more_memory_is_never_slower_and_every_byte_counts() {
    let mut input = uniform(3, 2, 8);
    let mut last = f64::INFINITY;
    // Two blocks a device: 20 bytes fixed, 200 a microbatch.
    for microbatches in 1..=5 {
        input.memory_limits = vec![20 + 200 * microbatches; 3];
        let found = run(&input).unwrap();
        fit(&found.simulation.memory, &input.memory_limits).unwrap();
        let makespan = found.simulation.bubble.makespan;
        assert!(makespan <= last, "{microbatches}: {makespan} after {last}");
        last = makespan;
    }
    assert!(
        last < run(&SearchInput { memory_limits: vec![220; 3], ..input.clone() })
            .unwrap()
            .simulation
            .bubble
            .makespan
    );
    input.memory_limits = vec![219; 3];
    assert_eq!(
        run(&input).unwrap_err().to_string(),
        "no plan fits in memory: the nearest, v-half, needs 420 bytes on device 2, which has 219 \
         (try: a limit of 420 bytes, a smaller microbatch, or more devices)"
    );
}

#[test]
fn the_bubble_never_rises_with_memory_and_no_family_that_fits_is_faster() {
    let cases = [(4, 8, [2.0, 2.4, 1.6], 0.0), (3, 8, [9.9, 10.4, 7.0], 0.2)];
    for (devices, microbatches, times, transfer) in cases {
        let mut input = uniform(devices, 4, microbatches);
        for block in input.blocks.iter_mut().flatten() {
            block.time = PerWork(times.map(|time| time / 4.0));
        }
        input.transfers = Transfers::uniform(TransferCost::of_any_size(transfer));
        let made = made(&input);
        let mut last = f64::INFINITY;
        for microbatches in devices.div_ceil(3)..=2 * devices {
            // Four blocks a device: 40 bytes fixed, 400 a microbatch.
            input.memory_limits = vec![40 + 400 * microbatches as u64; devices];
            let found = run(&input).unwrap();
            let makespan = found.simulation.bubble.makespan;
            assert!(makespan <= last, "{devices}, {microbatches}: {makespan} after {last}");
            assert!(found.lower_bound <= makespan);
            last = makespan;
            for (plan, costs) in &made {
                let simulation = simulate(&check(plan.clone()).unwrap(), costs).unwrap();
                if fit(&simulation.memory, &input.memory_limits).is_ok() {
                    let family = simulation.bubble.makespan;
                    assert!(makespan <= family * (1.0 + 1e-9), "{}: {family}", plan.schedule);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_searched_is_an_error() {
    let rejects = |change: &dyn Fn(&mut SearchInput), error: &str| {
        let mut input = uniform(2, 2, 4);
        change(&mut input);
        assert_eq!(run(&input).expect_err(error).to_string(), error);
    };
    rejects(
        &|input| input.blocks = vec![input.blocks[0].clone(); 5],
        "4 blocks cannot fill 5 devices (try: between 1 and 4 devices, or a model of more blocks)",
    );
    rejects(&|input| input.blocks.clear(), "0 devices and 4 microbatches: nothing to plan");
    rejects(&|input| input.microbatches = 0, "2 devices and 0 microbatches: nothing to plan");
    rejects(&|input| input.blocks[1].truncate(3), "device 1 has costs of 3 blocks, device 0 of 4");
    rejects(&|input| input.crossings.truncate(2), "2 crossings between 4 blocks");
    rejects(&|input| input.memory_limits = vec![1], "1 memory limits for 2 devices");
    rejects(
        &|input| input.blocks[1][2].time[Work::B] = f64::NAN,
        "block 2 on device 1: NaN is not a time",
    );
    rejects(
        &|input| input.transfers = Transfers::uniform(TransferCost::of_any_size(-1.0)),
        "-1 is not a transfer time",
    );
    let of_one = Transfers::from_fn(3, |from, _| TransferCost::of_any_size(f64::from(from.0)));
    rejects(
        &|input| *input = SearchInput { transfers: of_one.clone(), ..uniform(4, 2, 4) },
        "transfers of 3 devices for 4 devices",
    );
    rejects(
        &|input| input.blocks[0][0].time[Work::F] = f64::MAX,
        "the times add up to more than a number can hold",
    );
    rejects(
        &|input| input.marks = vec![9],
        "boundary 9 is not between two of 4 blocks (try: 1 to 3)",
    );
    rejects(
        &|input| *input = SearchInput { marks: vec![1], ..uniform(3, 2, 4) },
        "the marked boundaries cut the model in 2, too few for 3 stages \
         (try: 2 stages, or more boundaries, or none to cut anywhere)",
    );
}

#[test]
fn a_cost_model_that_does_not_fit_the_partition_is_an_error() {
    let input = uniform(2, 2, 4);
    let wrong = |_: &Placement, _: &[Range<usize>]| Ok(Costs::unit(7));
    assert_eq!(
        search(&input, &wrong).unwrap_err().to_string(),
        "costs of 7 stages and 6 boundaries for a plan of 2 stages"
    );
}

/// The plan of `auto` on four devices of which the middle pair is 20 times as far apart.
#[test]
fn auto_knows_a_slow_link_and_crosses_it_less_often() {
    let latencies = [0.3, 6.0, 0.3].map(TransferCost::of_any_size);
    let input = SearchInput { transfers: Transfers::along_a_line(&latencies), ..uniform(4, 6, 8) };
    let found = run(&input).unwrap();
    let makespan = found.simulation.bubble.makespan;
    let crossings = |placement: &Placement| {
        let is_first = |device: &DeviceId| device.0 < 2;
        placement.stages.windows(2).filter(|pair| is_first(&pair[0]) != is_first(&pair[1])).count()
    };
    let placement = &found.plan.plan().placement;
    assert_eq!(crossings(placement), 1, "{placement:?}");
    assert!(found.lower_bound <= makespan);
    for latency in [0.3, (0.3 + 6.0 + 0.3) / 3.0] {
        let unaware = SearchInput {
            transfers: Transfers::uniform(TransferCost::of_any_size(latency)),
            ..input.clone()
        };
        let unaware = run(&unaware).unwrap();
        let costs = Costs { transfers: input.transfers.clone(), ..unaware.costs };
        let really = simulate(&unaware.plan, &costs).unwrap().bubble.makespan;
        assert!(makespan < 0.99 * really, "{makespan}, without knowing {really}");
    }
    for (plan, costs) in made(&input) {
        let family = simulate(&check(plan.clone()).unwrap(), &costs).unwrap().bubble.makespan;
        assert!(makespan < family * (1.0 - 1e-9), "{makespan}, {} {family}", plan.schedule);
    }
}

/// Two machines of two devices each, in an order that goes to and fro between them.
#[test]
fn auto_puts_devices_with_fast_links_next_to_one_another() {
    let apart = |from: DeviceId, to: DeviceId| {
        TransferCost::of_any_size(if from.0 % 2 == to.0 % 2 { 0.3 } else { 6.0 })
    };
    let input = SearchInput { transfers: Transfers::from_fn(4, apart), ..uniform(4, 4, 8) };
    let found = run(&input).unwrap();
    let stages = &found.plan.plan().placement.stages;
    let far = stages.windows(2).filter(|pair| pair[0].0 % 2 != pair[1].0 % 2).count();
    assert_eq!(far, 1, "{stages:?}");
}
