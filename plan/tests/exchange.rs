//! Promise: a plan that leaves as CSV comes back as it was, and no text makes the reader panic.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use zerobubble_plan::{
    CheckedPlan, Costs, FAMILIES, Family, Plan, Simulation, check, from_csv, generate, progress,
    read, simulate, to_csv,
};

/// A family at one size, if it takes that number of chunks.
fn plan(family: usize, p: u32, v: u32, m: u32) -> Option<CheckedPlan> {
    let plan = generate(FAMILIES[family], p, Some(v), m).ok()?;
    Some(check(plan).unwrap())
}

/// Every family at every size up to these, under the name that a CSV has.
fn plans(most_p: u32, most_v: u32, most_m: u32) -> impl Iterator<Item = CheckedPlan> {
    (0..FAMILIES.len()).flat_map(move |family| {
        (1..=most_p).flat_map(move |p| {
            (1..=most_v).flat_map(move |v| (1..=most_m).filter_map(move |m| plan(family, p, v, m)))
        })
    })
}

fn renamed(plan: &CheckedPlan) -> Plan {
    Plan { schedule: "csv".to_owned(), ..plan.plan().clone() }
}

#[test]
fn every_plan_comes_back_as_it_left() {
    for plan in plans(6, 3, 13) {
        let csv = to_csv(&plan);
        assert_eq!(from_csv(&csv).unwrap(), renamed(&plan), "{csv}");
        assert_eq!(read(&csv).unwrap(), renamed(&plan));
        assert_eq!(read(&plan.plan().to_string()).unwrap(), *plan.plan());
    }
}

#[test]
fn a_cell_stands_in_the_column_of_its_start_at_unit_cost() {
    let split =
        |plan: &CheckedPlan| plan.plan().lanes.iter().flatten().all(|action| !action.is_fused());
    for plan in plans(5, 2, 9).filter(split) {
        let costs = Costs::unit(plan.plan().placement.stage_count());
        let timeline = simulate(&plan, &costs).unwrap().timeline;
        let csv = to_csv(&plan);
        for (row, lane) in csv.lines().zip(&timeline.lanes) {
            let filled = (0u32..).zip(row.split(',')).filter(|(_, cell)| !cell.is_empty());
            let columns: Vec<f64> = filled.map(|(column, _)| f64::from(column)).collect();
            let starts: Vec<f64> = lane.iter().map(|span| span.start).collect();
            assert_eq!(columns, starts, "{csv}");
        }
    }
}

/// As Python's `csv.writer` writes a schedule of PyTorch: rows end in `\r\n`, and a rank that waits
/// has empty cells, also behind its last action.
#[test]
fn a_file_in_the_manner_of_pytorch_is_read() {
    let file = "0F0,0F1,,,0I0,1F0,(0W0;1F1)OVERLAP_F_B,1B0,0B1,1B1,\r\n\
        ,2F0,2F1,2B0,2I1,2W1,,,,,\r\n";
    let expected = "\
schedule csv
microbatches 2
placement 0 0 1
device 0: 0F0  0F1  0B0  1F0  0W0  1F1  1BW0 0BW1 1BW1
device 1: 2F0  2F1  2BW0 2B1  2W1
";
    assert_eq!(from_csv(file).unwrap().to_string(), expected);
}

/// What `ScheduleLoopedBFS` of PyTorch writes for two ranks of two stages: a rank begins with as
/// many empty cells as it has ranks before it, and waits two for each rank behind it before it
/// turns.
const LOOPED_BFS: &str = "0F0,0F1,0F2,2F0,2F1,2F2,,,2B2,2B1,2B0,0B2,0B1,0B0\r\n\
    ,1F0,1F1,1F2,3F0,3F1,3F2,3B2,3B1,3B0,1B2,1B1,1B0\r\n";

#[test]
fn backwards_in_descending_order_are_read_and_judged() {
    let plan = check(from_csv(LOOPED_BFS).unwrap()).unwrap();
    let orders = plan.own_orders();
    let orders: Vec<String> = orders.iter().map(ToString::to_string).collect();
    let expected: Vec<String> = (0..4)
        .flat_map(|s| ["B", "W"].map(|work| format!("{work} of stage {s} runs 2 1 0")))
        .collect();
    assert_eq!(orders, expected);
    assert_eq!(from_csv(&to_csv(&plan)).unwrap(), *plan.plan());
    // The looped-bfs of here, whose backwards ascend, takes as long and holds as much.
    let ascending = check(generate(family("looped-bfs"), 2, Some(2), 3).unwrap()).unwrap();
    let simulated = |plan| simulate(plan, &Costs::unit(4)).unwrap();
    let [own, other] = [simulated(&plan), simulated(&ascending)];
    assert_eq!(own.bubble.makespan, other.bubble.makespan);
    let stash = |of: &Simulation| of.memory.iter().map(|of| of.peak_stash).collect::<Vec<_>>();
    assert_eq!(stash(&own), stash(&other));
    progress(&plan, &own.channels).unwrap();
}

#[test]
fn gpipe_as_it_is_often_drawn_is_judged() {
    let text = "schedule gpipe descending\nmicrobatches 3\nplacement 0 1\n\
        device 0: 0F0 0F1 0F2 0BW2 0BW1 0BW0\ndevice 1: 1F0 1F1 1F2 1BW2 1BW1 1BW0\n";
    let plan = check(read(text).unwrap()).unwrap();
    let simulation = simulate(&plan, &Costs::unit(2)).unwrap();
    // As long as with microbatches ascending: see `schedules/bubbles.rs`.
    assert_eq!(simulation.bubble.makespan, 12.0);
    let capacities: Vec<u32> = simulation.channels.iter().map(|of| of.capacity).collect();
    assert_eq!(capacities, [3, 3]);
    assert_eq!(check(generate(family("gpipe"), 2, None, 3).unwrap()).unwrap().own_orders(), []);
}

fn family(name: &str) -> &'static Family {
    FAMILIES.iter().find(|family| family.name == name).unwrap()
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_a_plan_or_an_error_with_a_reason(text in "\\PC*|(?s).*|[0-9FIBW,;()\" \r\n]*") {
        for result in [from_csv(&text), read(&text)] {
            match result.and_then(check) {
                Ok(plan) => prop_assert_eq!(from_csv(&to_csv(&plan)).unwrap(), renamed(&plan)),
                Err(error) => prop_assert!(!error.problem.is_empty()),
            }
        }
    }

    #[test]
    fn a_damaged_file_names_a_line_of_it(
        family in 0..FAMILIES.len(), p in 1u32..5, m in 1u32..5, at in 0usize..1000,
        damage in "[0-9FIBWX,;()\" \n]{0,3}",
    ) {
        let v = generate(FAMILIES[family], 1, None, 1).unwrap().placement.stage_count() as u32;
        let mut csv = to_csv(&plan(family, p, v, m).unwrap());
        let at = at % csv.len();
        csv.replace_range(at..at + 1, &damage);
        if let Err(error) = from_csv(&csv) {
            let place = error.problem.strip_prefix("line ").and_then(|rest| rest.split_once(','));
            let line = place.and_then(|(line, _)| line.parse::<usize>().ok());
            let lines = csv.lines().count();
            let known = line.is_some_and(|line| line <= lines);
            prop_assert!(known || csv.trim().is_empty(), "{error}");
        }
    }
}
