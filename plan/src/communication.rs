//! Plan + bytes -> Communication: what a step moves between devices, and what data parallelism
//! would move in its place.

use super::Plan;
use super::placement::Link;
use super::simulate::Costs;

/// Bytes that a step moves from one device to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Communication {
    /// Every link between different devices.
    pub links: Vec<LinkBytes>,
    /// Gradients and new values of the parameters that several devices use.
    pub shared_bytes: u64,
    /// All of that.
    pub total_bytes: u64,
    /// What the same devices would move in one step of data parallelism, by a ring all-reduce of
    /// all gradients: 2 (p - 1) times the bytes of the parameters (Patarasu and Yuan 2009,
    /// "Bandwidth optimal all-reduce algorithms for clusters of workstations", section 3).
    pub all_reduce_bytes: u64,
}

/// What a step moves over one link: one activation or gradient per microbatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkBytes {
    /// The stages that it connects.
    pub link: Link,
    /// Of all microbatches.
    pub bytes: u64,
}

/// What a step of `plan` moves, where the whole model has `parameter_bytes` bytes of parameters
/// and `shared_bytes` are moved for those that several devices use.
pub fn communication(
    plan: &Plan,
    costs: &Costs,
    parameter_bytes: u64,
    shared_bytes: u64,
) -> Communication {
    let placement = &plan.placement;
    let trains = !plan.is_forward_only();
    let moved = |link: &Link| link.is_forward() || trains;
    let links: Vec<LinkBytes> = placement
        .links()
        .filter(moved)
        .map(|link| LinkBytes {
            link,
            bytes: costs.parcel_bytes(link).saturating_mul(u64::from(plan.microbatches)),
        })
        .collect();
    let over_links = links.iter().map(|link| link.bytes).fold(0, u64::saturating_add);
    let others = (placement.device_count() as u64).saturating_sub(1);
    Communication {
        links,
        shared_bytes,
        total_bytes: over_links.saturating_add(shared_bytes),
        all_reduce_bytes: if trains {
            parameter_bytes.saturating_mul(2).saturating_mul(others)
        } else {
            0
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoundaryCost, FORWARD_ONLY, Family, GPIPE, ZB_V, generate};

    /// Three devices, two microbatches, activations of 10 bytes, gradients of 100.
    fn moves(family: &Family) -> ([u64; 3], String) {
        let plan = generate(family, 3, None, 2).unwrap();
        let mut costs = Costs::unit(plan.placement.stage_count());
        costs.boundaries.fill(BoundaryCost { activation_bytes: 10, gradient_bytes: 100 });
        let Communication { links, total_bytes, all_reduce_bytes, shared_bytes } =
            communication(&plan, &costs, 1000, 7);
        let links: Vec<String> =
            links.iter().map(|of| format!("{}:{}", of.link, of.bytes)).collect();
        ([total_bytes, shared_bytes, all_reduce_bytes], links.join(" "))
    }

    #[test]
    fn every_microbatch_crosses_every_boundary_between_devices_twice() {
        assert_eq!(moves(&GPIPE), ([447, 7, 4000], "0>1:20 1>0:200 1>2:20 2>1:200".to_owned()));
        // The two stages at the turn of a V are on one device.
        let v = "0>1:20 1>0:200 1>2:20 2>1:200 3>4:20 4>3:200 4>5:20 5>4:200";
        assert_eq!(moves(&ZB_V), ([887, 7, 4000], v.to_owned()));
    }

    #[test]
    fn an_evaluation_moves_activations_only() {
        assert_eq!(moves(&FORWARD_ONLY), ([47, 7, 0], "0>1:20 1>2:20".to_owned()));
    }
}
