//! `zerobubble plan`: a timetable without any model.

mod file;
mod order;
mod searched;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use zerobubble::error::{Error, Result};
use zerobubble::plan::{
    Action, BoundaryCost, CheckedPlan, Communication, Costs, DeviceId, DeviceMemory, PerWork,
    Placement, Plan, Schedule, Simulation, StageCost, StashLimits, Work, check, communication,
    dynamic, dynamic_base, generate, lower_bound_within, progress, simulate, simulate_dynamic,
    to_csv,
};
use zerobubble::trace::{Annotations, draw, svg};

use super::args::{Format, PlanArgs, Stash};
use super::drawing::{bytes, counted, percent, short, width};
pub use file::{read, text};
use order::Order;
use searched::searched;

/// Plans with more (stage, microbatch) pairs would take minutes and gigabytes to check.
const PAIRS_LIMIT: u64 = 65_536;

/// The same for `auto`, whose plans have two chunks per device at most where there are so many
/// pairs.
const SEARCH_LIMIT: u64 = 1 << 19;

/// The most chunks per device that can be asked for.
const MOST_CHUNKS: u32 = 64;

/// Bytes of a part of a device's stash, where every chunk has its even share of them.
const PART_BYTES: u64 = 1 << 20;

/// Blocks of the model that `auto` cuts, per device: its chunks may have equal shares of them.
const BLOCKS_PER_DEVICE: u32 = 12;

/// A plan and what it will do.
#[derive(Serialize)]
pub struct Timetable {
    lanes: Vec<Vec<String>>,
    makespan: f64,
    lower_bound: f64,
    step_bubble: f64,
    span_bubble: f64,
    /// In the unit of `--stash`, microbatches by default; the index is the device.
    peak_stash: Vec<f64>,
    /// What a step moves, if the bytes of an activation are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    communication: Option<Moves>,
    /// The best family, where the plan was searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    best_family: Option<Compared>,
    /// Whether the search left out what it tries of smaller plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_short: Option<bool>,
    /// Of a plan that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Order>,
    #[serde(skip)]
    stash: Stash,
    #[serde(skip)]
    plan: CheckedPlan,
    #[serde(skip)]
    simulation: Simulation,
}

/// A family that a searched plan is compared with.
#[derive(Serialize)]
struct Compared {
    name: String,
    makespan: f64,
    /// How much longer it takes, as a fraction.
    gain: f64,
}

/// Bytes that a step moves between devices.
#[derive(Serialize)]
pub struct Moves {
    /// Over every link, by the stages that it joins, such as `0>1`.
    links: Vec<LinkMoves>,
    /// Gradients and new values of parameters that several devices use.
    shared_bytes: u64,
    total_bytes: u64,
    /// What an all-reduce of all gradients among the same devices would move.
    all_reduce_bytes: u64,
}

#[derive(Serialize)]
struct LinkMoves {
    link: String,
    bytes: u64,
}

/// Makes the plan that the arguments ask for, or reads the one that they name, and runs it on
/// paper.
pub fn run(args: &PlanArgs) -> Result<Timetable> {
    let Proved { plan, costs, simulation, peak_stash, best_family, cut_short, lower_bound } =
        proved(args)?;
    let searched = args.check.is_none() && matches!(args.schedule, Schedule::Auto);
    if !simulation.bubble.makespan.is_finite() {
        return Err(Error::config("the times add up to more than a number can hold")
            .hint("a larger unit for --cost and --transfer"));
    }
    progress(&plan, &simulation.channels)?;
    let lower_bound = match lower_bound {
        Some(lower_bound) => lower_bound,
        None => bound_of_even_shares(args, plan.plan(), &simulation, &costs)?,
    };
    let parameters = args.parameter_bytes.unwrap_or(0);
    let moves = args.activation_bytes.map(|_| communication(plan.plan(), &costs, parameters, 0));
    Ok(Timetable {
        lanes: plan.plan().lanes.iter().map(|lane| names(lane)).collect(),
        makespan: simulation.bubble.makespan,
        lower_bound,
        step_bubble: simulation.bubble.step,
        span_bubble: simulation.bubble.span,
        peak_stash,
        communication: moves.as_ref().map(Moves::of),
        best_family,
        cut_short: searched.then_some(cut_short),
        order: args.check.as_ref().map(|_| Order::of(&plan)),
        stash: args.stash,
        plan,
        simulation,
    })
}

