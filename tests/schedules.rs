//! Every schedule, at every small size, is what it promises to be: legal, free of deadlock, within
//! its stash, with exactly the bubble that its source states; and what the simulator says of any
//! legal plan holds: its bound on the makespan, its channel bounds, its text.

use std::collections::HashSet;

use proptest::prelude::*;
use zerobubble::plan::{
    Action, BoundaryCost, Channel, CheckedPlan, Costs, DeviceId, Link, MicrobatchId, Placement,
    Plan, Schedule, Simulation, StageCost, StageId, Work, bounds, check, generate, progress,
    simulate,
};
use zerobubble::trace::draw;

fn run(schedule: Schedule, p: u32, m: u32, costs: &Costs) -> (CheckedPlan, Simulation) {
    let plan = check(generate(schedule, p, m).unwrap()).unwrap();
    let simulation = simulate(&plan, costs).unwrap();
    (plan, simulation)
}

fn every_size() -> impl Iterator<Item = (Schedule, u32, u32)> {
    Schedule::ALL
        .into_iter()
        .flat_map(|schedule| (1..=6).flat_map(move |p| (1..=12).map(move |m| (schedule, p, m))))
}

/// The bubble in absolute time, span and step alike, for stages of equal cost with W <= B: what the
/// makespan adds to the work of one device. The generators' comments say where it comes from.
fn bubble(schedule: Schedule, p: u32, m: u32, f: f64, b: f64, w: f64) -> f64 {
    let p_1 = f64::from(p - 1);
    match schedule {
        Schedule::GPipe | Schedule::OneFOneB => p_1 * (f + b + w),
        Schedule::ZbH1 => p_1 * (f + b) - f64::from(m.min(p) - 1) * f.min(w),
    }
}

#[test]
fn every_plan_is_legal_and_ends_on_its_bounded_channels() {
    for (schedule, p, m) in every_size() {
        let (plan, simulation) = run(schedule, p, m, &Costs::unit(p as usize));
        progress(&plan, &simulation.channels).unwrap();
        assert_eq!(simulation.channels.len() as u32, 2 * (p - 1), "{schedule} p={p} m={m}");
    }
}

#[test]
fn every_plan_keeps_its_stash_bound() {
    for (schedule, p, m) in every_size() {
        let (_, simulation) = run(schedule, p, m, &Costs::unit(p as usize));
        let stash: Vec<f64> = simulation.memory.iter().map(|device| device.peak_stash).collect();
        let expected: Vec<f64> = (0..p)
            .map(|i| match schedule {
                Schedule::GPipe => m,
                Schedule::OneFOneB => m.min(p - i),
                Schedule::ZbH1 => m.min(p),
            })
            .map(f64::from)
            .collect();
        assert_eq!(stash, expected, "{schedule} p={p} m={m}");
    }
}

#[test]
fn every_plan_has_exactly_its_bubble_at_unit_costs() {
    for (schedule, p, m) in every_size() {
        let (_, simulation) = run(schedule, p, m, &Costs::unit(p as usize));
        let (work, idle) = (3.0 * f64::from(m), bubble(schedule, p, m, 1.0, 1.0, 1.0));
        let found = &simulation.bubble;
        let at = format!("{schedule} p={p} m={m}");
        assert_eq!(found.makespan, work + idle, "{at}");
        assert_eq!(found.devices[0].span_idle, idle, "{at}");
        assert!(found.devices.iter().all(|d| d.step_idle == idle && d.span_idle <= idle), "{at}");
        assert_eq!(found.span, idle / (work + idle), "{at}");
        assert_eq!(found.step, idle / (work + idle), "{at}");
        if schedule == Schedule::ZbH1 && m >= p {
            assert_eq!(idle, f64::from(p - 1), "{at}");
            assert_eq!(found.makespan, simulation.lower_bound, "{at}: no schedule is shorter");
        }
    }
}

#[test]
fn step_bubbles_at_4_devices_and_12_microbatches() {
    let percent =
        |schedule| format!("{:.1}", 100.0 * run(schedule, 4, 12, &Costs::unit(4)).1.bubble.step);
    assert_eq!(Schedule::ALL.map(percent), ["20.0", "20.0", "7.7"]);
}

#[test]
fn parameter_gradients_accumulate_in_ascending_order() {
    for (schedule, p, m) in every_size() {
        for lane in generate(schedule, p, m).unwrap().lanes {
            let adds = lane.iter().filter(|action| matches!(action.work, Work::W | Work::BW));
            let order: Vec<u32> = adds.map(|action| action.microbatch.0).collect();
            assert_eq!(order, (0..m).collect::<Vec<_>>(), "{schedule} p={p} m={m}");
        }
    }
}

