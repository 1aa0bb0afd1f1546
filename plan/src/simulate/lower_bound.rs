//! A makespan that no schedule can beat, so that a plan's distance from the best is known.

use super::costs::Costs;
use crate::Plan;
use crate::action::{DeviceId, StageId};
use crate::placement::{Link, Placement};
use crate::work::{PerWork, Work};

/// What no other order of the same actions on the same placement can beat.
pub(crate) fn lower_bound(plan: &Plan, costs: &Costs) -> f64 {
    let bound = if plan.is_forward_only() { evaluation } else { training };
    bound(&plan.placement, plan.microbatches, costs)
}

/// The larger of two bounds for F alone.
///
/// 1. A device starts with an F of its lowest stage, when the first microbatch has come there. It
///    has all its F to do, and the last is of its highest stage or of one below: after it come the
///    stages above.
/// 2. One microbatch goes up the whole pipeline, and the last one is m - 1 F late at any stage.
fn evaluation(placement: &Placement, microbatches: u32, costs: &Costs) -> f64 {
    let m = f64::from(microbatches);
    let forward = |stage: usize| costs.stages[stage].time[Work::F];
    let top = costs.stages.len() - 1;
    // When the first microbatch has come to each stage, if it waits nowhere.
    let mut head = vec![0.0; top + 1];
    for s in 1..=top {
        let link = Link { from: StageId(s as u32 - 1), to: StageId(s as u32) };
        head[s] = head[s - 1] + forward(s - 1) + costs.transfer(placement, link);
    }
    let path = head[top] + forward(top);
    let devices = (0..placement.device_count() as u32).map(|device| {
        let own = || placement.stages_of(DeviceId(device)).map(StageId::index);
        let lowest = own().next().expect("checked: every device holds a stage");
        let highest = own().last().expect("checked: every device holds a stage");
        let after = path - head[highest] - forward(highest);
        head[lowest] + m * own().map(forward).sum::<f64>() + after
    });
    let slowest = (0..=top).map(forward).fold(0.0, f64::max);
    devices.fold(path + (m - 1.0) * slowest, f64::max)
}

/// The largest of four bounds for F, B and W of every stage.
///
/// Let `head(s)` be the time a first microbatch needs to reach stage s, `turn(s)` the time it needs
/// to come back to stage s for B, and `tail(s)` the time from the end of the last B of stage s to
/// the end of the step: B of every stage below, then W of stage 0. All include transfers.
///
/// 1. A device starts with an F of its lowest stage s, not before `head(s)`, and has all its F, B
///    and W to do.
/// 2. It also does all its F and B before its last B ends, and after that comes `tail(s)` of the
///    stage of that B: at least that of its lowest stage.
/// 3. One microbatch goes up and down the whole pipeline. Any stage does F for all microbatches
///    one after the other, so that the last one is m - 1 F late there, and its way is as long as
///    any other's; the same holds for B.
/// 4. A device does B and W only after the first microbatch has come back to its highest stage h,
///    so not before `turn(h)`; and the last B is followed as in the second bound.
fn training(placement: &Placement, microbatches: u32, costs: &Costs) -> f64 {
    let m = f64::from(microbatches);
    let time = |stage: usize, work: Work| costs.stages[stage].time[work];
    let stages = &costs.stages;
    let mut head = vec![0.0; stages.len()];
    let mut tail = vec![0.0; stages.len()];
    tail[0] = time(0, Work::W);
    for s in 1..stages.len() {
        let (below, here) = (StageId(s as u32 - 1), StageId(s as u32));
        let up = costs.transfer(placement, Link { from: below, to: here });
        let down = costs.transfer(placement, Link { from: here, to: below });
        head[s] = head[s - 1] + time(s - 1, Work::F) + up;
        tail[s] = down + time(s - 1, Work::B) + tail[s - 1];
    }
    let top = stages.len() - 1;
    let mut turn = vec![head[top] + time(top, Work::F); stages.len()];
    for s in (0..top).rev() {
        // From the end of B on the top stage to the end of B on stage s.
        let way_down = tail[top] - tail[s];
        turn[s] = turn[top] + time(top, Work::B) + way_down - time(s, Work::B);
    }
    let devices = (0..placement.device_count() as u32).map(|device| {
        let own = || placement.stages_of(DeviceId(device)).map(StageId::index);
        let lowest = own().next().expect("checked: every device holds a stage");
        let highest = own().last().unwrap_or(lowest);
        let sum = |work: Work| own().fold(0.0, |sum, s| sum + time(s, work));
        let PerWork([f, b, w]) = PerWork::from_fn(sum);
        let b_starts = turn[highest].max(head[lowest] + m * f);
        b_starts + m * b + (m * w).max(tail[lowest])
    });
    let path = head[top] + time(top, Work::F) + time(top, Work::B) + tail[top];
    let slowest = (0..=top).map(|s| time(s, Work::F).max(time(s, Work::B)));
    devices.fold(path + (m - 1.0) * slowest.fold(0.0, f64::max), f64::max)
}
