//! What is asked for by name, and what cannot be had.

use std::collections::HashSet;

use zerobubble_plan::{
    Costs, DeviceId, FAMILIES, Family, GPIPE, INTERLEAVED_1F1B, Schedule, Work, ZB_H1, ZB_V, check,
    generate, simulate,
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
fn every_schedule_has_a_row_in_the_readme() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let families = FAMILIES.iter().map(|family| format!("| `{family}` | {} |", family.about));
    for row in families.chain(Schedule::names().map(|name| format!("| `{name}` | "))) {
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
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
        "gpipe with 1048576 x 1 stages and 1048576 microbatches: too long a plan \
         (try: fewer devices, chunks or microbatches)",
    );
    let loops = "or a schedule that takes any number: interleaved-1f1b, looped-bfs";
    rejects(
        &ZB_H1,
        4,
        Some(2),
        8,
        &format!("zb-h1 with 2 chunks per device: it holds one stage per device (try: 1, {loops})"),
    );
    rejects(
        &ZB_V,
        4,
        Some(3),
        8,
        &format!(
            "zb-v with 3 chunks per device: it holds two stages per device, one on the way up and \
             one back (try: 2, {loops})"
        ),
    );
    rejects(
        &INTERLEAVED_1F1B,
        4,
        Some(0),
        8,
        &format!(
            "interleaved-1f1b with 0 chunks per device: a device holds at least one stage \
             (try: 2, {loops})"
        ),
    );
}

#[test]
fn stages_are_placed_in_a_line_a_loop_or_a_fold() {
    let check = |family: &Family, p, v, expected: [u32; 6]| {
        let plan = generate(family, p, v, 1).unwrap();
        assert_eq!(plan.placement.stages, expected.map(DeviceId), "{family}");
        assert_eq!(plan.schedule, family.name);
    };
    check(&ZB_H1, 6, Some(1), [0, 1, 2, 3, 4, 5]);
    check(&INTERLEAVED_1F1B, 3, None, [0, 1, 2, 0, 1, 2]);
    check(&INTERLEAVED_1F1B, 2, Some(3), [0, 1, 0, 1, 0, 1]);
    check(&ZB_V, 3, None, [0, 1, 2, 2, 1, 0]);
}

#[test]
fn costs_that_do_not_fit_the_plan_are_an_error() {
    let plan = check(generate(&GPIPE, 2, None, 1).unwrap()).unwrap();
    let error = |costs: &Costs| simulate(&plan, costs).unwrap_err().to_string();
    assert_eq!(error(&Costs::unit(3)), "costs of 3 stages and 2 boundaries for a plan of 2 stages");
    let mut costs = Costs::unit(2);
    costs.stages[1].time[Work::F] = f64::NAN;
    assert_eq!(error(&costs), "stage 1: NaN is not a time");
}
