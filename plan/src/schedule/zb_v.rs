//! ZB-V: a V without bubble between the first and the last action of a device at F = B = W, at
//! 1F1B's peak stash (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 6).

use super::folded_lane::{DOWN, FoldedLane, UP};
use super::squeeze::{BuildingBlock, Squeezed, squeeze};
use super::{Family, Shape, Size};
use crate::action::{Action, DeviceId};

/// A V without bubble in a device's span at F = B = W (Qi et al. 2023, section 6).
pub const ZB_V: Family = Family {
    name: "zb-v",
    about: "a V of two chunks per device, no bubble in its span at F = B = W, at 1f1b's memory",
    shape: Shape::Fold,
    lanes,
};

fn lanes(size: Size) -> Vec<Vec<Action>> {
    let p = size.devices;
    if size.microbatches + 2 >= 2 * p {
        return size.lanes(lane);
    }
    // Too few to fill the devices until the first gradients come back: there is idle time to save.
    // The same steady state as a building block (Qi et al. 2024, section 3). With hardly more
    // microbatches than devices it is too short to be kept without idle time at F = B = W.
    let squeezed = if 3 * size.microbatches > 4 * p { Squeezed::Ends } else { Squeezed::All };
    squeeze(size, p, squeezed, |device| block(p, device))
}

/// The slots of one microbatch on one of `p` devices.
pub(super) fn block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    BuildingBlock {
        down_f: 4 * i,
        up_f: 6 * p - 5 - 2 * i,
        up_b: 6 * p - 4 + 4 * i,
        down_b: 12 * p - 9 - 2 * i,
    }
}

/// The lane of one device, for m >= 2p - 2.
///
/// For p = 4 devices, m = 7 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-0F3-0F4-0F5-0F6-7F0-7B0-7W0-7F1-7B1-7W1-7F2-7B2-|
/// device 1 |....1F0-1F1-1F2-1F3-1F4-6F0-1F5-6F1-6B0-6W0-6F2-6B1-6W1-6F3-|
/// device 2 |........2F0-2F1-2F2-5F0-2F3-5F1-2F4-5F2-5B0-5W0-5F3-5B1-5W1-|
/// device 3 |............3F0-4F0-3F1-4F1-3F2-4F2-3F3-4F3-4B0-4W0-3F4-3B0-|
///
/// device 0 |7W2-7F3-7B3-7W3-0B0-0W0-7F4-7B4-7W4-0B1-0W1-7F5-7B5-7W5-0B2-|
/// device 1 |6B2-6W2-1F6-1B0-1W0-6F4-6B3-6W3-1B1-1W1-6F5-6B4-6W4-1B2-1W2-|
/// device 2 |2F5-2B0-2W0-5F4-5B2-5W2-2F6-2B1-2W1-5F5-5B3-5W3-2B2-2W2-5F6-|
/// device 3 |3W0-4F4-4B1-4W1-3F5-3B1-3W1-4F5-4B2-4W2-3F6-3B2-3W2-4F6-4B3-|
///
/// device 0 |0W2-7F6-7B6-7W6-0B3-0W3-0B4-0W4-0B5-0W5-0B6-0W6-............|
/// device 1 |6F6-6B5-6W5-1B3-6B6-1B4-1W3-1B5-1W4-1B6-1W5-6W6-1W6-........|
/// device 2 |5B4-5W4-2B3-5B5-2B4-5B6-2B5-2W3-2B6-2W4-5W5-5W6-2W5-2W6-....|
/// device 3 |4W3-3B3-4B4-3B4-4B5-3B5-4B6-3B6-3W3-4W4-4W5-4W6-3W4-3W5-3W6-|
/// ```
///
/// F of the chunk on the way up runs as soon as it can, and device i fills the time until then
/// with 2(p - i) - 1 forwards of the other chunk. That is all that the stash of p microbatches, 2p
/// chunks, allows, and then each device repeats F, B, W of one chunk and of the other. So at
/// F = B = W a device idles only before its first and after its last action, (p-1)F/2 in all: the
/// time that the first microbatch needs to reach the last device.
fn lane(device: DeviceId, size: Size) -> Vec<Action> {
    let Size { devices: p, microbatches: m, .. } = size;
    let i = device.0;
    let mut lane = FoldedLane::new(device, size);
    (0..2 * (p - i) - 1).for_each(|_| lane.forward(DOWN));
    for _ in 0..i {
        lane.forward(UP);
        lane.forward(DOWN);
    }
    for _ in 0..p - i {
        lane.forward(UP);
        lane.split(UP);
        lane.weight(UP);
    }
    for turn in 0..m - p {
        if turn + 2 * p < m + i + 1 {
            lane.forward(DOWN);
        }
        lane.split(DOWN);
        lane.weight(DOWN);
        lane.forward(UP);
        lane.split(UP);
        lane.weight(UP);
    }
    for _ in 0..i {
        lane.split(DOWN);
        lane.split(UP);
    }
    for _ in 0..p - i {
        lane.split(DOWN);
        lane.weight(DOWN);
    }
    lane.finish()
}
