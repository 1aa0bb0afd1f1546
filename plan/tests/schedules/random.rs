//! Legal plans and costs at random.

use std::collections::HashSet;

use proptest::prelude::*;
use zerobubble_plan::{
    Action, Costs, DeviceId, MicrobatchId, PerWork, Placement, Plan, StageCost, StageId,
    TransferCost, Transfers, Work,
};

/// A legal plan from a seed: all actions in some order that runs them one at a time. Microbatches
/// come in any order of their own for F, B and W of every stage, or all in the standard order.
fn random_plan(placement: &[u32], microbatches: u32, standard: bool, choices: &[u32]) -> Plan {
    let stages = placement.len() as u32;
    let mut lanes = vec![Vec::new(); placement.iter().max().unwrap().to_owned() as usize + 1];
    let mut done: HashSet<Action> = HashSet::new();
    let mut choices = choices.iter().copied().cycle();
    loop {
        let mut ready = Vec::new();
        for (s, k) in (0..stages).flat_map(|s| (0..microbatches).map(move |k| (s, k))) {
            let action = |s, work| Action::new(StageId(s), work, MicrobatchId(k));
            let has = |s, work| done.contains(&action(s, work));
            let [f, b, w] = Work::ALL.map(|work| has(s, work));
            let is_turn = |work| {
                let before = (0..k).map(|k| action(s, work).on(MicrobatchId(k)));
                !standard || before.into_iter().all(|action| done.contains(&action))
            };
            let f_ready = !f && (s == 0 || has(s - 1, Work::F)) && is_turn(Work::F);
            let is_top = s + 1 == stages;
            let b_ready = f && !b && (is_top || has(s + 1, Work::B)) && is_turn(Work::B);
            ready.extend(f_ready.then(|| action(s, Work::F)));
            ready.extend(b_ready.then(|| action(s, Work::B)));
            ready.extend((b && !w && is_turn(Work::W)).then(|| action(s, Work::W)));
            let fused = || Action::fused(StageId(s), MicrobatchId(k));
            ready.extend((b_ready && is_turn(Work::W)).then(fused));
        }
        if ready.is_empty() {
            let placement = Placement { stages: placement.iter().copied().map(DeviceId).collect() };
            return Plan { schedule: "random".into(), microbatches, placement, lanes };
        }
        let action = ready[choices.next().unwrap() as usize % ready.len()];
        done.extend(action.works().iter().map(|work| action.alone(*work)));
        lanes[placement[action.stage.index()] as usize].push(action);
    }
}

prop_compose! {
    pub fn any_plan()(
        placement in prop::sample::select(vec![
            vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 0, 1], vec![0, 1, 1, 0], vec![1, 0, 0],
        ]),
        microbatches in 1u32..4,
        standard in any::<bool>(),
        choices in prop::collection::vec(any::<u32>(), 48),
        evaluates in prop::bool::weighted(0.2),
    ) -> Plan {
        let mut plan = random_plan(&placement, microbatches, standard, &choices);
        if evaluates {
            plan.lanes.iter_mut().for_each(|lane| lane.retain(|action| action.work == Work::F));
        }
        plan
    }
}

pub fn any_costs() -> impl Strategy<Value = Costs> {
    let stage = (0.0..9.0, 0.0..9.0, 0.0..9.0)
        .prop_map(|(f, b, w)| StageCost { time: PerWork([f, b, w]), ..StageCost::default() });
    let times = prop::collection::vec(0.0..3.0, 1..40);
    let transfers = times.prop_map(|times: Vec<f64>| {
        Transfers::from_fn(32, |from, to| {
            TransferCost::of_any_size(times[(from.index() * 32 + to.index()) % times.len()])
        })
    });
    (prop::collection::vec(stage, 32), transfers).prop_map(|(stages, transfers)| Costs {
        stages,
        transfers,
        ..Costs::unit(32)
    })
}

pub fn first_stages(costs: &Costs, stages: usize) -> Costs {
    Costs {
        stages: costs.stages[..stages].to_vec(),
        boundaries: costs.boundaries[..stages - 1].to_vec(),
        ..costs.clone()
    }
}