/// A plan that was checked and run on paper.
struct Proved {
    plan: CheckedPlan,
    costs: Costs,
    simulation: Simulation,
    /// Of each device's share, in the unit of `--stash`.
    peak_stash: Vec<f64>,
    best_family: Option<Compared>,
    cut_short: bool,
    /// No order within the limit takes less. Nothing where that is that of devices' even shares.
    lower_bound: Option<f64>,
}

fn proved(args: &PlanArgs) -> Result<Proved> {
    let plan = match (&args.check, &args.schedule) {
        (Some(path), _) => checked(path)?,
        (None, Schedule::Auto) => return searched(args),
        (None, Schedule::Family(family)) => {
            check_size(args)?;
            check(generate(family, args.stages, args.chunks, args.microbatches)?)?
        }
        (None, Schedule::Dynamic) => return decided(args),
        (None, Schedule::Fixed(_)) => unreachable!("a plan is in a file"),
    };
    let costs = costs(args, &plan.plan().placement)?;
    let simulation = simulate(&plan, &costs)?;
    within_limit(args, Proved::new(args, plan, costs, simulation))
}

/// The plan in a file, if it is not too long to run on paper.
fn checked(path: &Path) -> Result<CheckedPlan> {
    let plan = read(path)?;
    let Plan { placement, microbatches, .. } = plan.plan();
    let pairs = placement.stage_count() as u64 * u64::from(*microbatches);
    if pairs > PAIRS_LIMIT {
        return Err(Error::plan(format!(
            "{pairs} pairs of stage and microbatch are too many to run on paper"
        ))
        .in_file(path)
        .hint(format!("a plan of {PAIRS_LIMIT} at most")));
    }
    Ok(plan)
}

fn check_size(args: &PlanArgs) -> Result<()> {
    let (options, limit) = match (&args.schedule, args.chunks) {
        (Schedule::Auto, _) => ("--stages or --microbatches", SEARCH_LIMIT),
        (_, None) => ("--stages or --microbatches", PAIRS_LIMIT),
        (_, Some(_)) => ("--stages, --chunks or --microbatches", PAIRS_LIMIT),
    };
    let product = pairs(args);
    if product > limit {
        let schedule = &args.schedule;
        return Err(Error::config(format!(
            "{product} pairs of stage and microbatch are too many for {schedule}"
        ))
        .hint(format!("fewer {options}: their product at most {limit}")));
    }
    Ok(())
}

/// How many pairs of stage and microbatch the arguments ask for.
fn pairs(args: &PlanArgs) -> u64 {
    let factors = [args.chunks.unwrap_or(1), args.stages, args.microbatches];
    factors.map(u64::from).iter().product()
}

/// What a device's whole share costs is divided evenly over its chunks.
fn costs(args: &PlanArgs, placement: &Placement) -> Result<Costs> {
    let times = args.cost.of(placement.device_count() as u32)?;
    let mut costs = Costs::unit(placement.stage_count());
    for (stage, &device) in costs.stages.iter_mut().zip(&placement.stages) {
        let chunks = placement.stages_of(device).count() as f64;
        *stage = share(times[device.index()], chunks);
        stage.bytes = args.stash.bytes(|parts| parts);
        // For a plan that is forward only, where nothing is left after F.
        stage.bytes.working[Work::F] = stage.bytes.forward_for_b + stage.bytes.forward_for_w;
    }
    costs.boundaries.fill(boundary(args));
    costs.transfers = args.transfer.of(placement.device_count())?;
    Ok(costs)
}

