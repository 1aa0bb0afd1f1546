//! What is asked for by name, and what cannot be had.

use std::collections::HashSet;

use zerobubble::plan::{
    Costs, FAMILIES, Family, GPIPE, Schedule, ZB_H1, check, generate, simulate,
};

#[test]
fn a_schedule_parses_from_its_name_only() {
    for name in Schedule::names() {
        assert_eq!(name.parse::<Schedule>().unwrap().to_string(), name);
    }
    assert_eq!(Schedule::names().collect::<HashSet<_>>().len(), FAMILIES.len() + 2);
    assert_eq!("zb-h1".parse::<Schedule>().unwrap(), Schedule::from(&ZB_H1));
    let names: Vec<&str> = Schedule::names().collect();
    assert_eq!(
        "zbh1".parse::<Schedule>().unwrap_err().to_string(),
        format!("there is no schedule 'zbh1' (try: {})", names.join(", "))
    );
}

#[test]
fn a_plan_is_a_schedule_that_prints_as_the_name_in_it() {
    let plan = generate(&GPIPE, 2, None, 3).unwrap();
    let schedule = Schedule::from(plan.clone());
    assert_eq!(schedule, Schedule::Fixed(Box::new(plan)));
    assert_eq!(schedule.to_string(), "gpipe");
}

#[test]
fn a_size_that_a_family_cannot_have_is_an_error_that_says_what_to_try() {
    let rejects = |family: &Family, p, v, m, error: &str| {
        assert_eq!(generate(family, p, v, m).expect_err(error).to_string(), error);
    };
    let nothing = "nothing to schedule (try: at least 1 device and 1 microbatch)";
    rejects(&GPIPE, 0, None, 4, &format!("gpipe on 0 devices with 4 microbatches: {nothing}"));
    rejects(&GPIPE, 4, None, 0, &format!("gpipe on 4 devices with 0 microbatches: {nothing}"));
    rejects(
        &GPIPE,
        1 << 20,
        None,
        1 << 20,
        "gpipe on 1048576 devices of 1 chunks with 1048576 microbatches is too long a plan \
         (try: fewer devices, chunks or microbatches)",
    );
}

#[test]
fn costs_that_do_not_fit_the_plan_are_an_error() {
    let plan = check(generate(&GPIPE, 2, None, 1).unwrap()).unwrap();
    let error = |costs: &Costs| simulate(&plan, costs).unwrap_err().to_string();
    assert_eq!(error(&Costs::unit(3)), "costs of 3 stages and 2 boundaries for a plan of 2 stages");
    let mut costs = Costs::unit(2);
    costs.stages[1].forward = f64::NAN;
    assert_eq!(error(&costs), "stage 1: NaN is not a time");
}
