//! V-Half: a V with half of 1F1B's peak stash (Qi et al. 2024, "Pipeline Parallelism with
//! Controllable Memory", section 3).

use super::squeeze::{BuildingBlock, Squeezed, squeeze};
use super::{Family, Shape};
use crate::action::DeviceId;

/// A V with half of 1F1B's peak stash (Qi et al. 2024, section 3).
///
/// For p = 4 devices, m = 6 microbatches, F = B = W = 1 of each chunk:
///
/// ```text
/// device 0 |0F0-0F1-0F2-0F3-............7F0-7B0-7F1-7B1-7W0-7F2-7W1-0F4-0B0-7B2-0W0-....7F3-7W2-|
/// device 1 |....1F0-1F1-1F2-1F3-....6F0-....6F1-6B0-6W0-6F2-6B1-6W1-1B0-1W0-1F4-....6F3-6B2-6W2-|
/// device 2 |........2F0-2F1-2F2-5F0-....5F1-....5F2-5B0-5W0-2F3-2B0-5B1-2W0-....5F3-5W1-2F4-2B1-|
/// device 3 |............3F0-4F0-3F1-4F1-3F2-4F2-........4B0-3B0-4W0-3W0-3F3-4F3-4B1-4W1-3B1-3W1-|
///
/// device 0 |0F5-0B1-7B3-0W1-7F4-7B4-7W3-0B2-7W4-0W2-7F5-7B5-0B3-7W5-0B4-0W3-0W4-....0B5-0W5-|
/// device 1 |1B1-1W1-1F5-6F4-6B3-6W3-1B2-6B4-1W2-6F5-6W4-1B3-6B5-1B4-1W3-6W5-1W4-1B5-1W5-....|
/// device 2 |5B2-2W1-5F4-5W2-2F5-2B2-5B3-2W2-5F5-5B4-2B3-5W3-2B4-5B5-5W4-2W3-2B5-2W4-5W5-2W5-|
/// device 3 |3F4-4F4-4B2-4W2-3B2-3W2-3F5-4F5-4B3-3B3-4B4-3B4-4W3-3W3-4B5-3B5-4W4-3W4-4W5-3W5-|
/// ```
///
/// A microbatch takes two slots from device to device on the way down and one on the way back up,
/// on its F and on its B alike. So the two chunks of a device together wait equally long for their
/// gradients on all devices, half as long as ZB-V's, and no device holds more than floor((p+2)/2)
/// microbatches.
///
/// The steady state keeps these slots. That leaves each action some slots to be late in, so that
/// the order fits other costs than F = B = W.
///
/// With more microbatches than floor((p+2)/2), at F = B = W, the step bubble is 3p - 7 for even
/// p >= 4 and 3p - 4 for odd p >= 3, in times of a chunk: 1.5p - 3.5 and 1.5p - 2 in those of a
/// whole device, about half of 1F1B's 3p - 3. With fewer it is ZB-V's.
pub const V_HALF: Family = Family {
    name: "v-half",
    about: "a V of two chunks per device with about half of 1f1b's memory",
    shape: Shape::Fold,
    lanes: |size| {
        let p = size.devices;
        squeeze(size, (p + 2) / 2, Squeezed::Ends, |device| block(p, device))
    },
};

/// The slots of one microbatch on one of `p` devices.
pub(super) fn block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    // Two passes of a device must not be equal mod 6.
    let turn = if p.is_multiple_of(2) { 3 } else { 0 };
    BuildingBlock {
        down_f: 2 * i,
        up_f: 3 * p - 2 - i,
        up_b: 3 * p - 1 + turn + 2 * i,
        down_b: 6 * p - 2 + turn - i,
    }
}
