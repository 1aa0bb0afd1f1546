//! How fast an order can be at best, on a given placement.

use super::SearchInput;
use super::beam::{MOST_STAGES, beam, bound_of_all};
use super::instance::Instance;
use crate::error::Result;
use crate::placement::Placement;
use crate::simulate::Costs;
use crate::work::Work;

/// The smallest makespan of all orders of F, B and W on `placement` within `limits`, bytes of every
/// device, or no limits if there are none. Microbatches ascend on each stage: no other order of
/// them is faster, as `order.rs` says.
///
/// Nothing where there are none below `to_beat`: so with a makespan that some order has it is that
/// one or less that is the optimum. `width` bounds the effort, in orders of the same length that
/// are kept.
///
/// Parcels on their way take no memory here, and buffers that are made before the first step are
/// not known.
///
/// # Errors
///
/// When the costs do not fit the placement, or it has too many stages or microbatches for this.
pub fn optimum(
    placement: &Placement,
    microbatches: u32,
    costs: &Costs,
    limits: &[u64],
    to_beat: f64,
    width: usize,
) -> Result<Optimum> {
    if placement.stage_count() > MOST_STAGES || microbatches > u8::MAX.into() {
        return Err(crate::Error::config("too many stages or microbatches to try all orders")
            .hint(format!("{MOST_STAGES} stages and {} microbatches at most", u8::MAX)));
    }
    let instance = instance(placement, microbatches, costs, limits)?;
    let outcome = beam(&instance, to_beat, width);
    let makespan = outcome.faster.map_or(to_beat, |(_, makespan)| makespan);
    Ok(Optimum { makespan, proved: outcome.exact, nodes: outcome.nodes })
}

/// What no order of F, B and W on `placement` within `limits` takes less than. See [`optimum`] for
/// what these are.
///
/// It is the larger of two bounds:
///
/// 1. That of an order of which nothing is done yet: see `beam/remaining.rs`.
/// 2. A microbatch occupies what it leaves on a stage after F from the start of F to the end of B,
///    and so for as long at least as a lone one takes from there to the last stage and back; and
///    while W runs, what is left of it after B. All m do so on all stages of a device, after the
///    first has come there; and no more than the device has is ever occupied. So m times the bytes
///    times their times, over the bytes of the device, is a time that passes.
///
/// # Errors
///
/// When the costs do not fit the placement.
pub fn lower_bound_within(
    placement: &Placement,
    microbatches: u32,
    costs: &Costs,
    limits: &[u64],
) -> Result<f64> {
    let instance = instance(placement, microbatches, costs, limits)?;
    let m = f64::from(microbatches);
    let stages = &instance.stages;
    let mut heads = vec![0.0; stages.len()];
    for s in 1..stages.len() {
        heads[s] = heads[s - 1] + stages[s - 1].time[Work::F] + stages[s - 1].transfer_up;
    }
    // From the start of F to the end of B of each stage.
    let mut trips = vec![0.0; stages.len()];
    let mut above = 0.0;
    for (s, stage) in stages.iter().enumerate().rev() {
        let way_back = stages.get(s + 1).map_or(0.0, |above| above.transfer_down);
        let b_ends = stage.time[Work::F] + above + way_back + stage.time[Work::B];
        trips[s] = b_ends;
        above = b_ends + s.checked_sub(1).map_or(0.0, |below| stages[below].transfer_up);
    }
    let occupied = instance.devices.iter().filter(|of| of.capacity < u64::MAX).map(|device| {
        let area = |s: usize| {
            let (stage, time) = (&stages[s], stages[s].time[Work::W]);
            // Where B frees nothing this is one product, and rounded as such.
            let both = stage.after_f.min(stage.after_b);
            let (freed, added) = (stage.after_f - both, stage.after_b - both);
            both as f64 * (trips[s] + time) + freed as f64 * trips[s] + added as f64 * time
        };
        let area: f64 = device.chunks.iter().map(|s| area(*s)).sum();
        let time = if area > 0.0 { m * area / device.capacity as f64 } else { 0.0 };
        heads[device.chunks[0]] + time
    });
    Ok(occupied.fold(bound_of_all(&instance), f64::max))
}

fn instance(
    placement: &Placement,
    microbatches: u32,
    costs: &Costs,
    limits: &[u64],
) -> Result<Instance> {
    costs.check(placement)?;
    let input = SearchInput {
        blocks: Vec::new(),
        crossings: Vec::new(),
        transfers: costs.transfers.clone(),
        marks: Vec::new(),
        microbatches,
        memory_limits: limits.to_vec(),
    };
    Ok(Instance::new(&input, placement, costs, &vec![0; placement.device_count()]))
}

/// What [`optimum`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    /// The smallest makespan known.
    pub makespan: f64,
    /// Whether no order has a smaller one.
    pub proved: bool,
    /// How many beginnings of orders were looked at.
    pub nodes: usize,
}
