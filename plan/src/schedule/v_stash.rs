//! V plans for any stash from V-Min's to ZB-V's: the building blocks of all three families, moved
//! forward as far as that stash allows (Qi et al. 2024, section 4).

use super::squeeze::{BuildingBlock, Squeezed, squeeze};
use super::{Size, v_half, v_min, zb_v};
use crate::Plan;
use crate::action::DeviceId;
use crate::placement::Placement;

/// The building block of so many devices, on each of them.
type Block = fn(u32, DeviceId) -> BuildingBlock;

/// The plans for every stash from floor((p+4)/3) to p microbatches, from each building block whose
/// own stash is no more, with the steady state moved forward and without.
pub(crate) fn plans_by_stash(devices: u32, microbatches: u32) -> Vec<Plan> {
    let (p, size) = (devices, Size { devices, chunks: 2, microbatches });
    let own_stash = [(p + 4) / 3, (p + 2) / 2, p];
    let blocks: [Block; 3] = [v_min::block, v_half::block, zb_v::block];
    let plan = |stash, squeezed, block: Block| Plan {
        schedule: "auto".into(),
        microbatches,
        placement: Placement::folded(p),
        lanes: squeeze(size, stash, squeezed, |device| block(p, device)),
    };
    let mut plans = Vec::new();
    for stash in (p + 4) / 3..=p {
        let fitting = own_stash.into_iter().zip(blocks).filter(|(own, _)| *own <= stash);
        for (_, block) in fitting {
            plans.push(plan(stash, Squeezed::All, block));
            plans.push(plan(stash, Squeezed::Ends, block));
        }
    }
    plans.dedup_by(|a, b| a.lanes == b.lanes);
    plans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Costs, check, simulate};

    #[test]
    fn there_is_a_v_for_every_stash() {
        for devices in 2..9 {
            for microbatches in 1..14 {
                let costs = Costs::unit(2 * devices as usize);
                let peak = |plan: Plan| {
                    let memory = simulate(&check(plan).unwrap(), &costs).unwrap().memory;
                    memory.iter().map(|of| of.peak_stash).fold(0.0, f64::max)
                };
                let mut peaks: Vec<f64> =
                    plans_by_stash(devices, microbatches).into_iter().map(peak).collect();
                peaks.sort_by(f64::total_cmp);
                assert!(peaks[0] <= f64::from((devices + 4) / 3));
                assert!(peaks[peaks.len() - 1] <= f64::from(devices));
                // No more than a microbatch apart, as far as there are so many.
                assert!(peaks.windows(2).all(|pair| pair[1] - pair[0] <= 1.0));
                assert!(peaks[peaks.len() - 1] > f64::from(devices.min(microbatches)) - 1.0);
            }
        }
    }
}