/// What no order within the limit takes less than, where a chunk stashes its part of a device's
/// whole share.
fn bound_of_even_shares(
    args: &PlanArgs,
    plan: &Plan,
    simulation: &Simulation,
    costs: &Costs,
) -> Result<f64> {
    let Some(limit) = args.memory_limit.filter(|_| !plan.is_forward_only()) else {
        return Ok(simulation.lower_bound);
    };
    let (placement, mut costs) = (&plan.placement, costs.clone());
    for (stage, &device) in costs.stages.iter_mut().zip(&placement.stages) {
        let chunks = placement.stages_of(device).count() as u64;
        stage.bytes = args.stash.bytes(|parts| parts * PART_BYTES / chunks);
    }
    costs.boundaries.fill(BoundaryCost::default());
    let limits = vec![most(limit, args.stash.one() * PART_BYTES); placement.device_count()];
    let within = lower_bound_within(placement, plan.microbatches, &costs, &limits)?;
    Ok(within.max(simulation.lower_bound).min(simulation.bubble.makespan))
}

/// What the devices come to by themselves, if every action takes the time that it costs: from
/// zb-h1, or from zb-v with two chunks per device.
fn decided(args: &PlanArgs) -> Result<Proved> {
    let base = dynamic_base(args.chunks)?;
    check_size(args)?;
    let base = check(generate(base, args.stages, args.chunks, args.microbatches)?)?;
    let costs = costs(args, &base.plan().placement)?;
    let plan = dynamic(&base, &costs)?;
    let simulation = simulate_dynamic(&plan, &StashLimits::of(&base), &costs)?;
    within_limit(args, Proved::new(args, plan, costs, simulation))
}

/// A part of a device's whole share.
fn share(times: PerWork<f64>, parts: f64) -> StageCost {
    StageCost { time: times.map(|time| time / parts), ..StageCost::default() }
}

fn boundary(args: &PlanArgs) -> BoundaryCost {
    let bytes = args.activation_bytes.unwrap_or(0);
    BoundaryCost { activation_bytes: bytes, gradient_bytes: bytes }
}

/// The plan, if no device stashes more than `args` allow.
fn within_limit(args: &PlanArgs, proved: Proved) -> Result<Proved> {
    let Some(limit) = args.memory_limit else { return Ok(proved) };
    let Some((device, peak)) = over_limit(&proved.peak_stash, limit) else { return Ok(proved) };
    let most = rounded_up(proved.peak_stash.iter().copied().fold(0.0, f64::max));
    let (peak, unit) = (rounded_up(peak), args.stash.unit());
    let problem = format!("device {device} stashes {peak} {unit}, the limit is {limit}");
    Err(Error::plan(problem)
        .hint(format!("a limit of {most}, fewer --microbatches, or a schedule that stashes less")))
}

/// The most bytes within `limit`, of which one is so many.
fn most(limit: f64, one: u64) -> u64 {
    let (nearest, one) = ((limit * one as f64).round(), one as f64);
    if nearest / one > limit { (nearest - 1.0) as u64 } else { nearest as u64 }
}

/// A peak, so that a limit of as much as is printed is no less.
fn rounded_up(peak: f64) -> String {
    let nearest = short(peak);
    let is_less = nearest.parse::<f64>().is_ok_and(|nearest| nearest < peak);
    if is_less { short(peak + 0.001) } else { nearest }
}

/// The first device whose peak stash is above `limit`, and that peak.
fn over_limit(peak_stash: &[f64], limit: f64) -> Option<(DeviceId, f64)> {
    let peaks = (0u32..).map(DeviceId).zip(peak_stash.iter().copied());
    peaks.into_iter().find(|(_, peak)| *peak > limit)
}

