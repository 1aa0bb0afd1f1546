//! How fast an assignment can be at best, quickly, so that thousands can be compared.

use super::SearchInput;
use crate::action::DeviceId;
use crate::work::{PerWork, Work};

/// The sums that the bound of an assignment is made of.
pub(super) struct Estimator<'a> {
    pub input: &'a SearchInput,
    /// Where a stage may begin or end, ascending from 0 to the number of blocks.
    pub ends: Vec<usize>,
    /// Of blocks 0 to `ends[i]` on device d, at `d * ends.len() + i`.
    sums: Vec<Sums>,
}

/// What blocks come to together.
#[derive(Clone, Copy, Default)]
struct Sums {
    time: PerWork<f64>,
    /// Fixed bytes.
    fixed: f64,
    /// Bytes of a microbatch between F and B.
    stash: f64,
}

/// An assignment as indices.
#[derive(Clone, PartialEq)]
pub(super) struct Encoding {
    /// The device of every stage.
    pub devices: Vec<usize>,
    /// Stage s is from `cuts[s]` to `cuts[s + 1]`, positions in [`Estimator::ends`].
    pub cuts: Vec<usize>,
}

/// What an assignment asks of one device.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    /// Whether the device holds one of the stages seen so far.
    seen: bool,
    /// Time from the step's start to F of the device's lowest stage, and from B of that stage to
    /// the step's end.
    head: f64,
    tail: f64,
    /// Time from the start of the first B of the device's highest stage to the step's end.
    return_path: f64,
    /// Times of a microbatch.
    time: PerWork<f64>,
    fixed: f64,
    /// Bytes of a microbatch.
    stash: f64,
    /// Bytes of a microbatch times the time that it is on its way before F and after B.
    elsewhere: f64,
}

impl<'a> Estimator<'a> {
    pub fn new(input: &'a SearchInput) -> Self {
        let blocks = input.blocks[0].len();
        let allowed = |k: &usize| input.marks.is_empty() || input.marks.contains(k);
        let ends: Vec<usize> =
            [0].into_iter().chain((1..blocks).filter(allowed)).chain([blocks]).collect();
        let mut sums = Vec::new();
        for row in &input.blocks {
            let mut sum = Sums::default();
            sums.push(sum);
            for pair in ends.windows(2) {
                for block in &row[pair[0]..pair[1]] {
                    let stash = [block.bytes.forward_for_b, block.bytes.forward_for_w];
                    sum.time = add(sum.time, block.time);
                    sum.fixed += block.bytes.fixed as f64;
                    sum.stash += stash.map(|bytes| bytes as f64).iter().sum::<f64>();
                }
                sums.push(sum);
            }
        }
        Self { input, ends, sums }
    }

    /// Whether there are enough blocks, or enough marks, for so many stages.
    pub fn can_fill(&self, stages: usize) -> bool {
        stages < self.ends.len()
    }

    /// Time of a microbatch if `device` held all blocks.
    pub fn whole(&self, device: usize) -> f64 {
        self.sums[(device + 1) * self.ends.len() - 1].time.total()
    }

    /// The largest bound of any device on the makespan, and a little of all devices' bounds, so
    /// that assignments with the same worst device compare.
    ///
    /// A device is bound by its work, as `simulate/lower_bound.rs` says, and by its memory: a
    /// microbatch occupies its stash for as long at least as a lone one is on its way from F to the
    /// end of B. All m need their bytes for that time, and no more than the device has are occupied
    /// at once.
    pub fn bound(&self, encoding: &Encoding, loads: &mut Vec<Load>) -> f64 {
        let m = f64::from(self.input.microbatches);
        let path = self.weigh(encoding, loads);
        let (mut most, mut squares) = (0.0f64, 0.0);
        for (d, load) in loads.iter().enumerate() {
            let PerWork([f, b, w]) = load.time;
            let b_starts = (load.head + m * f).max(path - load.return_path);
            let work = b_starts + m * b + (m * w).max(load.tail);
            let memory = self.input.memory_limits.get(d).map_or(0.0, |limit| {
                let capacity = *limit as f64 - load.fixed;
                if capacity >= load.stash && capacity > 0.0 {
                    m * (path * load.stash - load.elsewhere) / capacity
                } else {
                    DOES_NOT_FIT * (1.0 + load.stash - capacity)
                }
            });
            let bound = work.max(memory);
            most = most.max(bound);
            squares += bound * bound;
        }
        most + OTHERS * (squares / loads.len() as f64).sqrt()
    }

    /// Fills in what every device is asked; returns how long a lone microbatch takes, with W of the
    /// first stage.
    fn weigh(&self, encoding: &Encoding, loads: &mut Vec<Load>) -> f64 {
        loads.clear();
        loads.resize(self.input.blocks.len(), Load::default());
        let (mut head, mut tail) = (0.0, 0.0);
        for (s, (&device, cut)) in encoding.devices.iter().zip(encoding.cuts.windows(2)).enumerate()
        {
            let row = device * self.ends.len();
            let (from, to) = (&self.sums[row + cut[0]], &self.sums[row + cut[1]]);
            let time = PerWork::from_fn(|work| to.time[work] - from.time[work]);
            let stash = to.stash - from.stash;
            if s == 0 {
                tail = time[Work::W];
            } else if device != encoding.devices[s - 1] {
                let crossing = &self.input.crossings[self.ends[cut[0]] - 1];
                let [below, here] = [encoding.devices[s - 1], device].map(|d| DeviceId(d as u32));
                let transfers = &self.input.transfers;
                head += transfers.time(below, here, crossing.activation_bytes);
                tail += transfers.time(here, below, crossing.gradient_bytes);
            }
            let load = &mut loads[device];
            if !load.seen {
                (load.seen, load.head, load.tail) = (true, head, tail);
            }
            load.return_path = time[Work::B] + tail;
            load.time = add(load.time, time);
            load.fixed += to.fixed - from.fixed;
            load.stash += stash;
            load.elsewhere += stash * (head + tail);
            head += time[Work::F];
            tail += time[Work::B];
        }
        head + tail
    }
}

fn add(one: PerWork<f64>, other: PerWork<f64>) -> PerWork<f64> {
    PerWork::from_fn(|work| one[work] + other[work])
}

/// How much the mean of all devices' bounds counts.
pub(super) const OTHERS: f64 = 0.05;

/// Beyond every time, so that less excess is better. Times are in any unit; a search never depends
/// on a bound alone.
const DOES_NOT_FIT: f64 = 1e18;
