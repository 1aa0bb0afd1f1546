//! A cell of a CSV -> what it says, with the letters that it has.

use std::fmt;

use crate::action::{MicrobatchId, StageId};
use crate::error::{Error, Result, quoted};

/// What PyTorch adds to a schedule before it runs it.
const COMMUNICATION: [&str; 7] =
    ["UNSHARD", "RESHARD", "REDUCE_GRAD", "SEND_F", "RECV_F", "SEND_B", "RECV_B"];

/// What follows the parts of a compound cell.
const OVERLAP: &str = "OVERLAP_F_B";

/// One action as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub at: At,
    pub stage: StageId,
    pub letter: Letter,
    pub microbatch: MicrobatchId,
    /// Whether it is part of a compound cell.
    pub is_compound: bool,
}

/// What an action is called. What `B` means depends on the others in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    F,
    I,
    B,
    W,
    BW,
}

/// A cell of the text, counted from 1. Line n is the row of rank n - 1.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub line: usize,
    pub cell: usize,
}

impl At {
    /// The error with this place in front.
    pub fn locate(self, error: Error) -> Error {
        let At { line, cell } = self;
        Error { problem: format!("line {line}, cell {cell}: {}", error.problem), ..error }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}{}", self.stage, self.letter, self.microbatch)
    }
}

/// The actions of one cell: none where the rank idles, several in a compound cell.
pub fn cells(at: At, content: &str) -> Result<Vec<Cell>> {
    let content = unquoted(content.trim()).trim();
    let cells = match content.strip_prefix('(') {
        None if content.is_empty() => Ok(Vec::new()),
        None => cell(at, content).map(|cell| vec![cell]),
        Some(compound) => match compound.split_once(')') {
            Some((parts, OVERLAP)) => parts
                .split(';')
                .map(|part| Ok(Cell { is_compound: true, ..cell(at, part.trim())? }))
                .collect(),
            _ => Err(Error::plan(format!("{} is not a compound action", quoted(content)))
                .hint(format!("as in (0F1;7B0){OVERLAP}"))),
        },
    };
    cells.map_err(|error| at.locate(error))
}

/// No cell has a comma or a quote in it, so quotes can only be around all of it.
fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell)
}

fn cell(at: At, text: &str) -> Result<Cell> {
    let bad = || {
        Error::plan(format!("{} is not an action", quoted(text))).hint(
            "stage, F, I, B or W, microbatch, as in 2F0, where I is the gradient of the input \
             and B a full backward",
        )
    };
    let is_letter = |c: char| !c.is_ascii_digit();
    let letters = text.find(is_letter).ok_or_else(bad)?;
    let (stage, rest) = text.split_at(letters);
    let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (letter, microbatch) = rest.split_at(digits);
    // Of two in one, such as 1SEND_F0_2RECV_B1, the first says enough.
    if COMMUNICATION.contains(&letter) {
        return Err(Error::plan(format!("{} is not a compute action", quoted(text))).hint(
            "a compute-only schedule, such as _dump_csv writes with format=\"compute_only\"",
        ));
    }
    let letter = match letter {
        "F" => Letter::F,
        "I" => Letter::I,
        "B" => Letter::B,
        "W" => Letter::W,
        "BW" => Letter::BW,
        _ => return Err(bad()),
    };
    if [stage, microbatch].iter().any(|id| id.is_empty() || id.contains(is_letter)) {
        return Err(bad());
    }
    // One less than the most, so that the number of microbatches is a number as well.
    let number = |digits: &str| digits.parse().ok().filter(|number| *number < u32::MAX);
    match (number(stage), number(microbatch)) {
        (Some(stage), Some(microbatch)) => {
            let (stage, microbatch) = (StageId(stage), MicrobatchId(microbatch));
            Ok(Cell { at, stage, letter, microbatch, is_compound: false })
        }
        _ => Err(Error::plan(format!("{} has a number that is too large", quoted(text)))
            .hint(format!("numbers below {}", u32::MAX))),
    }
}
