//! What an order that is begun takes at least.

use crate::search::instance::{Instance, InstanceStage};
use crate::work::{PerWork, Work};

/// Bounds on the way to the end, with what they need.
pub(super) struct Remaining<'a> {
    instance: &'a Instance,
    /// From the end of F, and of B, of every stage to the end of the step; of W it is nothing.
    tails: Vec<PerWork<f64>>,
    /// How many microbatches of every stage may be between the start of F and the end of W.
    most: Vec<usize>,
    /// When F, B and W of microbatch k of stage s end at the earliest, at `s * m + k`.
    ends: Vec<PerWork<f64>>,
    /// Of one device: when an action starts at the earliest, its time, and its tail if it is no W.
    jobs: Vec<(f64, f64, Option<f64>)>,
}

impl<'a> Remaining<'a> {
    pub fn new(instance: &'a Instance) -> Self {
        let stages = &instance.stages;
        let mut tails = vec![PerWork([0.0, stages[0].time[Work::W], 0.0]); stages.len()];
        for s in 1..stages.len() {
            let below = stages[s].transfer_down + stages[s - 1].time[Work::B];
            let below = below + tails[s - 1][Work::B];
            tails[s][Work::B] = below.max(stages[s].time[Work::W]);
        }
        for s in (0..stages.len()).rev() {
            tails[s][Work::F] = match stages.get(s + 1) {
                Some(above) => stages[s].transfer_up + above.time[Work::F] + tails[s + 1][Work::F],
                None => stages[s].time[Work::B] + tails[s][Work::B],
            };
        }
        let most = |stage: &InstanceStage| {
            let capacity = instance.devices[stage.device].capacity;
            let held = stage.after_f.min(stage.after_b);
            capacity.checked_div(held).map_or(usize::MAX, |most| most.max(1) as usize)
        };
        Self {
            instance,
            tails,
            most: stages.iter().map(most).collect(),
            ends: vec![PerWork::default(); stages.len() * instance.microbatches],
            jobs: Vec::new(),
        }
    }

    /// No end of an order that has `done` these, and whose devices are free and whose parcels
    /// arrive at `times`, is before this.
    ///
    /// 1. Every action waits for what it needs: its device, its parcel, the microbatch before on
    ///    its stage, and memory, which the W of an earlier microbatch frees.
    /// 2. A device does what can start at some time or later only then, one action after the other;
    ///    and after its last B comes what that waits for.
    pub fn bound(&mut self, done: &[PerWork<u8>], times: &[f64]) -> f64 {
        self.weigh(done, times);
        let m = self.instance.microbatches;
        let mut most = 0.0f64;
        for (d, device) in self.instance.devices.iter().enumerate() {
            most = most.max(times[d]);
            self.jobs.clear();
            for &s in &device.chunks {
                for work in Work::ALL {
                    let time = self.instance.stages[s].time[work];
                    let tail = (work != Work::W).then_some(self.tails[s][work]);
                    let ends = &self.ends[s * m..(s + 1) * m];
                    for end in &ends[usize::from(done[s][work])..] {
                        self.jobs.push((end[work] - time, time, tail));
                        most = most.max(end[work] + tail.unwrap_or(0.0));
                    }
                }
            }
            self.jobs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            let (mut all, mut early, mut least_tail) = (0.0, 0.0, f64::INFINITY);
            for &(start, time, tail) in &self.jobs {
                all += time;
                if let Some(tail) = tail {
                    early += time;
                    least_tail = f64::min(least_tail, tail);
                    most = most.max(start + early + least_tail);
                }
                most = most.max(start + all);
            }
        }
        most
    }

    /// When every action that is left ends at the earliest.
    fn weigh(&mut self, done: &[PerWork<u8>], times: &[f64]) {
        let instance = self.instance;
        let (m, n) = (instance.microbatches, instance.stages.len());
        for k in 0..m {
            for s in 0..n {
                let stage = &instance.stages[s];
                if usize::from(done[s][Work::F]) > k {
                    self.ends[s * m + k][Work::F] = f64::NEG_INFINITY;
                    continue;
                }
                let known = times[super::arrival(instance, s, Work::F, k)];
                let arrived = if known.is_finite() {
                    known
                } else {
                    self.ends[(s - 1) * m + k][Work::F] + instance.stages[s - 1].transfer_up
                };
                let mut start = arrived.max(times[stage.device]);
                if k > 0 {
                    start = start.max(self.ends[s * m + k - 1][Work::F]);
                }
                if k >= self.most[s] {
                    start = start.max(self.ends[s * m + k - self.most[s]][Work::W]);
                }
                self.ends[s * m + k][Work::F] = start + stage.time[Work::F];
            }
            for s in (0..n).rev() {
                let stage = &instance.stages[s];
                let mut end = f64::NEG_INFINITY;
                if usize::from(done[s][Work::B]) <= k {
                    let known = times[super::arrival(instance, s, Work::B, k)];
                    let arrived = if known.is_finite() {
                        known
                    } else if s + 1 == n {
                        self.ends[s * m + k][Work::F]
                    } else {
                        self.ends[(s + 1) * m + k][Work::B] + instance.stages[s + 1].transfer_down
                    };
                    let mut start = arrived.max(times[stage.device]);
                    start = start.max(self.ends[s * m + k][Work::F]);
                    if k > 0 {
                        start = start.max(self.ends[s * m + k - 1][Work::B]);
                    }
                    end = start + stage.time[Work::B];
                }
                self.ends[s * m + k][Work::B] = end;
                let mut finished = f64::NEG_INFINITY;
                if usize::from(done[s][Work::W]) <= k {
                    finished = end.max(times[stage.device]);
                    if k > 0 {
                        finished = finished.max(self.ends[s * m + k - 1][Work::W]);
                    }
                    finished += stage.time[Work::W];
                }
                self.ends[s * m + k][Work::W] = finished;
            }
        }
    }
}
