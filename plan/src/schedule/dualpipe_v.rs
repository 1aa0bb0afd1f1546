//! DualPipeV: DualPipe cut in half, a V whose steady state pairs the F of one chunk with the
//! backward of the other (DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 3.2.1; Qi et
//! al. 2025, "DualPipe could be better without the Dual").

use super::folded_lane::{DOWN, FoldedLane, UP};
use super::{Family, Shape, Size};
use crate::action::{Action, DeviceId};

/// DualPipe cut in half (DeepSeek-AI 2024; Qi et al. 2025). The pairs of F and backward, which the
/// sources run as one, are here one after the other.
pub const DUALPIPE_V: Family = Family {
    name: "dualpipe-v",
    about: "a V of two chunks per device that alternates F of one and backward of the other",
    shape: Shape::Fold,
    lanes: |size| size.lanes(lane),
};

/// The lane of one device.
///
/// For p = 4 devices, m = 8 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-0F3-0F4-0F5-0F6-7F0-7B0-7W0-7F1-7B1-7W1-7F2-7B2-7W2-7F3-|
/// device 1 |....1F0-1F1-1F2-1F3-1F4-6F0-1F5-6F1-6B0-6W0-6F2-6B1-6W1-6F3-1F6-6BW2|
/// device 2 |........2F0-2F1-2F2-5F0-2F3-5F1-2F4-5F2-5B0-5W0-5F3-2F5-5BW1----5F4-|
/// device 3 |............3F0-4F0-3F1-4F1-3F2-4F2-3F3-4F3-3F4-4BW0----4F4-3BW0----|
///
/// device 0 |0F7-7BW3----7F4-0BW0----7BW4----7F5-....0BW1----7BW5----7F6-....0BW2|
/// device 1 |----6F4-1BW0----1F7-6BW3----6F5-1BW1----6BW4----6F6-....1BW2----6BW5|
/// device 2 |2BW0----2F6-5BW2----5F5-2BW1----2F7-5BW3----5F6-2BW2----5BW4----5F7-|
/// device 3 |3F5-4BW1----4F5-3BW1----3F6-4BW2----4F6-3BW2----3F7-4BW3----4F7-3BW3|
///
/// device 0 |----7BW6----7F7-....0BW3----7BW7----0B4-0W4-0B5-0W5-0B6-0W6-0B7-0W7-|
/// device 1 |----6F7-....1BW3----6BW6----1BW4----6B7-1B5-6W7-1B6-1W5-1B7-1W6-1W7-|
/// device 2 |....2BW3----5BW5----2BW4----5BW6----2B5-5B7-2B6-5W7-2B7-2W5-2W6-2W7-|
/// device 3 |----4BW4----3BW4----4BW5----3BW5----4B6-3B6-4B7-3B7-4W6-4W7-3W6-3W7-|
/// ```
///
/// The sources run an F and a backward as one, so that each hides what the other sends. Without
/// that, and at F = B = W, the step bubble is ZB-V's (p-1)F/2 from m = 2p on. With fewer the lane
/// is laid out for 2p microbatches, and what is beyond m is left out. No device holds more than
/// 2p + 1 chunks, which is p + 1/2 microbatches.
fn lane(device: DeviceId, size: Size) -> Vec<Action> {
    let (p, i) = (size.devices, device.0);
    let whole = size.microbatches.max(2 * p);
    let (before, after) = (i + 1, p - 1 - i);
    let mut lane = FoldedLane::new(device, size);
    (0..2 * after).for_each(|_| lane.forward(DOWN));
    for _ in 0..before {
        lane.forward(DOWN);
        lane.forward(UP);
    }
    for _ in 0..after {
        lane.split(UP);
        lane.weight(UP);
        lane.forward(UP);
    }
    for _ in 0..whole - 2 * p + before {
        lane.forward(DOWN);
        lane.fused(UP);
        lane.forward(UP);
        lane.fused(DOWN);
    }
    for _ in 0..after {
        lane.fused(UP);
        lane.forward(UP);
        lane.fused(DOWN);
    }
    // The second half of these leaves W for the drain.
    for turn in 0..2 * before {
        let chunk = if turn % 2 == 0 { UP } else { DOWN };
        if turn < before { lane.fused(chunk) } else { lane.split(chunk) }
    }
    for _ in 0..after {
        let pending = if lane.puts_off(UP) { UP } else { DOWN };
        lane.weight(pending);
        lane.split(DOWN);
    }
    lane.finish()
}
