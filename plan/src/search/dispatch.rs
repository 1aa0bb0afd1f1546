//! The inner loop: a list scheduler (Graham 1966) that turns priorities into an order.
//!
//! Whenever a device is free it runs the ready action with the smallest key. What does not fit in
//! memory is not ready.

use super::admission::{b_fits, f_fits};
use super::instance::Instance;
use crate::action::{Action, MicrobatchId, StageId};
use crate::work::{PerWork, Work};

/// What the list scheduler goes by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Priorities {
    /// The key of an action is its microbatch times `cycle` plus its stage's offset of F, B or W.
    pub cycle: f64,
    pub offsets: Vec<PerWork<f64>>,
    /// How many microbatches may be between F and B on a stage.
    pub ahead: Vec<u32>,
    /// A device waits for a parcel that is under way if the key of its action is smaller than that
    /// of all that is ready, and it comes within this fraction of the time that the ready action
    /// with the smallest key takes.
    pub wait_fraction: f64,
}

/// Reused from run to run, so that the inner loop does not allocate. Holds the last order.
#[derive(Default)]
pub(super) struct Order {
    lanes: Vec<Vec<Action>>,
    /// When the last action of every device ends.
    ends: Vec<f64>,
    /// How many F, B and W of every stage have been started.
    progress: Vec<PerWork<u32>>,
    /// When the parcel for F of microbatch k is on stage s, at `s * microbatches + k`.
    forward_arrivals: Vec<f64>,
    /// The same for B. On the last stage that is the end of F.
    backward_arrivals: Vec<f64>,
    lane_states: Vec<LaneState>,
}

#[derive(Clone, Copy)]
struct LaneState {
    free: f64,
    /// When the device has something to decide, as far as is known.
    wakes: f64,
    /// Time of the actions that are still to run.
    left: f64,
    stash: u64,
}

impl Order {
    /// The lanes of the last run that ended.
    pub fn lanes(&self) -> &[Vec<Action>] {
        &self.lanes
    }

    /// How many actions the last run came to.
    pub fn dispatched(&self) -> usize {
        self.lanes.iter().map(Vec::len).sum()
    }

    /// The mean over the devices of the time at which they are done.
    pub fn mean_end(&self) -> f64 {
        self.ends.iter().sum::<f64>() / self.ends.len() as f64
    }

    fn reset(&mut self, instance: &Instance) {
        let parcels = instance.stages.len() * instance.microbatches;
        self.lanes.resize_with(instance.devices.len(), Vec::new);
        self.lanes.truncate(instance.devices.len());
        self.lanes.iter_mut().for_each(Vec::clear);
        self.progress.clear();
        self.progress.resize(instance.stages.len(), PerWork::default());
        for arrivals in [&mut self.forward_arrivals, &mut self.backward_arrivals] {
            arrivals.clear();
            arrivals.resize(parcels, f64::INFINITY);
        }
        self.forward_arrivals[..instance.microbatches].fill(0.0);
        let m = instance.microbatches as f64;
        self.lane_states.clear();
        self.lane_states.extend(instance.devices.iter().map(|device| LaneState {
            free: 0.0,
            wakes: 0.0,
            left: m * device.work,
            stash: 0,
        }));
    }
}

/// Runs one step by `priorities`, and returns its makespan; nothing if that is not below `cutoff`,
/// or if not even one microbatch fits.
///
/// Actions start as soon as their device is free and their parcel is there, in the order found: the
/// makespan is the one that `simulate` finds for these lanes.
pub(super) fn dispatch(
    instance: &Instance,
    priorities: &Priorities,
    cutoff: f64,
    order: &mut Order,
) -> Option<f64> {
    order.reset(instance);
    let mut left = instance.actions();
    let mut makespan = 0.0f64;
    while left > 0 {
        let (device, now) = earliest(&order.lane_states)?;
        match choose(instance, priorities, order, device, now) {
            Decision::Run { stage, work } => {
                let end = run(instance, order, device, stage, work);
                makespan = makespan.max(end);
                if end + order.lane_states[device].left >= cutoff {
                    return None;
                }
                left -= 1;
            }
            Decision::Wait(until) => order.lane_states[device].wakes = until,
        }
    }
    order.ends.clear();
    order.ends.extend(order.lane_states.iter().map(|lane| lane.free));
    Some(makespan)
}

