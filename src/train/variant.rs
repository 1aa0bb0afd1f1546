//! What a run's plan is made of.

use std::fmt;
use std::time::Duration;

use super::profile::Balance;
use super::recompute::Recompute;
use crate::error::{Error, Result};
use crate::plan::{Schedule, ZB_H1};

/// Microbatches of a step where nothing else is said.
const MICROBATCHES: u32 = 8;
/// How long blocks are timed where nobody asked for it.
const PROFILE_BUDGET: Duration = Duration::from_secs(1);

/// One of the ways to schedule the same training.
///
/// Prints on one line, such as `zb-v, 8 microbatches`.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The order in which devices work.
    pub schedule: Schedule,
    /// How many stages every device holds, where the schedule leaves a choice.
    pub chunks: Option<u32>,
    /// How many microbatches a step's batch is cut into: 8, or as many as a given plan has.
    pub microbatches: Option<u32>,
    /// Where F is recomputed before B.
    pub recompute: Recompute,
}

impl Default for Variant {
    fn default() -> Self {
        let schedule = Schedule::Family(&ZB_H1);
        Self { schedule, chunks: None, microbatches: None, recompute: Recompute::None }
    }
}

impl Variant {
    /// How many microbatches a step has.
    pub(super) fn microbatch_count(&self) -> Result<u32> {
        match (&self.schedule, self.microbatches) {
            (_, Some(0)) => Err(Error::config("0 microbatches").hint("1 or more")),
            (Schedule::Fixed(plan), Some(asked)) if asked != plan.microbatches => {
                let own = plan.microbatches;
                Err(Error::config(format!("the plan has {own} microbatches, not {asked}"))
                    .hint(format!("{own} microbatches")))
            }
            (Schedule::Fixed(plan), _) => Ok(plan.microbatches),
            (_, asked) => Ok(asked.unwrap_or(MICROBATCHES)),
        }
    }

    /// How long blocks may be timed: as long as it takes where that is `asked` for, or for a
    /// search.
    pub(super) fn profile_budget(&self, asked: Option<Balance>) -> Duration {
        match (asked, &self.schedule) {
            (Some(Balance::Flops), _) => Duration::ZERO,
            (None, Schedule::Family(_) | Schedule::Fixed(_) | Schedule::Dynamic) => PROFILE_BUDGET,
            (Some(Balance::Measured), _) | (None, Schedule::Auto) => Duration::MAX,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.schedule)?;
        if let Some(chunks) = self.chunks {
            write!(f, ", {chunks} chunk{}", if chunks == 1 { "" } else { "s" })?;
        }
        if let Ok(count) = self.microbatch_count() {
            write!(f, ", {count} microbatch{}", if count == 1 { "" } else { "es" })?;
        }
        match self.recompute {
            Recompute::None => Ok(()),
            recompute => write!(f, ", recompute {recompute}"),
        }
    }
}
