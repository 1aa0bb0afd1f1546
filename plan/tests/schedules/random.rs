//! Legal plans and costs at random.

use proptest::prelude::*;
use zerobubble_plan::{
    Action, Costs, DeviceId, MicrobatchId, PerWork, Placement, Plan, StageCost, StageId,
    TransferCost, Transfers, Work,
};

/// A legal plan from a seed: all actions in some order that runs them one at a time.
fn random_plan(placement: &[u32], microbatches: u32, choices: &[u32]) -> Plan {
    let stages = placement.len() as u32;
    let mut lanes = vec![Vec::new(); placement.iter().max().unwrap().to_owned() as usize + 1];
    // The next microbatch of F, B and W of every stage.
    let mut next = vec![PerWork([0u32; 3]); placement.len()];
    let mut choices = choices.iter().copied().cycle();
    loop {
        let mut ready = Vec::new();
        for s in 0..stages {
            let PerWork([f, b, w]) = next[s as usize];
            let above = next.get(s as usize + 1).map_or(u32::MAX, |above| above[Work::B]);
            let fed = if s == 0 { microbatches } else { next[s as usize - 1][Work::F] };
            let (f_ready, b_ready) = (f < fed, b < f && b < above);
            let action = |work, k| Action::new(StageId(s), work, MicrobatchId(k));
            ready.extend(f_ready.then(|| action(Work::F, f)));
            ready.extend(b_ready.then(|| action(Work::B, b)));
            ready.extend((w < b).then(|| action(Work::W, w)));
            let fused = || Action::fused(StageId(s), MicrobatchId(b));
            ready.extend((b_ready && w == b).then(fused));
        }
        if ready.is_empty() {
            let placement = Placement { stages: placement.iter().copied().map(DeviceId).collect() };
            return Plan { schedule: "random".into(), microbatches, placement, lanes };
        }
        let action = ready[choices.next().unwrap() as usize % ready.len()];
        let stage = action.stage.index();
        action.works().iter().for_each(|work| next[stage][*work] += 1);
        lanes[placement[stage] as usize].push(action);
    }
}

prop_compose! {
    pub fn any_plan()(
        placement in prop::sample::select(vec![
            vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 0, 1], vec![0, 1, 1, 0], vec![1, 0, 0],
        ]),
        microbatches in 1u32..4,
        choices in prop::collection::vec(any::<u32>(), 48),
        evaluates in prop::bool::weighted(0.2),
    ) -> Plan {
        let mut plan = random_plan(&placement, microbatches, &choices);
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
