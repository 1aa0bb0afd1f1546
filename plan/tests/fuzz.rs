//! Promise: whatever bytes a plan is read from, the reader ends with the plan or with an error of
//! one line; what it read can be judged, run on paper, drawn, written and read again.

#[path = "../../fuzz/harness.rs"]
mod harness;
#[path = "../../fuzz/src/plan.rs"]
mod plan;

#[test]
fn plan_text() {
    harness::run("plan_text", 10_000, plan::text);
}

#[test]
fn plan_csv() {
    harness::run("plan_csv", 10_000, plan::csv);
}
