//! V plans for any stash from V-Min's to ZB-V's: the building blocks of all three families, moved
//! forward as far as that stash allows (Qi et al. 2024, section 4).

use super::Size;
use super::squeeze::{BuildingBlock, squeeze};
use crate::Plan;
use crate::action::DeviceId;
use crate::placement::Placement;

/// A building block of some number of devices, on each of them.
type Block = fn(u32, DeviceId) -> BuildingBlock;

/// The plans for every stash from floor((p+4)/3) to p microbatches, from each building block whose
/// own stash is no more.
pub(crate) fn plans_by_stash(devices: u32, microbatches: u32) -> Vec<Plan> {
    let (p, size) = (devices, Size { devices, chunks: 2, microbatches });
    let own_stash = [(p + 4) / 3, (p + 2) / 2, p];
    let blocks: [Block; 3] = [min_block, half_block, zb_block];
    let plan = |stash, block: Block| Plan {
        schedule: "auto".into(),
        microbatches,
        placement: Placement::folded(p),
        lanes: squeeze(size, stash, |device| block(p, device)),
    };
    let stashes = (p + 4) / 3..=p;
    let plans = stashes.flat_map(|stash| {
        let fitting = own_stash.into_iter().zip(blocks).filter(move |(own, _)| *own <= stash);
        fitting.map(move |(_, block)| plan(stash, block))
    });
    plans.collect()
}

/// V-Min's: one slot from device to device all the way.
fn min_block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    let turn = if p.is_multiple_of(3) { 2 } else { 0 };
    BuildingBlock {
        down_f: i,
        up_f: 2 * p - 1 - i,
        up_b: 2 * p + turn + i,
        down_b: 4 * p - 1 + turn - i,
    }
}

/// V-Half's: two slots on the way down the devices, one on the way back up.
fn half_block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    let turn = if p.is_multiple_of(2) { 3 } else { 0 };
    BuildingBlock {
        down_f: 2 * i,
        up_f: 3 * p - 2 - i,
        up_b: 3 * p - 1 + turn + 2 * i,
        down_b: 6 * p - 2 + turn - i,
    }
}

/// ZB-V's: four slots down, two back up.
fn zb_block(p: u32, DeviceId(i): DeviceId) -> BuildingBlock {
    BuildingBlock {
        down_f: 4 * i,
        up_f: 6 * p - 5 - 2 * i,
        up_b: 6 * p - 4 + 4 * i,
        down_b: 12 * p - 9 - 2 * i,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Costs, check, simulate};

    #[test]
    fn a_v_holds_no_more_than_its_stash() {
        for devices in 2..9 {
            for microbatches in 1..14 {
                let least = (devices + 4) / 3;
                let plans = plans_by_stash(devices, microbatches);
                assert!(plans.len() as u32 > 2 * (devices - least));
                for plan in plans {
                    let plan = check(plan).unwrap();
                    let memory =
                        simulate(&plan, &Costs::unit(2 * devices as usize)).unwrap().memory;
                    assert!(memory.iter().all(|of| of.peak_stash <= f64::from(devices)));
                }
            }
        }
    }
}
