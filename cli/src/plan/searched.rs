//! The plan of `auto`: what a search finds, or an order that another schedule makes.
//!
//! The search cuts a model of equal blocks. The other schedules cut every device's share evenly,
//! also where blocks would not go into it, and never ask how fast the devices are. So all that they
//! make is tried beside the search: `auto` is behind none of it.

use std::ops::Range;

use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::plan::{
    BoundaryCost, CheckedPlan, DeviceId, PerWork, Placement, Plan, Schedule, SearchInput,
    StageCost, check, dynamic, dynamic_base, generate, lower_bound_within, outlines, search,
    simulate, sum_of_blocks,
};

use super::{
    BLOCKS_PER_DEVICE, Compared, MOST_CHUNKS, Proved, boundary, check_size, costs, most,
    over_limit, pairs, rounded_up, share,
};
use crate::args::{PlanArgs, Stash};

/// With more pairs of device and microbatch the other schedules have to do: a search would try
/// little more than these, and take as long again.
const SEARCHED_PAIRS: u64 = 1 << 18;

/// Makespans are the same within this fraction.
const ROUNDING: f64 = 1e-9;

/// The plan of `auto` for a model of equal blocks, as many as every device can have
/// [`BLOCKS_PER_DEVICE`] of. The memory limit counts the stash in devices' even shares.
pub(super) fn searched(args: &PlanArgs) -> Result<Proved> {
    if args.chunks.is_some() {
        return Err(Error::config("--chunks with auto, which chooses them")
            .hint("one of them, or another --schedule"));
    }
    check_size(args)?;
    let Made { fastest: made, family, nearest, mut cut_short } = made(args)?;
    let (mut found, mut families) = (Vec::new(), Vec::from_iter(family));
    if pairs(args) <= SEARCHED_PAIRS {
        // What fits where B frees nothing also fits where it does. As a search does not try all
        // that fits, both are searched: so what B frees never makes a plan slower.
        for stash in [Some(args.stash), args.stash.freed_at_w()].into_iter().flatten() {
            match search_blocks(args, stash) {
                Ok(searched) => {
                    cut_short |= searched.fastest.cut_short;
                    found.push(searched.fastest);
                    families.extend(searched.family);
                }
                // Nothing fits.
                Err(error) if error.kind == ErrorKind::Plan => {}
                Err(error) => return Err(error),
            }
        }
    } else {
        cut_short = true;
    }
    let families = families.into_iter();
    let best_family = families.reduce(|a, b| if faster(b.makespan, a.makespan) { b } else { a });
    let plans = found.into_iter().chain(made);
    let Some(fastest) = plans.reduce(|a, b| if b.beats(&a) { b } else { a }) else {
        let Nearest { schedule, device, peak } = nearest.expect("there are families of any size");
        let limit = args.memory_limit.unwrap_or(f64::INFINITY);
        let (peak, unit) = (rounded_up(peak), args.stash.unit());
        return Err(Error::plan(format!(
            "no plan fits: the nearest, {schedule}, stashes {peak} {unit} on device {device}, the \
             limit is {limit}"
        ))
        .hint(format!("a limit of {peak}, or more --stages")));
    };
    let makespan = fastest.makespan();
    let gain = |family: f64| if makespan > 0.0 { (family / makespan - 1.0).max(0.0) } else { 0.0 };
    let best_family = best_family.map(|family| Compared { gain: gain(family.makespan), ..family });
    Ok(Proved { best_family, cut_short, ..fastest })
}

/// Whether a makespan is smaller by more than rounding.
fn faster(makespan: f64, other: f64) -> bool {
    makespan < other * (1.0 - ROUNDING)
}

/// What a search finds.
struct Searched {
    fastest: Proved,
    /// The best family on the cuts that were tried.
    family: Option<Compared>,
}

