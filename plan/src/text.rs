//! Plan <-> text: three lines of head, then one line per lane.
//!
//! ```text
//! schedule gpipe
//! microbatches 2
//! placement 0 1
//! device 0: 0F0  0F1  0BW0 0BW1
//! device 1: 1F0  1F1  1BW0 1BW1
//! ```
//!
//! One line per lane, so that a moved action is a change of one line. Blank lines and lines that
//! start with `#` are skipped. Whether the plan can run is not asked here, but in `check`.

use std::fmt;
use std::str::FromStr;

use super::action::{Action, DeviceId, MicrobatchId, StageId};
use super::{Placement, Plan, Work};
use crate::error::{Error, Result, quoted};
use crate::lines::Lines;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "schedule {}", self.schedule)?;
        writeln!(f, "microbatches {}", self.microbatches)?;
        write!(f, "placement")?;
        self.placement.stages.iter().try_for_each(|device| write!(f, " {device}"))?;
        writeln!(f)?;
        let cells = |lane: &[Action]| lane.iter().map(Action::to_string).collect::<Vec<_>>();
        let lanes: Vec<Vec<String>> = self.lanes.iter().map(|lane| cells(lane)).collect();
        let width = lanes.iter().flatten().map(String::len).max().unwrap_or(0);
        for (device, lane) in lanes.iter().enumerate() {
            let line: String = lane.iter().map(|cell| format!(" {cell:width$}")).collect();
            writeln!(f, "device {device}:{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(|(plan, _)| plan)
    }
}

/// The plan, and the lines that it stands in.
pub(super) fn parse(text: &str) -> Result<(Plan, Lines)> {
    let mut lines = (1usize..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (number, schedule) = head(&mut lines, "schedule")?;
    if schedule.is_empty() {
        return Err(bad(number, 1, "the schedule has no name"));
    }
    if !schedule.chars().all(prints) {
        let name = quoted(schedule);
        return Err(bad(number, 1, &format!("{name} has a character that does not print")));
    }
    let (microbatches_line, count) = head(&mut lines, "microbatches")?;
    let microbatches = count.parse().map_err(|_| {
        let reason = format!("{} is not a number of microbatches", quoted(count));
        bad(microbatches_line, 1, &reason)
    })?;
    let (placement_line, devices) = head(&mut lines, "placement")?;
    let stages = (1..)
        .zip(devices.split_whitespace())
        .map(|(cell, device)| {
            let reason = format!("{} is not a device number", quoted(device));
            device.parse().map(DeviceId).map_err(|_| bad(placement_line, cell, &reason))
        })
        .collect::<Result<_>>()?;
    let (mut lanes, mut lane_lines) = (Vec::new(), Vec::new());
    for (device, (number, line)) in (0u32..).zip(lines) {
        lanes.push(lane(device, number, line)?);
        lane_lines.push(number);
    }
    let schedule = schedule.to_owned();
    let plan = Plan { schedule, microbatches, placement: Placement { stages }, lanes };
    let lines = Lines {
        microbatches: microbatches_line,
        placement: placement_line,
        lanes: lane_lines,
        // The head of a line is its cell 0.
        cells: plan.lanes.iter().map(|lane| (1..=lane.len()).collect()).collect(),
    };
    Ok((plan, lines))
}

/// Whether a terminal shows the character and does nothing else.
fn prints(c: char) -> bool {
    // Not the first, so that a mark on the letter before it prints as well.
    let text = ['a', c].iter().collect::<String>();
    text.escape_debug().eq(text.chars()) || ['\'', '"', '\\'].contains(&c)
}

/// The number and the value of the next line, which must start with `key`.
fn head<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    key: &str,
) -> Result<(usize, &'a str)> {
    let Some((number, line)) = lines.next() else {
        return Err(Error::plan(format!("the text ends before '{key}'"))
            .hint("a plan is a schedule, microbatches, placement and device lines"));
    };
    match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
        (found, value) if found == key => Ok((number, value.trim())),
        (found, _) => Err(bad(number, 0, &format!("{} is not '{key}'", quoted(found)))),
    }
}

/// Reads `device 0: 0F0 0F1`.
fn lane(device: u32, number: usize, line: &str) -> Result<Vec<Action>> {
    let label = format!("device {device}:");
    let Some(cells) = line.strip_prefix(&label) else {
        return Err(bad(number, 0, &format!("the line does not start with '{label}'")));
    };
    (1..)
        .zip(cells.split_whitespace())
        .map(|(cell, action)| {
            action
                .parse::<Action>()
                .map_err(|error| bad(number, cell, &error.problem).hint(error.hint))
        })
        .collect()
}