enum Decision {
    Run {
        stage: usize,
        work: Work,
    },
    /// Until a parcel comes that is under way; infinitely long if none is.
    Wait(f64),
}

fn earliest(lanes: &[LaneState]) -> Option<(usize, f64)> {
    let mut found = (0, f64::INFINITY);
    for (device, lane) in lanes.iter().enumerate() {
        if lane.wakes < found.1 {
            found = (device, lane.wakes);
        }
    }
    found.1.is_finite().then_some(found)
}

/// What a device could do next.
#[derive(Clone, Copy)]
struct NextAction {
    key: f64,
    stage: usize,
    work: Work,
    ready: f64,
}

fn choose(
    instance: &Instance,
    priorities: &Priorities,
    order: &Order,
    device: usize,
    now: f64,
) -> Decision {
    let none =
        NextAction { key: f64::INFINITY, stage: usize::MAX, work: Work::F, ready: f64::INFINITY };
    let (mut best, mut coming) = (none, none);
    let mut weight = none;
    // The smallest key of what waits for memory: W frees it.
    let mut blocked = f64::INFINITY;
    let state = &instance.devices[device];
    let stash = order.lane_states[device].stash;
    let m = instance.microbatches;
    for &s in &state.chunks {
        let PerWork([f, b, w]) = order.progress[s];
        let key =
            |work: Work, k: u32| f64::from(k) * priorities.cycle + priorities.offsets[s][work];
        let mut consider = |work: Work, k: u32, ready: f64, fits: bool| {
            let action = NextAction { key: key(work, k), stage: s, work, ready };
            if !fits {
                blocked = if ready <= now { blocked.min(action.key) } else { blocked };
            } else if ready <= now {
                best = if action.key < best.key { action } else { best };
            } else if ready < coming.ready {
                coming = action;
            }
        };
        if b < f {
            let ready = order.backward_arrivals[s * m + b as usize];
            if ready < f64::INFINITY {
                consider(Work::B, b, ready, b_fits(instance, state, s, stash, &order.progress));
            }
        }
        if (f as usize) < m && f - b < priorities.ahead[s] {
            let ready = order.forward_arrivals[s * m + f as usize];
            if ready < f64::INFINITY {
                consider(Work::F, f, ready, f_fits(instance, state, s, stash, &order.progress));
            }
        }
        if w < b && key(Work::W, w) < weight.key {
            weight = NextAction { key: key(Work::W, w), stage: s, work: Work::W, ready: now };
        }
    }
    if weight.stage != usize::MAX && weight.key.min(blocked) < best.key {
        best = NextAction { key: weight.key.min(blocked), ..weight };
    }
    if best.stage == usize::MAX {
        return Decision::Wait(coming.ready);
    }
    let otherwise = priorities.wait_fraction * instance.stages[best.stage].time[best.work];
    if coming.key < best.key && coming.ready < now + otherwise {
        return Decision::Wait(coming.ready);
    }
    Decision::Run { stage: best.stage, work: best.work }
}