/// What a search finds for a model of equal blocks if `stash` is what these stash.
fn search_blocks(args: &PlanArgs, stash: Stash) -> Result<Searched> {
    let input = search_input(args, stash)?;
    let cost_model = |placement: &Placement, stage_blocks: &[Range<usize>]| {
        sum_of_blocks(&input, placement, stage_blocks)
    };
    let found = search(&input, &cost_model)?;
    let family = found.best_family.map(|family| Compared {
        name: family.name,
        makespan: family.makespan,
        gain: 0.0,
    });
    let own = search_input(args, args.stash)?;
    let placement = &found.plan.plan().placement;
    let mut costs = sum_of_blocks(&own, placement, &found.stage_blocks)?;
    let simulation = simulate(&found.plan, &costs)?;
    let within = lower_bound_within(placement, args.microbatches, &costs, &own.memory_limits)?;
    let lower_bound = within.max(simulation.lower_bound).min(simulation.bubble.makespan);
    costs.boundaries.fill(boundary(args));
    let one = u64::from(BLOCKS_PER_DEVICE) * args.stash.one();
    let shares = simulation.memory.iter().map(|of| of.peak_stash_bytes as f64 / one as f64);
    let fastest = Proved {
        plan: found.plan,
        costs,
        peak_stash: shares.collect(),
        simulation,
        best_family: None,
        cut_short: found.cut_short,
        lower_bound: Some(lower_bound),
    };
    Ok(Searched { fastest, family })
}

/// A model of equal blocks.
fn search_input(args: &PlanArgs, stash: Stash) -> Result<SearchInput> {
    let times = args.cost.of(args.stages)?;
    let blocks = (BLOCKS_PER_DEVICE * args.stages) as usize;
    let row = |times: &PerWork<f64>| {
        let bytes = stash.bytes(|parts| parts);
        vec![StageCost { bytes, ..share(*times, f64::from(BLOCKS_PER_DEVICE)) }; blocks]
    };
    let one = u64::from(BLOCKS_PER_DEVICE) * stash.one();
    let limit = args.memory_limit.map(|limit| most(limit, one));
    // Activations take no memory there: the limit is one of the stash.
    Ok(SearchInput {
        blocks: times.iter().map(row).collect(),
        crossings: vec![BoundaryCost::default(); blocks - 1],
        transfers: args.transfer.of(times.len())?,
        marks: Vec::new(),
        microbatches: args.microbatches,
        memory_limits: limit.map_or(Vec::new(), |limit| vec![limit; times.len()]),
    })
}

/// What the other schedules come to.
#[derive(Default)]
struct Made {
    /// The fastest plan that fits.
    fastest: Option<Proved>,
    /// The fastest family that fits.
    family: Option<Compared>,
    /// Of the plans that do not fit, the one with the smallest peak.
    nearest: Option<Nearest>,
    /// Whether some number of chunks was not tried.
    cut_short: bool,
}

/// A plan by its largest peak stash.
struct Nearest {
    schedule: String,
    device: DeviceId,
    /// In the unit of `--stash`.
    peak: f64,
}

/// Every order that `plan` makes for another schedule, with all numbers of chunks that are
/// affordable, those of `dynamic` among them.
fn made(args: &PlanArgs) -> Result<Made> {
    let (outlines, cut_short) = outlines(args.stages, args.microbatches, MOST_CHUNKS);
    let mut made = Made { cut_short, ..Made::default() };
    for outline in outlines {
        let bound = outline.lower_bound(&costs(args, &outline.placement)?);
        // One that is as fast may have a smaller peak.
        if made.fastest.as_ref().is_none_or(|fastest| !faster(fastest.makespan(), bound)) {
            made.offer(args, check(outline.plan()?)?, Some(outline.family.name))?;
        }
    }
    let generated = |family, chunks| generate(family, args.stages, chunks, args.microbatches);
    for chunks in [1, 2] {
        let base = check(generated(dynamic_base(Some(chunks))?, Some(chunks))?)?;
        let order = dynamic(&base, &costs(args, &base.plan().placement)?)?;
        // Nobody decides about it at run time.
        let order = Plan { schedule: Schedule::Auto.to_string(), ..order.plan().clone() };
        made.offer(args, check(order)?, None)?;
    }
    Ok(made)
}

