//! Looped BFS: each device runs all microbatches of a chunk before it comes to the next
//! (Lamy-Poirier 2022, "Breadth-First Pipeline Parallelism", section 3).

use super::{Family, Shape, Size, actions, fused};
use crate::action::{Action, DeviceId, StageId};
use crate::work::Work;

/// GPipe on a loop of v chunks per device, breadth first (Lamy-Poirier 2022, section 3).
pub const LOOPED_BFS: Family = Family {
    name: "looped-bfs",
    about: "gpipe on a loop of several chunks per device, one chunk after the other",
    shape: Shape::Loop { chunks: 2 },
    lanes: |size| size.lanes(lane),
};

/// The lane of one device.
///
/// For p = 4 devices, m = 4 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-0F3-4F0-4F1-4F2-4F3-....................................|
/// device 1 |....1F0-1F1-1F2-1F3-5F0-5F1-5F2-5F3-........................5BW0----|
/// device 2 |........2F0-2F1-2F2-2F3-6F0-6F1-6F2-6F3-............6BW0----6BW1----|
/// device 3 |............3F0-3F1-3F2-3F3-7F0-7F1-7F2-7F3-7BW0----7BW1----7BW2----|
///
/// device 0 |4BW0----4BW1----4BW2----4BW3----0BW0----0BW1----0BW2----0BW3----|
/// device 1 |5BW1----5BW2----5BW3----1BW0----1BW1----1BW2----1BW3----........|
/// device 2 |6BW2----6BW3----2BW0----2BW1----2BW2----2BW3----................|
/// device 3 |7BW3----3BW0----3BW1----3BW2----3BW3----........................|
/// ```
///
/// Every device holds all m microbatches. For m >= p the span bubble is (p-1)(F+B+W)/v, in times of
/// a whole device; fewer microbatches do not fill the loop, and each chunk waits for p turns.
fn lane(device: DeviceId, size: Size) -> Vec<Action> {
    let Size { devices, chunks, microbatches } = size;
    let stage = |chunk: u32| StageId(chunk * devices + device.0);
    let forwards =
        (0..chunks).flat_map(|chunk| (0..microbatches).map(actions(stage(chunk), Work::F)));
    let backwards = (0..chunks).rev().flat_map(|chunk| (0..microbatches).map(fused(stage(chunk))));
    forwards.chain(backwards).collect()
}
