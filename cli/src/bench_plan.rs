//! `zerobubble bench plan`: what plans are worth, without any model.

mod auto;
mod memory;
mod waiting;

use std::fmt;

use serde::Serialize;
use zerobubble::error::Result;

/// How near plans are to the best, and how near devices come to plans.
#[derive(Serialize)]
pub struct Figures {
    auto: auto::Table,
    memory: memory::Table,
    waiting: waiting::Table,
}

/// Searches plans for drawn cases and for less and more memory, then plays plans on devices that
/// only wait.
pub fn run() -> Result<Figures> {
    Ok(Figures { auto: auto::table()?, memory: memory::table()?, waiting: waiting::table()? })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}", self.auto, self.memory, self.waiting)
    }
}