impl Made {
    fn offer(&mut self, args: &PlanArgs, plan: CheckedPlan, family: Option<&str>) -> Result<()> {
        let costs = costs(args, &plan.plan().placement)?;
        let simulation = simulate(&plan, &costs)?;
        let proved = Proved::new(args, plan, costs, simulation);
        let limit = args.memory_limit.unwrap_or(f64::INFINITY);
        if over_limit(&proved.peak_stash, limit).is_some() {
            let peaks = (0u32..).map(DeviceId).zip(proved.peak_stash.iter().copied());
            let worst = peaks.max_by(|(_, a), (_, b)| a.total_cmp(b));
            let (device, peak) = worst.expect("there is a device");
            if self.nearest.as_ref().is_none_or(|nearest| peak < nearest.peak) {
                let schedule = proved.plan.plan().schedule.clone();
                self.nearest = Some(Nearest { schedule, device, peak });
            }
            return Ok(());
        }
        let makespan = proved.makespan();
        let beats_all = self.fastest.as_ref().is_none_or(|fastest| proved.beats(fastest));
        let beats_families =
            self.family.as_ref().is_none_or(|best| faster(makespan, best.makespan));
        if let Some(name) = family
            && (beats_all || beats_families)
        {
            self.family = Some(Compared { name: name.to_owned(), makespan, gain: 0.0 });
        }
        if beats_all {
            self.fastest = Some(proved);
        }
        Ok(())
    }
}

