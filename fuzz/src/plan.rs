//! Plans as text and as PyTorch's compute-only CSV: what must hold whatever the bytes.

use zerobubble_plan::trace::{Annotations, draw, svg};
use zerobubble_plan::{
    CheckedPlan, Costs, Plan, StashLimits, check, dynamic, from_csv, progress, read, read_checked,
    simulate, simulate_dynamic, to_csv,
};

/// In either form that `read` recognises: a plan that is read prints as a text that reads as the
/// same plan, and whatever was read can be judged, run on paper and drawn. Everything else is an
/// error of one short line, and that of a plan that cannot run names a line.
pub fn text(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let plan = match read(&text) {
        Ok(plan) => plan,
        Err(error) => return is_one_line(&error.to_string()),
    };
    assert_eq!(plan.to_string().parse::<Plan>().as_ref(), Ok(&plan), "{plan}");
    match read_checked(&text) {
        Ok(found) => {
            assert_eq!(found.plan.plan(), &plan);
            assert!(found.note.is_none_or(|note| !note.chars().any(char::is_control)));
            runs(&found.plan);
        }
        Err(error) => {
            assert!(error.problem.starts_with("line "), "{error}");
            is_one_line(&error.to_string());
        }
    }
}

/// As CSV: a file that can run is written as one that reads as the same plan. Everything else is an
/// error of one short line.
pub fn csv(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match from_csv(&text).and_then(check) {
        Ok(plan) => {
            runs(&plan);
            let again = from_csv(&to_csv(&plan)).expect("what is written is read");
            assert_eq!(again, *plan.plan());
        }
        Err(error) => is_one_line(&error.to_string()),
    }
}

/// What can be done with a plan that was proved.
fn runs(plan: &CheckedPlan) {
    let costs = Costs::unit(plan.plan().placement.stage_count());
    let simulation = simulate(plan, &costs).expect("unit costs are costs of any plan");
    let makespan = simulation.bubble.makespan;
    assert!(simulation.lower_bound <= makespan + 1e-6, "{makespan} is below the bound");
    progress(plan, &simulation.channels).expect("channels of these capacities never block");
    let schedule = &plan.plan().schedule;
    let annotations = Annotations { schedule, unit: "", peak_stash: &[] };
    assert!(!draw(&simulation.timeline, 96).is_empty());
    assert!(!svg(&simulation.timeline, &annotations).is_empty());
    let again = from_csv(&to_csv(plan)).expect("what is written is read");
    assert_eq!(again.lanes, plan.plan().lanes);
    assert_eq!(again.placement, plan.plan().placement);
    if !plan.is_forward_only() {
        let decided = dynamic(plan, &costs).expect("a plan is a base for dynamic");
        simulate_dynamic(&decided, &StashLimits::of(plan), &costs).expect("at unit costs");
    }
}

/// An error is short and has no character that a terminal obeys.
fn is_one_line(error: &str) {
    assert!(!error.is_empty());
    assert!(!error.chars().any(char::is_control), "{error:?}");
    assert!(error.chars().count() < 1000, "{error}");
}
