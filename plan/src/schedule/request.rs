//! What a user asks for: a family by its name, a plan made for the case, or one that is given.

use std::fmt;
use std::str::FromStr;

use super::{FAMILIES, Family};
use crate::Plan;
use crate::error::{Error, Result, quoted};

/// Where the order of actions comes from. All but [`Schedule::Fixed`] parse from what they print.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// A family's plan.
    Family(&'static Family),
    /// `auto`: a plan searched for the measured costs and the memory limit.
    Auto,
    /// `dynamic`: each device runs what is ready, decided while the step runs.
    Dynamic,
    /// This plan. Prints as the name in it.
    Fixed(Box<Plan>),
}

impl Schedule {
    /// Every name that parses: the families', `auto`, `dynamic`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|family| family.name).chain([AUTO, DYNAMIC])
    }
}

const AUTO: &str = "auto";
const DYNAMIC: &str = "dynamic";

impl From<&'static Family> for Schedule {
    fn from(family: &'static Family) -> Self {
        Self::Family(family)
    }
}

impl From<Plan> for Schedule {
    fn from(plan: Plan) -> Self {
        Self::Fixed(Box::new(plan))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Family(family) => family.name,
            Self::Auto => AUTO,
            Self::Dynamic => DYNAMIC,
            Self::Fixed(plan) => &plan.schedule,
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            AUTO => return Ok(Self::Auto),
            DYNAMIC => return Ok(Self::Dynamic),
            _ => {}
        }
        let family = FAMILIES.iter().copied().find(|family| family.name == name);
        family.map(Self::Family).ok_or_else(|| {
            let names: Vec<&str> = Self::names().collect();
            Error::config(format!("there is no schedule {}", quoted(name))).hint(names.join(", "))
        })
    }
}
