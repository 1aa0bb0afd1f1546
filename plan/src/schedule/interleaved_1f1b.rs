//! Interleaved 1F1B: each device holds v chunks, every p-th stage, so that the pipeline fills in
//! steps of a v-th (Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU
//! Clusters Using Megatron-LM", section 2.2).

use super::rounds::{Turn, turns};
use super::{Family, Shape, Size, actions, fused};
use crate::action::{Action, DeviceId, StageId};
use crate::work::Work;

/// 1F1B on a loop of v chunks per device (Narayanan et al. 2021, section 2.2).
pub const INTERLEAVED_1F1B: Family = Family {
    name: "interleaved-1f1b",
    about: "1f1b on a loop of several chunks per device: a smaller bubble for more transfers",
    shape: Shape::Loop { chunks: 2 },
    lanes: |size| size.lanes(lane),
};

/// The lane of one device.
///
/// For p = 4 devices, m = 8 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-0F3-4F0-4F1-4F2-4F3-0F4-0F5-0F6-............4BW0----0F7-4BW1----|
/// device 1 |....1F0-1F1-1F2-1F3-5F0-5F1-5F2-5F3-1F4-........5BW0----1F5-5BW1----1F6-5BW2|
/// device 2 |........2F0-2F1-2F2-2F3-6F0-6F1-6F2-....6BW0----6F3-6BW1----2F4-6BW2----2F5-|
/// device 3 |............3F0-3F1-3F2-3F3-7F0-7BW0----7F1-7BW1----7F2-7BW2----7F3-7BW3----|
///
/// device 0 |....4F4-4BW2----4F5-4BW3----4F6-0BW0----4F7-0BW1----0BW2----....0BW3----....|
/// device 1 |----1F7-5BW3----5F4-1BW0----5F5-1BW1----5F6-1BW2----5F7-1BW3----....5BW4----|
/// device 2 |6BW3----2F6-2BW0----2F7-2BW1----6F4-2BW2----6F5-2BW3----6F6-6BW4----6F7-6BW5|
/// device 3 |3F4-3BW0----3F5-3BW1----3F6-3BW2----3F7-3BW3----7F4-7BW4----7F5-7BW5----7F6-|
///
/// device 0 |4BW4----....4BW5----....4BW6----....4BW7----0BW4----0BW5----0BW6----0BW7----|
/// device 1 |....5BW5----....5BW6----....5BW7----1BW4----1BW5----1BW6----1BW7----........|
/// device 2 |----....6BW6----....6BW7----2BW4----2BW5----2BW6----2BW7----................|
/// device 3 |7BW6----7F7-7BW7----3BW4----3BW5----3BW6----3BW7----........................|
/// ```
///
/// Device i runs 2(p - 1 - i) + (v - 1)p forwards ahead, so it holds at most (v + 1)p - 1 - 2i
/// chunks: device 0 p + (p-1)/v microbatches. Where p divides m the span bubble is
/// (p-1)(F+B+W)/v, in times of a whole device. Where it does not, the last round has empty turns
/// and takes no longer than a whole one.
fn lane(device: DeviceId, size: Size) -> Vec<Action> {
    let Size { devices, chunks, .. } = size;
    let stage = |chunk: u32| StageId(chunk * devices + device.0);
    let last = chunks - 1;
    let forward = |Turn { chunk, microbatch }| actions(stage(chunk), Work::F)(microbatch);
    let backward = |Turn { chunk, microbatch }| fused(stage(last - chunk))(microbatch);
    let mut forwards = turns(size).map(|turn| turn.map(forward));
    let backwards = turns(size).map(|turn| turn.map(backward));
    let ahead = 2 * (devices - 1 - device.0) + last * devices;
    let mut lane: Vec<Action> = forwards.by_ref().take(ahead as usize).flatten().collect();
    for backward in backwards {
        lane.extend(forwards.next().flatten());
        lane.extend(backward);
    }
    lane
}
