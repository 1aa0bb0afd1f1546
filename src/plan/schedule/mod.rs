//! A schedule's name -> Plan, by pure generators, one file per family.
//!
//! The generators know no cost: a plan is an order of actions, and the order fits any time.

mod gpipe;
mod one_f_one_b;
mod zb_h1;

use std::fmt;
use std::str::FromStr;

use super::action::{Action, MicrobatchId, StageId, Work};
use super::{Placement, Plan};
use crate::error::{Error, Result};

/// The families of schedules. Each prints as the name it parses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// `gpipe`: all forwards, then all backwards (Huang et al. 2019, section 2.3).
    GPipe,
    /// `1f1b`: one forward, one backward (Narayanan et al. 2019, section 3.2).
    OneFOneB,
    /// `zb-h1`: 1F1B with W moved into the bubble (Qi et al. 2023, section 2.1).
    ZbH1,
}

/// The plan of `schedule` for `devices` devices in a line and `microbatches` microbatches a step.
pub fn generate(schedule: Schedule, devices: u32, microbatches: u32) -> Result<Plan> {
    if devices == 0 || microbatches == 0 {
        return Err(Error::config(format!(
            "{schedule} on {devices} devices with {microbatches} microbatches: nothing to schedule"
        ))
        .hint("at least 1 device and 1 microbatch"));
    }
    let lane = match schedule {
        Schedule::GPipe => gpipe::lane,
        Schedule::OneFOneB => one_f_one_b::lane,
        Schedule::ZbH1 => zb_h1::lane,
    };
    Ok(Plan {
        schedule: schedule.to_string(),
        microbatches,
        placement: Placement::linear(devices),
        lanes: (0..devices).map(|i| lane(StageId(i), devices, microbatches)).collect(),
    })
}

impl Schedule {
    /// Every schedule, in the order they were invented.
    pub const ALL: [Self; 3] = [Self::GPipe, Self::OneFOneB, Self::ZbH1];
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GPipe => "gpipe",
            Self::OneFOneB => "1f1b",
            Self::ZbH1 => "zb-h1",
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|schedule| schedule.to_string() == name).ok_or_else(|| {
            let names = Self::ALL.map(|schedule| schedule.to_string());
            Error::config(format!("there is no schedule '{name}'")).hint(names.join(", "))
        })
    }
}

/// The actions of one kind of `stage`, by microbatch.
fn actions(stage: StageId, work: Work) -> impl Fn(u32) -> Action {
    move |microbatch| Action::new(stage, work, MicrobatchId(microbatch))
}
