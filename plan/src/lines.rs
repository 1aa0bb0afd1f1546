//! Where the parts of a plan stand in the text that it was read from.

use crate::error::{Error, PlanPart};

/// Lines count from 1, and so do cells.
pub(super) struct Lines {
    pub microbatches: usize,
    pub placement: usize,
    /// The line of every device's lane.
    pub lanes: Vec<usize>,
    /// The cell of every action of every lane.
    pub cells: Vec<Vec<usize>>,
}

impl Lines {
    /// The error with its line, and its cell where it is of one action.
    pub fn locate(&self, error: Error) -> Error {
        let place = match error.part {
            Some(PlanPart::Microbatches) => format!("line {}", self.microbatches),
            Some(PlanPart::Placement) => format!("line {}", self.placement),
            Some(PlanPart::Lane(device)) => format!("line {}", self.lanes[device.index()]),
            Some(PlanPart::Action(device, position)) => format!(
                "line {}, cell {}",
                self.lanes[device.index()],
                self.cells[device.index()][position]
            ),
            None => return error,
        };
        let action = error.action.map_or(String::new(), |action| format!("action {action}: "));
        let problem = format!("{place}: {action}{}", error.problem);
        Error { action: None, problem, ..error }
    }
}
