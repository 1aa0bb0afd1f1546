//! Forward only: what evaluation runs. No B and no W, so no stage keeps anything after F.

use super::rounds::turns;
use super::{Family, Shape, Size, actions};
use crate::plan::action::{Action, DeviceId, StageId, Work};

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
