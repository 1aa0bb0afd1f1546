//! `zerobubble bench plan`: what plans are worth, without any model.

mod auto;
mod waiting;

use std::fmt;

use serde::Serialize;
use zerobubble::error::Result;

/// How near plans are to the best, and how near devices come to plans.
#[derive(Serialize)]
pub struct Figures {
    auto: auto::Table,
    waiting: waiting::Table,
}

/// Searches plans for drawn cases, then plays plans on devices that only wait.
pub fn run() -> Result<Figures> {
    Ok(Figures { auto: auto::table()?, waiting: waiting::table()? })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.auto, self.waiting)
    }
}
