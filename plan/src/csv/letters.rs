//! The letters of a CSV, of which PyTorch has had three sets.
//!
//! | | full backward | gradient of the input | gradient of the weights |
//! |---|---|---|---|
//! | at first | `B`, in a file without `W` | `B`, in a file with `W` | `W` |
//! | then | `BW` | `B` | `W` |
//! | today | `B` | `I` | `W` |
//!
//! A `W` needs the gradient of the input apart, so today it is never without `I`; and no set has
//! both `I` and `BW`. So a file says itself which letters it has. Where it has F and B alone, B is
//! a full backward.

use super::cell::{Cell, Letter};
use crate::action::Action;
use crate::error::{Error, Result};
use crate::work::Work;

/// What `B` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// A full backward.
    Today,
    /// The gradient of the input, as there is W and no I.
    First,
    /// The gradient of the input, as a full backward is BW.
    Second,
}

impl Letters {
    /// The letters of a file of these cells.
    ///
    /// # Errors
    ///
    /// At the first cell that no set has together with one before it.
    pub fn of<'a>(cells: impl Iterator<Item = &'a Cell> + Clone) -> Result<Self> {
        // Compound cells came after the last change of the letters.
        let is_today = |cell: &&Cell| {
            cell.letter == Letter::I || (cell.is_compound && cell.letter != Letter::BW)
        };
        let today = cells.clone().find(is_today);
        let second = cells.clone().find(|cell| cell.letter == Letter::BW);
        match (today, second) {
            (Some(today), Some(second)) => Err(together(today, second)),
            (None, Some(_)) => Ok(Self::Second),
            (None, None) if cells.clone().any(|cell| cell.letter == Letter::W) => Ok(Self::First),
            (_, None) => Ok(Self::Today),
        }
    }

    /// What the cell says.
    pub fn action(self, cell: Cell) -> Action {
        let Cell { stage, letter, microbatch, .. } = cell;
        match letter {
            Letter::F => Action::new(stage, Work::F, microbatch),
            Letter::I => Action::new(stage, Work::B, microbatch),
            Letter::W => Action::new(stage, Work::W, microbatch),
            Letter::B if self != Self::Today => Action::new(stage, Work::B, microbatch),
            Letter::B | Letter::BW => Action::fused(stage, microbatch),
        }
    }

    /// How older letters were read.
    pub fn note(self) -> Option<String> {
        let why = match self {
            Self::Today => return None,
            Self::First => "as there is W and no I",
            Self::Second => "as a full backward is BW there",
        };
        Some(format!(
            "older letters of PyTorch: B is read as the gradient of the input, {why}; today that \
             is I, and B a full backward"
        ))
    }
}

/// The error of two cells of which one is of today and one is not, at the later of them.
fn together(today: &Cell, older: &Cell) -> Error {
    let place = |cell: &Cell| (cell.at.line, cell.at.cell);
    let (first, last) = if place(older) < place(today) { (older, today) } else { (today, older) };
    let (line, column) = place(first);
    let problem =
        format!("'{last}', but '{first}' in line {line}, cell {column}, is of other letters");
    last.at.locate(Error::plan(problem).hint(
        "F, I, W and B, where I is the gradient of the input and B a full backward; or the older \
         F, B, W and BW, where B is the gradient of the input and BW a full backward",
    ))
}

#[cfg(test)]
mod tests {
    use crate::{check, from_csv, read_checked, to_csv};

