//! V-Min: a V with a third of 1F1B's peak stash (Qi et al. 2024, "Pipeline Parallelism with
//! Controllable Memory", section 3).

use super::squeeze::{BuildingBlock, Squeezed, squeeze};
use super::{Family, Shape};
use crate::action::DeviceId;

/// A V with a third of 1F1B's peak stash (Qi et al. 2024, section 3).
///
/// For p = 4 devices, m = 5 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-................7F0-7B0-7W0-7F1-7B1-7W1-0F3-....0B0-0W0-........7F2-7B2-|
/// device 1 |....1F0-1F1-............6F0-....6F1-6B0-6W0-1F2-6B1-6W1-1B0-1F3-1W0-....6F2-....1B1-|
/// device 2 |........2F0-2F1-....5F0-....5F1-........5B0-5W0-2F2-2B0-5B1-2W0-5W1-5F2-2F3-2B1-2W1-|
/// device 3 |............3F0-4F0-3F1-4F1-................4B0-3B0-4W0-3F2-3W0-4F2-4B1-3B1-4W1-3F3-|
///
/// device 0 |0B1-7W2-0F4-0W1-7F3-7B3-0B2-7W3-0W2-....7F4-7B4-0B3-7W4-0W3-............0B4-0W4-|
/// device 1 |6B2-1W1-6W2-6F3-1F4-1B2-6B3-1W2-6W3-6F4-....1B3-6B4-1W3-6W4-........1B4-1W4-....|
/// device 2 |....5B2-5F3-5W2-2B2-2F4-2W2-5B3-5F4-5W3-2B3-2W3-....5B4-5W4-....2B4-2W4-........|
/// device 3 |3W1-4F3-4B2-3B2-4W2-3W2-3F4-4F4-4B3-3B3-4W3-3W3-........4B4-3B4-4W4-3W4-........|
/// ```
///
/// A microbatch takes one slot from device to device all the way. That is the fastest there is, so
/// the two chunks of a device together wait the least for their gradients, and no device holds more
/// than floor((p+4)/3) microbatches.
///
/// With more microbatches than that, at F = B = W, the step bubble is 4p - 5 where p = 3n + 1 >= 4
/// and else 4p - 7 for p >= 2, in times of a chunk: 2p - 2.5 and 2p - 3.5 in those of a whole
/// device, about two thirds of 1F1B's 3p - 3. With fewer it is ZB-V's.
pub const V_MIN: Family = Family {
    name: "v-min",
    about: "a V of two chunks per device with about a third of 1f1b's memory",
    shape: Shape::Fold,
    lanes: |size| {
        let p = size.devices;
        squeeze(size, (p + 4) / 3, Squeezed::All, |device| block(p, device))
    },
};

/// The slots of one microbatch on one of `p` devices.
pub(super) fn block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    // Two passes of a device must not be equal mod 6.
    let turn = if p.is_multiple_of(3) { 2 } else { 0 };
    BuildingBlock {
        down_f: i,
        up_f: 2 * p - 1 - i,
        up_b: 2 * p + turn + i,
        down_b: 4 * p - 1 + turn - i,
    }
}