impl Proved {
    /// A plan whose costs are those of [`costs`].
    fn new(args: &PlanArgs, plan: CheckedPlan, costs: Costs, simulation: Simulation) -> Self {
        let placement = &plan.plan().placement;
        let devices = (0u32..).map(DeviceId).zip(&simulation.memory);
        let peak = |(device, memory): (DeviceId, &DeviceMemory)| {
            let one = args.stash.one() * placement.stages_of(device).count() as u64;
            memory.peak_stash_bytes as f64 / one as f64
        };
        let peak_stash = devices.map(peak).collect();
        Self {
            plan,
            costs,
            simulation,
            peak_stash,
            best_family: None,
            cut_short: false,
            lower_bound: None,
        }
    }

    fn makespan(&self) -> f64 {
        self.simulation.bubble.makespan
    }
}

fn names(lane: &[Action]) -> Vec<String> {
    lane.iter().map(ToString::to_string).collect()
}

impl Moves {
    /// The same for scripts.
    pub fn of(moves: &Communication) -> Self {
        let links = moves.links.iter();
        Self {
            links: links
                .map(|of| LinkMoves { link: of.link.to_string(), bytes: of.bytes })
                .collect(),
            shared_bytes: moves.shared_bytes,
            total_bytes: moves.total_bytes,
            all_reduce_bytes: moves.all_reduce_bytes,
        }
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a step", bytes(self.total_bytes))?;
        let most = self.links.iter().map(|link| link.bytes).max();
        if let Some(most) = most {
            write!(f, ", at most {} on each of {} links", bytes(most), self.links.len())?;
        }
        if self.shared_bytes > 0 {
            write!(f, ", {} for shared parameters", bytes(self.shared_bytes))?;
        }
        if self.all_reduce_bytes > 0 {
            write!(f, "; an all-reduce of all gradients {}", bytes(self.all_reduce_bytes))?;
        }
        Ok(())
    }
}

impl Timetable {
    /// As text in the format that was asked for, if it is not JSON.
    pub fn text(&self, format: Format) -> String {
        match format {
            Format::Text | Format::Json => self.to_string(),
            Format::Plan => self.plan.plan().to_string(),
            Format::Csv => to_csv(&self.plan),
            Format::Svg => {
                let annotations = Annotations {
                    schedule: &self.plan.plan().schedule,
                    unit: "",
                    peak_stash: &self.peak_stash,
                };
                svg(&self.simulation.timeline, &annotations)
            }
        }
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { schedule, lanes, microbatches, .. } = self.plan.plan();
        let timeline = &self.simulation.timeline;
        let devices = counted(lanes.len(), "device");
        let microbatches = counted(*microbatches as usize, "microbatch");
        writeln!(f, "{schedule}, {devices}, {microbatches}\n")?;
        writeln!(f, "{}", draw(timeline, width(timeline)))?;
        writeln!(
            f,
            "makespan     {} (no order of this work takes less than {})",
            short(self.makespan),
            short(self.lower_bound)
        )?;
        if let Some(Compared { name, makespan, gain }) = &self.best_family {
            let (makespan, longer) = (short(*makespan), percent(*gain));
            writeln!(f, "best family  {makespan} by {name}, which takes {longer} longer")?;
        }
        writeln!(f, "step bubble  {}", percent(self.step_bubble))?;
        writeln!(f, "span bubble  {}", percent(self.span_bubble))?;
        if self.cut_short == Some(true) {
            writeln!(
                f,
                "cut short    for so large a plan `auto` tries less: there may be a faster one"
            )?;
        }
        let stash = self.peak_stash.iter().map(|peak| short(*peak)).collect::<Vec<_>>().join(" ");
        writeln!(f, "peak stash   {stash} ({} of each device)", self.stash.unit())?;
        if let Some(moves) = &self.communication {
            writeln!(f, "moved        {moves}")?;
        }
        self.order.iter().try_for_each(|order| writeln!(f, "order        {order}"))
    }
}