    /// The lanes as the text of plans writes them.
    fn lanes(text: &str) -> String {
        let plan = from_csv(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let text = plan.to_string();
        text.split_once("device 0: ").expect("a lane").1.replace("\ndevice 1: ", " | ")
    }

    #[test]
    fn b_is_what_the_other_letters_of_the_file_make_of_it() {
        // Today's, which all agree on where there is neither I nor W nor BW.
        assert_eq!(lanes("0F0,0F1,0B0,0B1"), "0F0  0F1  0BW0 0BW1\n");
        assert_eq!(lanes("0F0,0F1,0I0,0W0,0B1"), "0F0  0F1  0B0  0W0  0BW1\n");
        assert_eq!(lanes("0F0,0I0,0W0\n1F0,1B0"), "0F0  0B0  0W0 | 1F0  1BW0\n");
        // At first.
        assert_eq!(lanes("0F0,0F1,0B0,0B1,0W0,0W1"), "0F0 0F1 0B0 0B1 0W0 0W1\n");
        assert_eq!(lanes("0F0,0B0\n1F0,1B0,1W0"), "0F0 0B0 | 1F0 1B0 1W0\n");
        // Then.
        assert_eq!(lanes("0F0,0F1,0BW0,0B1,0W1"), "0F0  0F1  0BW0 0B1  0W1\n");
        assert_eq!(lanes("0F0,0B0,0W0\n1F0,1BW0"), "0F0  0B0  0W0 | 1F0  1BW0\n");
        assert_eq!(lanes("0F0,0BW0"), "0F0  0BW0\n");
    }

    #[test]
    fn older_letters_are_told_and_written_as_today() {
        let first = "0F0,0F1,,0B0,0W0,0B1,0W1\n,1F0,1B0,1F1,1B1,1W0,1W1\n";
        let read = read_checked(first).unwrap();
        assert_eq!(
            read.note.as_deref(),
            Some(
                "older letters of PyTorch: B is read as the gradient of the input, as there is W \
                 and no I; today that is I, and B a full backward"
            )
        );
        let today = to_csv(&read.plan);
        assert_eq!(today, first.replace('B', "I"));
        let again = read_checked(&today).unwrap();
        assert_eq!((again.plan.plan(), again.note), (read.plan.plan(), None));
        let second = read_checked("0F0,0F1,0BW0,0B1,0W1").unwrap();
        assert!(second.note.unwrap().contains("as a full backward is BW there"));
        for text in ["0F0,0B0", "0F0,0I0,0W0", "0F0,0F1,0I0,0W0,0B1"] {
            assert_eq!(read_checked(text).unwrap().note, None, "{text}");
        }
    }

    #[test]
    fn letters_that_are_never_together_are_an_error_at_the_second() {
        let hint = "(try: F, I, W and B, where I is the gradient of the input and B a full \
            backward; or the older F, B, W and BW, where B is the gradient of the input and BW a \
            full backward)";
        let rows = [
            ("0F0,0I0,0W0\n1F0,1BW0", "line 2, cell 2: '1BW0', but '0I0' in line 1, cell 2,"),
            ("0F0,0BW0\n1F0,1I0,1W0", "line 2, cell 2: '1I0', but '0BW0' in line 1, cell 2,"),
            ("0F0,(0F1;0BW0)OVERLAP_F_B", "line 1, cell 2: '0BW0', but '0F1' in line 1, cell 2,"),
        ];
        for (text, error) in rows {
            let found = from_csv(text).expect_err(text).to_string();
            assert_eq!(found, format!("{error} is of other letters {hint}"));
        }
        // A compound cell is of today, where this W has no gradient of the input to go by.
        let compound = from_csv("0F0,(0F1;0B0)OVERLAP_F_B,0W0,0B1").unwrap();
        assert!(compound.lanes[0][2].is_fused());
        assert_eq!(
            check(compound).unwrap_err().problem,
            "duplicate: this work is already done (as BW)"
        );
    }

    #[test]
    fn an_error_in_older_letters_says_how_they_were_read() {
        let error = read_checked("0F0,0F1,0B0,0W0,0B1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 1: action 0W1 is missing (try: every stage runs B and W, or BW, once for every \
             microbatch; older letters of PyTorch: B is read as the gradient of the input, as \
             there is W and no I; today that is I, and B a full backward)"
        );
    }
}
