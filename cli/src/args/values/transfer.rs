//! What a parcel takes from device to device: one time, one per neighbouring pair, or a file.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use zerobubble::error::{Error, Result};
use zerobubble::plan::{DeviceId, TransferCost, Transfers};

use super::time;
use crate::plan::text;

/// Times of transfers as they were written.
#[derive(Clone, Debug)]
pub enum TransferTimes {
    /// The same between all devices.
    Same(f64),
    /// Entry d is between device d and device d + 1.
    Pairs(Vec<f64>),
    /// A file with a row for each device, read when it is first needed.
    InFile(PathBuf, Arc<OnceLock<Result<Rows>>>),
}

/// Times by the device that sends and the one that takes.
type Rows = Vec<Vec<f64>>;

impl TransferTimes {
    /// The transfers between so many devices.
    ///
    /// # Errors
    ///
    /// When the times are of another number of devices, or the file cannot be used.
    pub fn of(&self, devices: usize) -> Result<Transfers> {
        match self {
            Self::Same(time) => Ok(Transfers::uniform(TransferCost::of_any_size(*time))),
            Self::Pairs(times) if times.len() + 1 == devices => {
                let times = times.iter().map(|time| TransferCost::of_any_size(*time));
                Ok(Transfers::along_a_line(&times.collect::<Vec<_>>()))
            }
            Self::Pairs(times) => Err(Error::config(format!(
                "--transfer has {} times for the {} neighbouring pairs of {devices} devices",
                times.len(),
                devices.saturating_sub(1)
            ))
            .hint("one time for all, one for each pair, or a file with a row for each device")),
            Self::InFile(path, rows) => {
                let read = || text(path, HINT).and_then(|text| rows_of(&text));
                let rows = rows.get_or_init(|| read().map_err(|error| error.in_file(path)));
                let rows = rows.as_ref().map_err(Error::clone)?;
                if rows.len() != devices {
                    let problem = format!("{} rows for {devices} devices", rows.len());
                    return Err(Error::config(problem).in_file(path).hint(HINT));
                }
                let time = |from: DeviceId, to: DeviceId| rows[from.index()][to.index()];
                let cost = |from, to| TransferCost::of_any_size(time(from, to));
                Ok(Transfers::from_fn(devices, cost))
            }
        }
    }
}

impl FromStr for TransferTimes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let is_number = |part: &str| part.trim().parse::<f64>().is_ok();
        if !text.split(',').all(is_number) {
            return Ok(Self::InFile(text.into(), Arc::default()));
        }
        let times: Vec<f64> = text.split(',').map(time).collect::<std::result::Result<_, _>>()?;
        Ok(match times[..] {
            [time] => Self::Same(time),
            _ => Self::Pairs(times),
        })
    }
}

/// The rows of a file: times with commas or blanks between, `#` before what is not read.
fn rows_of(text: &str) -> Result<Rows> {
    let bad = |line: usize, problem: String| {
        Err(Error::data(format!("line {line}: {problem}")).hint(HINT))
    };
    let mut rows: Vec<(usize, Vec<f64>)> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let mut row = Vec::new();
        for cell in text.split(',').flat_map(cells) {
            match (cell, time(cell)) {
                ("-", _) if row.len() == rows.len() => row.push(0.0),
                (_, Ok(time)) if row.len() == rows.len() && time != 0.0 => {
                    let device = row.len();
                    let problem = format!("{time} from device {device} to itself, which is 0 or -");
                    return bad(line, problem);
                }
                (_, Ok(time)) => row.push(time),
                (_, Err(problem)) => return bad(line, problem),
            }
        }
        rows.push((line, row));
    }
    let devices = rows.len();
    if devices == 0 {
        return Err(Error::data("no times are in it").hint(HINT));
    }
    match rows.iter().find(|(_, row)| row.len() != devices) {
        Some((line, row)) => bad(*line, format!("{} times in one of {devices} rows", row.len())),
        None => Ok(rows.into_iter().map(|(_, row)| row).collect()),
    }
}