#[test]
fn the_picture_above_each_generator_is_what_it_generates() {
    let check = |schedule, m: u32, source: &str| {
        let (_, simulation) = run(schedule, 4, m, &Costs::unit(4));
        let drawing = draw(&simulation.timeline, 3 * simulation.bubble.makespan as usize);
        let lanes = drawing.lines().filter_map(|line| Some(line.rsplit_once('|')?.0));
        let picture: String = lanes.map(|lane| format!("/// {lane}|\n")).collect();
        assert!(source.contains(&picture), "{schedule} draws\n{picture}");
        assert!(source.contains(&format!("m = {m} microbatches")), "{schedule}: not {m}");
    };
    check(Schedule::GPipe, 4, include_str!("../src/plan/schedule/gpipe.rs"));
    check(Schedule::OneFOneB, 4, include_str!("../src/plan/schedule/one_f_one_b.rs"));
    check(Schedule::ZbH1, 6, include_str!("../src/plan/schedule/zb_h1.rs"));
}

#[test]
fn a_schedule_parses_from_its_name_only() {
    for schedule in Schedule::ALL {
        assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
    }
    assert_eq!(
        "zbh1".parse::<Schedule>().unwrap_err().to_string(),
        "there is no schedule 'zbh1' (try: gpipe, 1f1b, zb-h1)"
    );
    assert_eq!(
        generate(Schedule::GPipe, 0, 4).unwrap_err().to_string(),
        "gpipe on 0 devices with 4 microbatches: nothing to schedule \
         (try: at least 1 device and 1 microbatch)"
    );
}

#[test]
fn costs_that_do_not_fit_the_plan_are_an_error() {
    let plan = check(generate(Schedule::GPipe, 2, 1).unwrap()).unwrap();
    let error = |costs: &Costs| simulate(&plan, costs).unwrap_err().to_string();
    assert_eq!(error(&Costs::unit(3)), "costs of 3 stages and 2 boundaries for a plan of 2 stages");
    let mut costs = Costs::unit(2);
    costs.stages[1].forward = f64::NAN;
    assert_eq!(error(&costs), "stage 1: NaN is not a time");
}

/// A legal plan from a seed: all actions in some order that runs them one at a time.
fn random_plan(placement: &[u32], microbatches: u32, choices: &[u32]) -> Plan {
    let stages = placement.len() as u32;
    let mut lanes = vec![Vec::new(); placement.iter().max().unwrap().to_owned() as usize + 1];
    // The next microbatch of F, B and W of every stage.
    let mut next = vec![[0u32; 3]; placement.len()];
    let mut choices = choices.iter().copied().cycle();
    loop {
        let mut ready = Vec::new();
        for s in 0..stages {
            let [f, b, w] = next[s as usize];
            let above = next.get(s as usize + 1).map_or(u32::MAX, |above| above[1]);
            let fed = if s == 0 { microbatches } else { next[s as usize - 1][0] };
            let (f_ready, b_ready) = (f < fed, b < f && b < above);
            ready.extend(f_ready.then_some((s, Work::F, f)));
            ready.extend(b_ready.then_some((s, Work::B, b)));
            ready.extend((w < b).then_some((s, Work::W, w)));
            ready.extend((b_ready && w == b).then_some((s, Work::BW, b)));
        }
        if ready.is_empty() {
            let placement = Placement { stages: placement.iter().copied().map(DeviceId).collect() };
            return Plan { schedule: "random".into(), microbatches, placement, lanes };
        }
        let (s, work, k) = ready[choices.next().unwrap() as usize % ready.len()];
        let counts: &[usize] = match work {
            Work::F => &[0],
            Work::B => &[1],
            Work::W => &[2],
            Work::BW => &[1, 2],
        };
        counts.iter().for_each(|i| next[s as usize][*i] += 1);
        let action = Action::new(StageId(s), work, MicrobatchId(k));
        lanes[placement[s as usize] as usize].push(action);
    }
}