impl Proved {
    /// Whether this plan is the better one: the faster one, or, where both take equally long, the
    /// one whose largest peak is smaller.
    fn beats(&self, other: &Self) -> bool {
        let (own, others) = (self.makespan(), other.makespan());
        let peak = |of: &Self| of.peak_stash.iter().copied().fold(0.0, f64::max);
        faster(own, others) || (!faster(others, own) && peak(self) < peak(other))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::super::run;
    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> PlanArgs {
        let words = ["zerobubble", "plan"].into_iter().chain(line.split_whitespace());
        match Cli::read(words.map(OsString::from)) {
            Ok(Cli { command: Command::Plan(args), .. }) => args,
            _ => panic!("'{line}' is not understood"),
        }
    }

    /// The makespan of every plan that `plan` prints for this and another schedule, as `--check`
    /// judges it; those within `limit` only.
    fn others(line: &str, limit: Option<f64>) -> Vec<(String, f64)> {
        let names = Schedule::names().filter(|name| !["auto", "forward-only"].contains(name));
        let chunks =
            [1, 2, 3, 7, 12, 13, 31, 64].into_iter().map(|chunks| format!("--chunks {chunks}"));
        let chunks: Vec<String> = chunks.chain([String::new()]).collect();
        let lines = names.flat_map(|name| {
            chunks.iter().map(move |chunks| format!("{line} --schedule {name} {chunks}"))
        });
        let judged = lines.filter_map(|line| {
            let args = args(&line);
            let plan = run(&args).ok()?.plan;
            let costs = costs(&args, &plan.plan().placement).unwrap();
            let simulation = simulate(&plan, &costs).unwrap();
            let proved = Proved::new(&args, plan, costs, simulation);
            let fits = limit.is_none_or(|limit| over_limit(&proved.peak_stash, limit).is_none());
            fits.then(|| (line, proved.makespan()))
        });
        judged.collect()
    }

    prop_compose! {
        fn any_case()(
            stages in 2usize..7,
            microbatches in 1u32..9,
            triples in vec([0u32..20, 0u32..20, 0u32..20], 6),
            alike in any::<bool>(),
            transfer in prop_oneof![Just(0), 0u32..40],
            limit in prop::option::of(2u32..40),
            stash in prop::sample::select(vec!["1,1", "1,0.35", "1,0", "0.7,1.3"]),
        ) -> (String, Option<f64>) {
            let triples = &triples[..if alike { 1 } else { stages }];
            let tenths = |of: u32| (f64::from(of) / 10.0).to_string();
            let cost = |triple: &[u32; 3]| triple.map(tenths).join(",");
            let cost = triples.iter().map(cost).collect::<Vec<_>>().join(";");
            let size = format!("--stages {stages} --microbatches {microbatches}");
            let costs = format!("--cost {cost} --transfer {}", tenths(transfer));
            let line = format!("{size} {costs} --stash {stash}");
            (line, limit.map(|limit| f64::from(limit) / 4.0))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 16,
            failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
            ..ProptestConfig::default()
        })]
        #[test]
        fn auto_is_behind_no_plan_that_another_schedule_prints((line, limit) in any_case()) {
            let others = others(&line, limit);
            let limit = limit.map_or(String::new(), |limit| format!("--memory-limit {limit}"));
            match run(&args(&format!("{line} --schedule auto {limit}"))) {
                Ok(auto) => {
                    for (line, makespan) in others {
                        let own = auto.makespan;
                        prop_assert!(!faster(makespan, own), "{own}, {makespan} by {line}");
                    }
                    let family = auto.best_family.map(|family| (family.makespan, family.gain));
                    prop_assert!(family.is_none_or(|(_, gain)| gain >= 0.0), "{family:?}");
                }
                Err(error) => {
                    prop_assert!(others.is_empty(), "{error}: {others:?}");
                    prop_assert!(error.problem.starts_with("no plan fits"), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_b_frees_makes_no_plan_slower_and_some_faster() {
        let mut faster_ones = 0;
        for (transfer, limit) in [(0, 1.2), (1, 1.35), (1, 1.7), (1, 2.0), (8, 2.0), (8, 3.0)] {
            let auto = "--schedule auto --cost 8,8,8";
            let line = format!("{auto} --transfer {transfer} --memory-limit {limit} --stash");
            let [kept, freed] =
                ["1,1", "1,0.35"].map(|stash| run(&args(&format!("{line} {stash}"))).unwrap());
            assert!(!faster(kept.makespan, freed.makespan), "{line}");
            assert!(freed.peak_stash.iter().all(|peak| *peak <= limit), "{line}");
            faster_ones += u32::from(faster(freed.makespan, kept.makespan));
        }
        assert!(faster_ones >= 3, "{faster_ones}");
    }

    #[test]
    fn so_large_a_plan_that_less_of_it_is_tried_says_so() {
        let auto = |size: &str| run(&args(&format!("--schedule auto {size}"))).unwrap();
        let small = auto("--stages 8 --microbatches 64");
        assert_eq!(small.cut_short, Some(false));
        assert!(!small.to_string().contains("cut short"));
        let large = auto("--stages 64 --microbatches 64");
        assert_eq!(large.cut_short, Some(true));
        assert!(large.to_string().contains("\ncut short    "));
        let named = run(&args("--schedule 1f1b --stages 64")).unwrap();
        assert_eq!(named.cut_short, None);
    }

    #[test]
    fn a_size_that_is_refused_names_one_that_is_not() {
        let size = |m: u32| format!("--schedule auto --stages 1024 --microbatches {m}");
        let Err(error) = run(&args(&size(513))) else { panic!("it is planned") };
        assert!(error.to_string().ends_with("their product at most 524288)"), "{error}");
        assert!(check_size(&args(&size(512))).is_ok());
    }

    #[test]
    fn where_nothing_fits_the_limit_that_would_is_in_microbatches() {
        let auto = "--schedule auto --stages 4 --microbatches 4 --memory-limit";
        let Err(error) = run(&args(&format!("{auto} 0.5"))) else { panic!("it fits") };
        assert_eq!(
            error.to_string(),
            "no plan fits: the nearest, v-min, stashes 2 microbatches on device 3, the limit is \
             0.5 (try: a limit of 2, or more --stages)"
        );
        run(&args(&format!("{auto} 2"))).unwrap();
    }
}
