//! A makespan that no schedule can beat, so that a plan's distance from the best is known.

use super::costs::Costs;
use crate::plan::action::{DeviceId, StageId};
use crate::plan::placement::{Link, Placement};

/// The largest of four bounds, for any order of `microbatches` microbatches on this placement.
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
pub(super) fn lower_bound(placement: &Placement, microbatches: u32, costs: &Costs) -> f64 {
    let m = f64::from(microbatches);
    let stages = &costs.stages;
    let mut head = vec![0.0; stages.len()];
    let mut tail = vec![0.0; stages.len()];
    tail[0] = stages[0].backward_weight;
    for s in 1..stages.len() {
        let (below, here) = (StageId(s as u32 - 1), StageId(s as u32));
        let up = costs.transfer(placement, Link { from: below, to: here });
        let down = costs.transfer(placement, Link { from: here, to: below });
        head[s] = head[s - 1] + stages[s - 1].forward + up;
        tail[s] = down + stages[s - 1].backward_input + tail[s - 1];
    }
    let top = stages.len() - 1;
    let mut turn = vec![head[top] + stages[top].forward; stages.len()];
    for s in (0..top).rev() {
        // From the end of B on the top stage to the end of B on stage s.
        let way_down = tail[top] - tail[s];
        turn[s] = turn[top] + stages[top].backward_input + way_down - stages[s].backward_input;
    }
    let devices = (0..placement.device_count() as u32).map(|device| {
        let own = || placement.stages_of(DeviceId(device)).map(StageId::index);
        let lowest = own().next().expect("checked: every device holds a stage");
        let highest = own().last().unwrap_or(lowest);
        let [f, b, w] = own().fold([0.0; 3], |[f, b, w], s| {
            let stage = &stages[s];
            [f + stage.forward, b + stage.backward_input, w + stage.backward_weight]
        });
        let b_starts = turn[highest].max(head[lowest] + m * f);
        b_starts + m * b + (m * w).max(tail[lowest])
    });
    let path = head[top] + stages[top].forward + stages[top].backward_input + tail[top];
    let slowest = stages.iter().map(|stage| stage.forward.max(stage.backward_input));
    devices.fold(path + (m - 1.0) * slowest.fold(0.0, f64::max), f64::max)
}
