//! Forward only: what evaluation runs. No B and no W, so no stage keeps anything after F.

use super::rounds::turns;
use super::{Family, Shape, Size, actions};
use crate::action::{Action, DeviceId, StageId};
use crate::work::Work;
use crate::{Placement, Plan};

/// F of every microbatch and nothing else, for evaluation.
pub const FORWARD_ONLY: Family = Family {
    name: "forward-only",
    about: "no backward work: for evaluation",
    shape: Shape::Loop { chunks: 1 },
    lanes: |size| size.lanes(lane),
};

/// The lane of one device.
///
/// For p = 4 devices, m = 6 microbatches, F = 1:
///
/// ```text
/// device 0 |F0-F1-F2-F3-F4-F5-.........|
/// device 1 |...F0-F1-F2-F3-F4-F5-......|
/// device 2 |......F0-F1-F2-F3-F4-F5-...|
/// device 3 |.........F0-F1-F2-F3-F4-F5-|
/// ```
///
/// Rounds of p microbatches keep every device busy from one chunk to the next. Where p divides m
/// or v = 1 the bubble is (p-1)F/v, in times of a whole device.
fn lane(device: DeviceId, size: Size) -> Vec<Action> {
    let stage = |chunk: u32| StageId(chunk * size.devices + device.0);
    let forward = |chunk, microbatch| actions(stage(chunk), Work::F)(microbatch);
    turns(size).flatten().map(|turn| forward(turn.chunk, turn.microbatch)).collect()
}

/// F of `microbatches` microbatches on stages that were placed for training.
///
/// A segment, which is adjacent stages of one device, takes one microbatch after another, each
/// through all of its stages, so that no device holds more than one microbatch of a segment. Where
/// a device has several segments, each takes `round` microbatches by turn. For the placement
/// `0 1 1 0` and rounds of 2:
///
/// ```text
/// device 0 |0F0 0F1 3F0 3F1 0F2 0F3 3F2 3F3|
/// device 1 |1F0 2F0 1F1 2F1 1F2 2F2 1F3 2F3|
/// ```
///
/// It ends even if no stage begins a microbatch before the next device has finished the one that is
/// `round` before it: of the actions that are open, the first in the order of round, segment and
/// microbatch waits for none of the others.
pub fn evaluation(placement: &Placement, microbatches: u32, round: u32) -> Plan {
    let mut lanes = vec![Vec::new(); placement.device_count()];
    let round = round.max(1);
    for first in (0..microbatches).step_by(round as usize) {
        let mut ids = (0..).map(StageId);
        for segment in placement.stages.chunk_by(|a, b| a == b) {
            let stages: Vec<StageId> = ids.by_ref().take(segment.len()).collect();
            for microbatch in first..microbatches.min(first.saturating_add(round)) {
                let forward = |&stage: &StageId| actions(stage, Work::F)(microbatch);
                lanes[segment[0].index()].extend(stages.iter().map(forward));
            }
        }
    }
    let schedule = FORWARD_ONLY.name.to_owned();
    Plan { schedule, microbatches, placement: placement.clone(), lanes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn segments_take_microbatches_by_turn() {
        let plan = evaluation(&Placement::folded(2), 4, 2);
        let lane = |actions: &[Action]| {
            actions.iter().map(Action::to_string).collect::<Vec<_>>().join(" ")
        };
        let lanes: Vec<String> = plan.lanes.iter().map(|actions| lane(actions)).collect();
        let expected = ["0F0 0F1 3F0 3F1 0F2 0F3 3F2 3F3", "1F0 2F0 1F1 2F1 1F2 2F2 1F3 2F3"];
        assert_eq!(lanes, expected);
        assert!(check(plan).unwrap().is_forward_only());
    }
}