/// The head of a line is its cell 0, what follows is counted from 1.
fn bad(line: usize, cell: usize, reason: &str) -> Error {
    Error::plan(format!("line {line}, cell {cell}: {reason}"))
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::plan(format!("{} is not an action", quoted(text)))
                .hint("stage, work, microbatch, as in 2F0, 2B0, 2W0 or 2BW0")
        };
        let letters = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (stage, rest) = text.split_at(letters);
        let digits = rest.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
        let (letters, microbatch) = rest.split_at(digits);
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| bad());
        let (stage, microbatch) = (StageId(number(stage)?), MicrobatchId(number(microbatch)?));
        let works = Work::ALL.map(|work| Self::new(stage, work, microbatch));
        let mut all = works.into_iter().chain([Self::fused(stage, microbatch)]);
        all.find(|action| action.letters() == letters).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
schedule gpipe
microbatches 2
placement 0 1
device 0: 0F0  0F1  0BW0 0BW1
device 1: 1F0  1F1  1BW0 1BW1
";

    #[test]
    fn a_plan_prints_as_the_text_it_was_read_from() {
        assert_eq!(TEXT.parse::<Plan>().unwrap().to_string(), TEXT);
        let edited = format!("# by hand\n\n  {TEXT}").replace("  0F1  ", "\t0F1 ");
        assert_eq!(edited.parse::<Plan>().unwrap().to_string(), TEXT);
    }

    #[test]
    fn bad_text_is_an_error_that_names_line_and_cell() {
        let action = "(try: stage, work, microbatch, as in 2F0, 2B0, 2W0 or 2BW0)";
        let rows = [
            ("1F1 ", "1X1 ", format!("line 5, cell 2: '1X1' is not an action {action}")),
            ("0BW1", "0BW", format!("line 4, cell 4: '0BW' is not an action {action}")),
            (
                "0F0",
                "0F4294967296",
                format!("line 4, cell 1: '0F4294967296' is not an action {action}"),
            ),
            ("schedule", "plan", "line 1, cell 0: 'plan' is not 'schedule'".into()),
            (" gpipe", "", "line 1, cell 1: the schedule has no name".into()),
            ("s 2", "s two", "line 2, cell 1: 'two' is not a number of microbatches".into()),
            ("t 0 1", "t 0 -1", "line 3, cell 2: '-1' is not a device number".into()),
            (
                "device 1",
                "device 2",
                "line 5, cell 0: the line does not start with 'device 1:'".into(),
            ),
        ];
        for (from, to, error) in rows {
            let text = TEXT.replacen(from, to, 1);
            assert_eq!(text.parse::<Plan>().expect_err(to).to_string(), error);
        }
        let long = TEXT.replace("1F1", &"x".repeat(1_000_000));
        let error = format!("line 5, cell 2: '{}...' is not an action {action}", "x".repeat(40));
        assert_eq!(long.parse::<Plan>().unwrap_err().to_string(), error);
        assert_eq!("".parse::<Plan>().unwrap_err().problem, "the text ends before 'schedule'");
    }
    #[test]
    fn no_error_repeats_what_a_terminal_obeys() {
        let rows = [
            ("schedule", "\u{1b}[2J", "line 1, cell 0: '\\u{1b}[2J' is not 'schedule'"),
            (
                "gpipe",
                "\u{1b}]0;x\u{7}",
                "line 1, cell 1: '\\u{1b}]0;x\\u{7}' has a character that does not print",
            ),
            (
                "gpipe",
                "\u{202e}epipg",
                "line 1, cell 1: '\\u{202e}epipg' has a character that does not print",
            ),
            ("s 2", "s \u{8}2", "line 2, cell 1: '\\u{8}2' is not a number of microbatches"),
            ("t 0", "t \u{9b}0", "line 3, cell 1: '\\u{9b}0' is not a device number"),
            ("1F1", "1F1\u{1b}[m", "line 5, cell 2: '1F1\\u{1b}[m' is not an action"),
        ];
        for (from, to, error) in rows {
            let text = TEXT.replacen(from, to, 1);
            assert_eq!(text.parse::<Plan>().expect_err(to).problem, error);
        }
        let name = "e\u{301}t\u{e9} \"1\" '2' \\ \u{4e2d}";
        let named = TEXT.replacen("gpipe", name, 1);
        assert_eq!(named.parse::<Plan>().unwrap().to_string(), named);
    }
}
