//! Options of `compare`.

use clap::Args;
use zerobubble::plan::{Schedule, dynamic_base, generate};
use zerobubble::train::{Recompute, Variant};

use super::common::CommonArgs;
use super::values::{count, training_schedule, training_schedules};

/// Chunks that are tried where nothing else is said, beside a schedule's own.
const CHUNKS: [u32; 2] = [2, 4];

/// Options of `compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// Those that `train` has too.
    #[command(flatten)]
    pub common: CommonArgs,
    // The help is made of the names, so that a new schedule cannot be missing there.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = training_schedule,
        help = format!("Schedules, with commas between [default: {}]", training_schedules())
    )]
    schedules: Vec<Schedule>,
    /// Numbers of microbatches, each of as many sequences: more of them are a larger batch
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "8",
        value_parser = count::<u32>(65_536)
    )]
    pub microbatches: Vec<u32>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = count::<u32>(64),
        help = "Stages of each device, with schedules that leave a choice [default: 2,4; with \
                dynamic 1,2]"
    )]
    chunks: Vec<u32>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help = "What computes F again before B: none, stage or auto [default: none,stage; with \
                --memory-limit-per-device none,auto,stage]"
    )]
    recompute: Vec<Recompute>,
    /// Steps of every variant, besides those that warm up
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count::<u32>(10_000))]
    pub steps: u32,
}

impl CompareArgs {
    /// Everything that is asked for.
    pub fn variants(&self) -> Vec<Variant> {
        let names = training_schedules();
        let all = names.split(", ").filter_map(|name| training_schedule(name).ok());
        let schedules: Vec<Schedule> = match self.schedules[..] {
            [] => all.collect(),
            _ => self.schedules.clone(),
        };
        let mut variants = Vec::new();
        for schedule in &schedules {
            for &microbatches in &self.microbatches {
                for chunks in chunk_choices(schedule, &self.chunks) {
                    let microbatches = Some(microbatches);
                    variants.extend(self.recomputes().into_iter().map(|recompute| Variant {
                        schedule: schedule.clone(),
                        chunks,
                        microbatches,
                        recompute,
                    }));
                }
            }
        }
        variants
    }

    fn recomputes(&self) -> Vec<Recompute> {
        match (&self.recompute[..], self.common.memory_limit_per_device) {
            ([], None) => vec![Recompute::None, Recompute::Stage],
            ([], Some(_)) => vec![Recompute::None, Recompute::Auto, Recompute::Stage],
            (asked, _) => asked.to_vec(),
        }
    }
}

/// Of the numbers of chunks that are `asked` for those that the schedule can have, where it leaves
/// a choice. None is the schedule's own.
fn chunk_choices(schedule: &Schedule, asked: &[u32]) -> Vec<Option<u32>> {
    let can = |chunks: &u32| match schedule {
        Schedule::Family(family) => generate(family, 1, Some(*chunks), 1).is_ok(),
        Schedule::Dynamic => dynamic_base(Some(*chunks)).is_ok(),
        Schedule::Auto | Schedule::Fixed(_) => false,
    };
    let several = (1..=4).filter(can).count() > 1;
    let list: &[u32] = match (asked, schedule) {
        ([], Schedule::Dynamic) => &[1, 2],
        ([], _) => &CHUNKS,
        _ => asked,
    };
    match (several, list.iter().any(can)) {
        (false, _) => vec![None],
        (true, true) => list.iter().copied().filter(can).map(Some).collect(),
        // It is refused, with the reason.
        (true, false) => list.first().map(|chunks| vec![Some(*chunks)]).unwrap_or_default(),
    }
}
