//! Plan <-> the compute-only CSV of PyTorch's `torch.distributed.pipelining`.
//!
//! ```text
//! 0F0,0F1,,0I0,0W0,0B1
//! ,1F0,1B0,1F1,1B1
//! ```
//!
//! The format is what `_load_csv` and `_dump_csv` in `torch/distributed/pipelining/schedules.py`
//! read and write: one row per rank, one column per time slot, an empty cell where a rank idles.
//! `I` is the gradient of the stage's input, which is B here; `B` is a full backward, which is BW
//! here. Files with the letters that PyTorch had before are read as well: see `csv/letters.rs`. A
//! compound cell such as `(0F1;7B0)OVERLAP_F_B` is read as its parts in their order.
//!
//! A slot says when an action could run if all took the same time, so that the rows line up as a
//! timetable. Only the order counts: what is read back are the lanes and the placement. Whether
//! they can run is asked in `check`.

mod cell;
mod letters;

use std::collections::BTreeMap;

use super::action::{Action, DeviceId, StageId};
use super::check::CheckedPlan;
use super::lines::Lines;
use super::work::Work;
use super::{Placement, Plan};
use crate::error::{Error, Result};
use cell::{At, Cell, cells};
use letters::Letters;

/// Writes a plan with every action in its earliest time slot, where each action, a full backward
/// too, takes one slot. Nothing follows a row's last action.
pub fn to_csv(plan: &CheckedPlan) -> String {
    let mut rows = vec![String::new(); plan.plan().lanes.len()];
    // How many slots of a row are filled, and which slot each action has.
    let mut filled = vec![0usize; rows.len()];
    let mut slots: BTreeMap<Action, usize> = BTreeMap::new();
    for (at, action) in plan.in_order() {
        let device = at.device.index();
        let arrival = plan.inputs(action).parcel.map_or(0, |sender| slots[&sender] + 1);
        let slot = filled[device].max(arrival);
        // A comma stands before every cell but the first.
        let commas = if filled[device] == 0 { slot } else { slot + 1 - filled[device] };
        rows[device].extend(std::iter::repeat_n(',', commas));
        rows[device] += &written(action);
        filled[device] = slot + 1;
        slots.insert(action, slot);
    }
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Reads a plan named `csv`. A stage is on the rank whose row holds its actions, and a step has as
/// many microbatches as the highest number says.
///
/// Rows may end in `\r\n` or in idle cells, cells may have spaces around them or be quoted. Where
/// there is W and no I, or BW, B is the gradient of the input.
///
/// # Errors
///
/// Says line and cell, both counted from 1, of what is no compute action, of a stage in two rows,
/// of a stage above one that has no action, of letters that are never together, and of a row
/// without any action.
pub fn from_csv(text: &str) -> Result<Plan> {
    parse(text).map(|(plan, ..)| plan)
}

/// The plan, the lines that it stands in, and how its letters were read if that is worth telling.
pub(super) fn parse(text: &str) -> Result<(Plan, Lines, Option<String>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if text.is_empty() {
        return Err(Error::plan("the text has no rows").hint("one row per rank, as in 0F0,0B0"));
    }
    let mut homes = BTreeMap::new();
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (line, row) in (1usize..).zip(text.lines()) {
        let mut lane = Vec::new();
        for (cell, content) in (1usize..).zip(row.split(',')) {
            for cell in cells(At { line, cell }, content)? {
                check_home(&mut homes, cell)?;
                lane.push(cell);
            }
        }
        if lane.is_empty() {
            let error = Error::plan(format!("rank {} has no action", line - 1));
            return Err(At { line, cell: 1 }.locate(error.hint("one row per rank, none empty")));
        }
        rows.push(lane);
    }
    let letters = Letters::of(rows.iter().flatten())?;
    let lines = Lines {
        microbatches: 1,
        placement: 1,
        lanes: (1..=rows.len()).collect(),
        cells: rows.iter().map(|row| row.iter().map(|cell| cell.at.cell).collect()).collect(),
    };
    let highest = rows.iter().flatten().map(|cell| cell.microbatch.0).max();
    let lane = |row: &Vec<Cell>| row.iter().map(|cell| letters.action(*cell)).collect();
    let plan = Plan {
        schedule: "csv".to_owned(),
        microbatches: highest.map_or(0, |highest| highest + 1),
        placement: placement(&homes)?,
        lanes: rows.iter().map(lane).collect(),
    };
    Ok((plan, lines, letters.note()))
}

/// Remembers where the first action of a stage stands; all others must be in that row.
fn check_home(homes: &mut BTreeMap<StageId, Cell>, cell: Cell) -> Result<()> {
    let (stage, line) = (cell.stage, cell.at.line);
    let home = homes.entry(stage).or_insert(cell).at;
    if home.line == line {
        return Ok(());
    }
    let (here, there) = (line - 1, home.line - 1);
    let problem = format!("'{cell}', but stage {stage} is on rank {there} (line {})", home.line);
    let hint = format!("all actions of stage {stage} on rank {there}, or all on rank {here}");
    Err(cell.at.locate(Error::plan(problem).hint(hint)))
}

fn placement(homes: &BTreeMap<StageId, Cell>) -> Result<Placement> {
    for (expected, (stage, home)) in (0u32..).map(StageId).zip(homes) {
        if *stage != expected {
            let error = Error::plan(format!("'{home}', but stage {expected} has no action"));
            return Err(home.at.locate(error.hint("number the stages from 0 without gaps")));
        }
    }
    let rank = |home: &Cell| DeviceId(home.at.line as u32 - 1);
    Ok(Placement { stages: homes.values().map(rank).collect() })
}

fn written(action: Action) -> String {
    let letter = match action.work {
        Work::F => "F",
        Work::B if action.is_fused() => "B",
        Work::B => "I",
        Work::W => "W",
    };
    format!("{}{letter}{}", action.stage, action.microbatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, read};

    fn csv(plan: &str) -> String {
        to_csv(&check(plan.parse().unwrap()).unwrap())
    }

    /// The lanes as the text of plans writes them, or the error.
    fn lanes(text: &str) -> String {
        match from_csv(text) {
            Ok(plan) => plan.to_string(),
            Err(error) => panic!("{error}"),
        }
    }

    const PLAN: &str = "\
schedule csv
microbatches 2
placement 0 1
device 0: 0F0  0F1  0B0  0W0  0BW1
device 1: 1F0  1BW0 1F1  1BW1
";
    const CSV: &str = "0F0,0F1,,0I0,0W0,0B1\n,1F0,1B0,1F1,1B1\n";

    #[test]
    fn every_action_is_written_to_its_earliest_slot() {
        assert_eq!(csv(PLAN), CSV);
        let v = "schedule v\nmicrobatches 1\nplacement 0 1 1 0\n\
            device 0: 0F0 3F0 3BW0 0BW0\ndevice 1: 1F0 2F0 2B0 1B0 2W0 1W0\n";
        assert_eq!(csv(v), "0F0,,,3F0,3B0,,,0B0\n,1F0,2F0,,,2I0,1I0,2W0,1W0\n");
    }

    #[test]
    fn what_is_written_reads_back_however_it_was_carried() {
        let carried = [
            CSV.to_owned(),
            CSV.replace('\n', "\r\n"),
            format!("\u{feff}{CSV}"),
            CSV.replace(',', " ,\t"),
            CSV.replace('\n', ",,,\n"),
            CSV.replace("1F0", "\"1F0\"").replace("0F1,,", "0F1,\"\","),
            CSV.trim_end().to_owned(),
            format!("{CSV}\n  \n"),
            CSV.replace("0W0,0B1", "(0W0;0B1)OVERLAP_F_B"),
            CSV.replace("0F0,0F1", "\"( 0F0; 0F1 )OVERLAP_F_B\""),
        ];
        for text in carried {
            assert_eq!(lanes(&text), PLAN, "{text}");
        }
    }

    #[test]
    fn either_form_is_recognised() {
        let texts =
            [PLAN, CSV, "\u{feff}# by hand\n\n", " \r\n\"0F0\"", ",0F0", "(0F0;0B0)OVERLAP_F_B"];
        let read = texts.map(|text| match read(text) {
            Ok(plan) => plan.to_string(),
            Err(error) => error.problem,
        });
        assert_eq!(read[0], PLAN);
        assert_eq!(read[1], PLAN);
        assert_eq!(read[2], "the text ends before 'schedule'");
        assert_eq!(read[3], "line 1, cell 1: rank 0 has no action");
        assert!(read[4].ends_with("device 0: 0F0\n"), "{}", read[4]);
        assert!(read[5].ends_with("device 0: 0F0  0BW0\n"), "{}", read[5]);
    }

    #[test]
    fn a_folded_placement_is_found_from_the_rows() {
        let plan = from_csv("(3F0;0F0)OVERLAP_F_B\n1F0,2F0").unwrap();
        assert_eq!(plan.placement.stages, [0, 1, 1, 0].map(DeviceId));
        assert_eq!(plan.microbatches, 1);
        assert_eq!(plan.lanes[0][0].to_string(), "3F0");
    }

    fn rejects(text: &str, error: &str) {
        assert_eq!(from_csv(text).expect_err(text).to_string(), error);
    }

    #[test]
    fn a_bad_cell_is_an_error_that_names_line_and_cell() {
        let action = "(try: stage, F, I, B or W, microbatch, as in 2F0, \
            where I is the gradient of the input and B a full backward)";
        let cells = [
            "2X0", "F0", "2F", "20", "-1F0", "2F0 ;", "2F0x", "2F-1", "2WB0", "\"2F0", "2f0", "٣F0",
        ];
        for cell in cells {
            let text = format!("0F0\r\n1F0,,1F1, {cell},1F3\r\n");
            let quoted = cell.replace('"', "\\\"");
            rejects(&text, &format!("line 2, cell 4: '{quoted}' is not an action {action}"));
        }
        let long = format!("line 1, cell 1: '{}...' is not an action {action}", "x".repeat(40));
        rejects(&"x".repeat(1_000_000), &long);
        rejects(
            "\u{1b}\u{b}F",
            &format!("line 1, cell 1: '\\u{{1b}}\\u{{b}}F' is not an action {action}"),
        );
        let compound = "(try: as in (0F1;7B0)OVERLAP_F_B)";
        for cell in ["(0F0;1B0)", "(0F0;1B0", "(0F0)OVERLAP", "((0F0)OVERLAP_F_B)OVERLAP_F_B"] {
            rejects(cell, &format!("line 1, cell 1: '{cell}' is not a compound action {compound}"));
        }
        rejects("()OVERLAP_F_B", &format!("line 1, cell 1: '' is not an action {action}"));
    }

    #[test]
    fn communication_is_refused_as_not_compute_only() {
        for cell in ["1UNSHARD", "1RESHARD", "0REDUCE_GRAD", "0SEND_F1", "1RECV_F1", "1SEND_B0"] {
            let error = from_csv(&format!("0F0,{cell}")).unwrap_err();
            let problem = format!("line 1, cell 2: '{cell}' is not a compute action");
            assert_eq!(error.problem, problem);
            assert!(error.hint.contains("compute-only"), "{}", error.hint);
        }
    }

    #[test]
    fn rows_that_make_no_placement_are_an_error() {
        let rows = "(try: one row per rank, as in 0F0,0B0)";
        rejects("", &format!("the text has no rows {rows}"));
        rejects("\u{feff} \r\n\r\n", &format!("the text has no rows {rows}"));
        let none = "(try: one row per rank, none empty)";
        rejects("0F0\n\n1F0", &format!("line 2, cell 1: rank 1 has no action {none}"));
        rejects("0F0\n,,\n", &format!("line 2, cell 1: rank 1 has no action {none}"));
        rejects(
            "0F0,0B0\n1F0,0W0",
            "line 2, cell 2: '0W0', but stage 0 is on rank 0 (line 1) \
             (try: all actions of stage 0 on rank 0, or all on rank 1)",
        );
        let gap = "(try: number the stages from 0 without gaps)";
        rejects("0F0\n1F0,3F0", &format!("line 2, cell 2: '3F0', but stage 2 has no action {gap}"));
        rejects("1F0", &format!("line 1, cell 1: '1F0', but stage 0 has no action {gap}"));
    }

    #[test]
    fn numbers_of_any_size_take_no_memory() {
        let gap = "(try: number the stages from 0 without gaps)";
        rejects(
            "0F0,4294967294F0",
            &format!("line 1, cell 2: '4294967294F0', but stage 1 has no action {gap}"),
        );
        for cell in ["4294967295F0", "0F4294967295", "0F99999999999999999999"] {
            rejects(
                cell,
                &format!(
                    "line 1, cell 1: '{cell}' has a number that is too large \
                     (try: numbers below 4294967295)"
                ),
            );
        }
        let plan = from_csv("0F4294967294").unwrap();
        assert_eq!(plan.microbatches, u32::MAX);
        check(plan).unwrap_err();
    }
}