/// Runs all interleavings of a plan on unbounded links; the most parcels each link ever holds.
fn most_parcels(plan: &CheckedPlan) -> Vec<Channel> {
    let lanes = &plan.plan().lanes;
    // A state says for each lane how many actions have started, and how many have ended.
    let sent = |state: &[(usize, usize)], link: Link| {
        let ended = lanes.iter().zip(state).flat_map(|(lane, (_, ended))| &lane[..*ended]);
        ended.filter(|action| plan.sends(**action) == Some(link)).count()
    };
    let taken = |state: &[(usize, usize)], link: Link| {
        let started = lanes.iter().zip(state).flat_map(|(lane, (started, _))| &lane[..*started]);
        started.filter(|action| plan.receives(**action) == Some(link)).count()
    };
    let mut most: Vec<Channel> =
        plan.plan().placement.links().map(|link| Channel { link, capacity: 0 }).collect();
    let mut states = vec![vec![(0, 0); lanes.len()]];
    let mut seen: HashSet<_> = states.iter().cloned().collect();
    while let Some(state) = states.pop() {
        for channel in &mut most {
            let held = sent(&state, channel.link) - taken(&state, channel.link);
            channel.capacity = channel.capacity.max(held as u32);
        }
        for (device, lane) in lanes.iter().enumerate() {
            let mut after = state.clone();
            let (started, ended) = state[device];
            if started > ended {
                after[device].1 += 1;
            } else if let Some(action) = lane.get(started) {
                let done = |action: &Action| {
                    lanes
                        .iter()
                        .zip(&state)
                        .any(|(lane, (_, ended))| lane[..*ended].contains(action))
                };
                let inputs = plan.inputs(*action);
                if ![inputs.stash, inputs.parcel].iter().flatten().all(done) {
                    continue;
                }
                after[device].0 += 1;
            }
            if seen.insert(after.clone()) {
                states.push(after);
            }
        }
    }
    most
}

prop_compose! {
    fn any_plan()(
        placement in prop::sample::select(vec![
            vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 0, 1], vec![0, 1, 1, 0], vec![1, 0, 0],
        ]),
        microbatches in 1u32..4,
        choices in prop::collection::vec(any::<u32>(), 48),
    ) -> Plan {
        random_plan(&placement, microbatches, &choices)
    }
}

fn any_costs() -> impl Strategy<Value = Costs> {
    let stage = (0.0..9.0, 0.0..9.0, 0.0..9.0).prop_map(|(f, b, w)| StageCost {
        forward: f,
        backward_input: b,
        backward_weight: w,
        ..StageCost::default()
    });
    let boundary =
        (0.0..3.0).prop_map(|transfer| BoundaryCost { transfer, ..BoundaryCost::default() });
    (prop::collection::vec(stage, 6), prop::collection::vec(boundary, 5))
        .prop_map(|(stages, boundaries)| Costs { stages, boundaries, buffers: Vec::new() })
}

fn first_stages(costs: &Costs, stages: usize) -> Costs {
    Costs {
        stages: costs.stages[..stages].to_vec(),
        boundaries: costs.boundaries[..stages - 1].to_vec(),
        buffers: Vec::new(),
    }
}

proptest! {
    #[test]
    fn a_plan_parses_back(plan in any_plan(), schedule in "[a-z0-9][a-z0-9 -]{0,9}[a-z0-9]") {
        let plan = Plan { schedule, ..plan };
        prop_assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
    }

    #[test]
    fn no_plan_beats_the_lower_bound(plan in any_plan(), costs in any_costs()) {
        let plan = check(plan).unwrap();
        let stages = plan.plan().placement.stage_count();
        let simulation = simulate(&plan, &first_stages(&costs, stages)).unwrap();
        prop_assert!(simulation.bubble.makespan >= simulation.lower_bound - 1e-9);
    }

    #[test]
    fn channel_bounds_are_the_most_that_any_interleaving_needs(plan in any_plan()) {
        let plan = check(plan).unwrap();
        let bounds = bounds(&plan);
        progress(&plan, &bounds).unwrap();
        prop_assert_eq!(bounds, most_parcels(&plan));
    }

    #[test]
    fn bubbles_are_exact_whenever_w_takes_no_longer_than_b(
        schedule in prop::sample::select(Schedule::ALL.to_vec()),
        (p, m) in (1u32..7, 1u32..13),
        (f, w, more) in (0.1..5.0, 0.0..5.0, 0.0..5.0),
    ) {
        let b = w + more;
        let (_, simulation) = run(schedule, p, m, &Costs::uniform(p as usize, f, b, w));
        let idle = bubble(schedule, p, m, f, b, w);
        let work = f64::from(m) * (f + b + w);
        prop_assert!((simulation.bubble.devices[0].span_idle - idle).abs() < 1e-9);
        prop_assert!((simulation.bubble.makespan - work - idle).abs() < 1e-9);
    }

    #[test]
    fn any_costs_keep_the_schedules_above_the_lower_bound(
        (schedule, p, m) in prop::sample::select(every_size().collect::<Vec<_>>()),
        costs in any_costs(),
    ) {
        let (_, simulation) = run(schedule, p, m, &first_stages(&costs, p as usize));
        prop_assert!(simulation.bubble.makespan >= simulation.lower_bound - 1e-9);
        let busy: f64 = simulation.bubble.devices.iter().map(|device| device.busy).sum();
        let whole = simulation.bubble.makespan * f64::from(p);
        prop_assert!((simulation.bubble.step - (1.0 - busy / whole)).abs() < 1e-9);
    }
}
