//! Text -> Plan, in whichever form the text is, and what is wrong with a plan by line and cell.

use super::Plan;
use super::check::{CheckedPlan, check};
use super::lines::Lines;
use super::{csv, text};
use crate::error::Result;

/// A plan that was read and proved.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// The plan.
    pub plan: CheckedPlan,
    /// What its reader should be told of how it was read, in one line.
    pub note: Option<String>,
}

/// Reads a plan in whichever form it is: as CSV, or as the text that it prints as.
///
/// A line of the text starts with a word or `#`, a row of the CSV never does.
///
/// # Errors
///
/// At the first line or cell that cannot be read. Whether the plan can run is not asked here.
pub fn read(text: &str) -> Result<Plan> {
    parse(text).map(|(plan, ..)| plan)
}

/// Reads a plan as [`read`] does, and proves that it can run.
///
/// # Errors
///
/// Those of [`read`] and of [`check`], all with the line of the text, and with the cell where it is
/// of one action.
pub fn read_checked(text: &str) -> Result<ReadPlan> {
    let (plan, lines, note) = parse(text)?;
    match check(plan) {
        Ok(plan) => Ok(ReadPlan { plan, note }),
        Err(error) => {
            let hints =
                [Some(error.hint.as_str()).filter(|hint| !hint.is_empty()), note.as_deref()];
            let hint = hints.into_iter().flatten().collect::<Vec<_>>().join("; ");
            Err(lines.locate(error).hint(hint))
        }
    }
}

fn parse(text: &str) -> Result<(Plan, Lines, Option<String>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_word = |c: char| c.is_alphabetic() || c == '#';
    if text.trim_start().chars().next().is_none_or(is_word) {
        text::parse(text).map(|(plan, lines)| (plan, lines, None))
    } else {
        csv::parse(text)
    }
}