/// Runs the next action of a kind; returns its end.
fn run(instance: &Instance, order: &mut Order, device: usize, s: usize, work: Work) -> f64 {
    let stage = &instance.stages[s];
    let m = instance.microbatches;
    let lane = &mut order.lane_states[device];
    let count = &mut order.progress[s][work];
    let k = *count;
    *count += 1;
    let arrival = match work {
        Work::F => order.forward_arrivals[s * m + k as usize],
        Work::B => order.backward_arrivals[s * m + k as usize],
        Work::W => 0.0,
    };
    let end = lane.free.max(arrival) + stage.time[work];
    order.lanes[device].push(Action::new(StageId(s as u32), work, MicrobatchId(k)));
    lane.free = end;
    lane.wakes = end;
    lane.left -= stage.time[work];
    lane.stash = match work {
        Work::F => lane.stash.saturating_add(stage.after_f),
        Work::B => {
            let kept = lane.stash.saturating_add(stage.bytes.backward_for_w);
            kept.saturating_sub(stage.bytes.forward_for_b)
        }
        Work::W => lane.stash.saturating_sub(stage.after_b),
    };
    let index = |stage: usize| stage * m + k as usize;
    let (arrivals, to, at) = match work {
        Work::F if s + 1 == instance.stages.len() => (&mut order.backward_arrivals, s, end),
        Work::F => (&mut order.forward_arrivals, s + 1, end + stage.transfer_up),
        Work::B if s > 0 => (&mut order.backward_arrivals, s - 1, end + stage.transfer_down),
        Work::B | Work::W => return end,
    };
    arrivals[index(to)] = at;
    let receiver = &mut order.lane_states[instance.stages[to].device];
    receiver.wakes = receiver.wakes.min(receiver.free.max(at));
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchInput;
    use crate::{
        Costs, DeviceId, Placement, Plan, StageBytes, StageCost, TransferCost, Transfers, check,
        simulate,
    };
    use proptest::array::{uniform3, uniform7};
    use proptest::prelude::*;

    fn any_stage() -> impl Strategy<Value = StageCost> {
        (uniform3(0u32..9), uniform7(0u64..40)).prop_map(|(times, bytes)| {
            let bytes = StageBytes {
                fixed: bytes[0],
                forward_for_b: bytes[1],
                forward_for_w: bytes[2],
                backward_for_w: bytes[3],
                working: PerWork([bytes[4], bytes[5], bytes[6]]),
            };
            StageCost { time: PerWork(times.map(f64::from)), bytes }
        })
    }

    prop_compose! {
        fn any_priorities()(
            cycle in 0.0..30.0,
            offsets in prop::collection::vec(uniform3(-200.0..200.0), 8),
            ahead in prop::collection::vec(1u32..6, 8),
            wait_fraction in 0.0..1.0,
        ) -> Priorities {
            let offsets = offsets.into_iter().map(PerWork).collect();
            Priorities { cycle, offsets, ahead, wait_fraction }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        #[test]
        fn any_priorities_give_a_legal_plan_that_fits_and_takes_as_long_as_simulated(
            placement in prop::sample::select(vec![
                vec![0], vec![0, 1, 2], vec![2, 0, 1, 2, 0, 1], vec![1, 0, 0, 1],
                vec![0, 1, 0, 1, 0, 1], vec![0, 1, 2, 2, 1, 0],
            ]),
            microbatches in 1u32..9,
            stages in prop::collection::vec(any_stage(), 6),
            transfers in prop::collection::vec(0u32..3, 9),
            priorities in any_priorities(),
            spare in uniform3(0u64..200),
        ) {
            let n = placement.len();
            let placement = Placement { stages: placement.into_iter().map(DeviceId).collect() };
            let costs = Costs {
                stages: stages[..n].to_vec(),
                transfers: Transfers::from_fn(3, |from, to| {
                    TransferCost::of_any_size(f64::from(transfers[3 * from.index() + to.index()]))
                }),
                ..Costs::unit(n)
            };
            let mut input = SearchInput {
                blocks: Vec::new(), crossings: Vec::new(), marks: Vec::new(), microbatches,
                memory_limits: Vec::new(), transfers: Transfers::default(),
            };
            let unlimited = Instance::new(&input, &placement, &costs, &[0; 3]);
            // Memory for one microbatch, and some to spare.
            input.memory_limits = unlimited
                .devices
                .iter()
                .zip(spare)
                .map(|(device, spare)| {
                    let fixed = device.chunks.iter().map(|s| costs.stages[*s].bytes.fixed);
                    fixed.sum::<u64>() + device.stash + device.headroom + spare
                })
                .collect();
            let instance = Instance::new(&input, &placement, &costs, &[0; 3]);
            let mut order = Order::default();
            let makespan = dispatch(&instance, &priorities, f64::INFINITY, &mut order);
            prop_assert!(makespan.is_some(), "locked in at {} actions", order.dispatched());
            let lanes = order.lanes().to_vec();
            let plan = Plan { schedule: "test".into(), microbatches, placement, lanes };
            let simulation = simulate(&check(plan).unwrap(), &costs).unwrap();
            // Times are whole numbers, so sums are exact.
            prop_assert_eq!(makespan.unwrap(), simulation.bubble.makespan);
            for (memory, limit) in simulation.memory.iter().zip(&input.memory_limits) {
                prop_assert!(memory.peak_bytes() <= *limit);
            }
            let cutoff = makespan.unwrap();
            prop_assert!(dispatch(&instance, &priorities, cutoff, &mut order).is_none());
        }
    }
}