/// What stands between two commas; nothing there is a cell too, which is no time.
fn cells(part: &str) -> Vec<&str> {
    let cells: Vec<&str> = part.split_whitespace().collect();
    if cells.is_empty() { vec![""] } else { cells }
}

const HINT: &str = "a time, one per neighbouring pair, or a file with a row for each device that \
                    sends and in it a time for each that takes";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time_between(text: &str, devices: usize, from: u32, to: u32) -> f64 {
        let times: TransferTimes = text.parse().unwrap();
        times.of(devices).unwrap().time(DeviceId(from), DeviceId(to), 9)
    }

    #[test]
    fn what_parses_as_numbers_is_numbers() {
        assert_eq!(time_between("2.5", 3, 2, 0), 2.5);
        assert_eq!(time_between("1, 20,3", 4, 1, 2), 20.0);
        assert_eq!(time_between("1,20,3", 4, 3, 0), 24.0);
        for wrong in ["-1", "nan", "1,inf", "1,-2,3"] {
            assert!(wrong.parse::<TransferTimes>().unwrap_err().contains("is not a time"));
        }
        let of = |text: &str| text.parse::<TransferTimes>().unwrap().of(4).unwrap_err().to_string();
        assert!(of("1,2").starts_with("--transfer has 2 times for the 3 neighbouring pairs of 4"));
        assert!(of("no-such-file").starts_with("no-such-file: cannot be read"));
        assert!(of("1,x").starts_with("1,x: cannot be read"));
    }

    #[test]
    fn a_file_says_in_which_line_it_is_wrong() {
        let problem = |text: &str| rows_of(text).unwrap_err().to_string();
        let rows = [
            ("", "no times are in it"),
            ("# only a comment\n", "no times are in it"),
            ("0 1\n1 0 2", "line 2: 3 times in one of 2 rows"),
            ("0 1\n\n# b\nx 0", "line 4: 'x' is not a time, 0 or more"),
            ("0,,1\n1,0", "line 1: '' is not a time, 0 or more"),
            ("0 -1\n1 0", "line 1: '-1' is not a time, 0 or more"),
            ("0 inf\n1 0", "line 1: 'inf' is not a time, 0 or more"),
            ("0 -\n1 0", "line 1: '-' is not a time, 0 or more"),
            ("5 1\n1 0", "line 1: 5 from device 0 to itself, which is 0 or -"),
        ];
        for (text, expected) in rows {
            assert!(problem(text).starts_with(expected), "{text:?}: {}", problem(text));
        }
        assert_eq!(rows_of("- 1 # up\n2,0").unwrap(), [[0.0, 1.0], [2.0, 0.0]]);
    }

    proptest! {
        #[test]
        fn any_text_is_rows_or_an_error(text in ".{0,60}", lines in "([0-9.,# \n-]|inf){0,60}") {
            for text in [text, lines] {
                if let Ok(rows) = rows_of(&text) {
                    prop_assert!(rows.iter().all(|row| row.len() == rows.len()));
                    let usable = |time: &f64| time.is_finite() && *time >= 0.0;
                    prop_assert!(rows.iter().flatten().all(usable));
                }
                drop(text.parse::<TransferTimes>());
            }
        }

        #[test]
        fn rows_that_are_written_are_read_back(
            devices in 1usize..6,
            times in prop::collection::vec(0.0..1e9f64, 36),
            comma in any::<bool>(),
        ) {
            let time = |from: usize, to: usize| if from == to { 0.0 } else { times[6 * from + to] };
            let rows: Rows =
                (0..devices).map(|from| (0..devices).map(|to| time(from, to)).collect()).collect();
            let between = if comma { "," } else { " " };
            let line = |row: &Vec<f64>| {
                row.iter().map(f64::to_string).collect::<Vec<_>>().join(between)
            };
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(rows_of(&text).unwrap(), rows);
        }
    }
}
