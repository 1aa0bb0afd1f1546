//! Where the blocks go: device orders and cuts, by a bound on the makespan that is quick to compute.

use std::ops::Range;

use super::SearchInput;
use crate::error::Result;
use crate::plan::action::DeviceId;
use crate::plan::place::{BlockCost, PlaceOptions, place};
use crate::plan::placement::Placement;

/// A placement, and the blocks of each of its stages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub placement: Placement,
    pub cuts: Vec<Range<usize>>,
}

/// The sums that the bound of a layout is made of.
pub(super) struct Estimator<'a> {
    input: &'a SearchInput,
    /// Where a stage may begin or end, ascending from 0 to the number of blocks.
    ends: Vec<usize>,
    /// Of blocks 0 to `ends[i]` on a device: times of F, B, W.
    times: Vec<Vec<[f64; 3]>>,
    /// The same for bytes: fixed, and of a microbatch between F and B.
    bytes: Vec<Vec<[f64; 2]>>,
}

/// A layout as indices: `cuts[s]..cuts[s + 1]` of [`Estimator::ends`] are the blocks of stage s.
#[derive(Clone, PartialEq)]
struct Draft {
    devices: Vec<usize>,
    cuts: Vec<usize>,
}

impl<'a> Estimator<'a> {
    pub fn new(input: &'a SearchInput) -> Self {
        let blocks = input.blocks[0].len();
        let mut ends = vec![0];
        ends.extend((1..blocks).filter(|k| input.marks.is_empty() || input.marks.contains(k)));
        ends.push(blocks);
        let mut times = Vec::new();
        let mut bytes = Vec::new();
        for row in &input.blocks {
            let (mut time, mut byte) = (vec![[0.0; 3]], vec![[0.0; 2]]);
            for pair in ends.windows(2) {
                let (mut t, mut b) = (time[time.len() - 1], byte[byte.len() - 1]);
                for block in &row[pair[0]..pair[1]] {
                    t[0] += block.forward;
                    t[1] += block.backward_input;
                    t[2] += block.backward_weight;
                    b[0] += block.bytes.fixed as f64;
                    b[1] += block.bytes.forward_for_b as f64 + block.bytes.forward_for_w as f64;
                }
                time.push(t);
                byte.push(b);
            }
            times.push(time);
            bytes.push(byte);
        }
        Self { input, ends, times, bytes }
    }

    /// Whether there are enough blocks, or enough marks, for so many stages.
    pub fn can_fill(&self, stages: usize) -> bool {
        stages < self.ends.len()
    }

    /// The cut of [`place`] for the devices' mean speeds, and the best that is found from there.
    pub fn cuts_of(&self, placement: &Placement) -> Result<[Layout; 2]> {
        let placed = self.placed(placement)?;
        let mut found = placed.clone();
        self.improve_cuts(&mut found, usize::MAX);
        Ok([self.layout(&placed), self.layout(&found)])
    }

    /// Layouts of a pattern, `pattern[s]` being the place in line of stage s's device, for several
    /// orders of the devices.
    pub fn orders_of(&self, pattern: &[usize]) -> Result<Vec<Layout>> {
        let devices = self.input.blocks.len();
        let mut by_speed: Vec<usize> = (0..devices).collect();
        let total = |d: usize| self.times[d][self.ends.len() - 1].iter().sum::<f64>();
        by_speed.sort_by(|a, b| total(*a).total_cmp(&total(*b)));
        let given: Vec<usize> = (0..devices).collect();
        let reversed: Vec<usize> = by_speed.iter().rev().copied().collect();
        let mut found: Vec<(f64, Layout)> = Vec::new();
        for mut order in [given, by_speed, reversed] {
            let draft = self.improve_order(pattern, &mut order)?;
            let layout = self.layout(&draft);
            if !found.iter().any(|(_, other)| *other == layout) {
                found.push((self.bound(&draft), layout));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(found.into_iter().map(|(_, layout)| layout).collect())
    }

    fn improve_order(&self, pattern: &[usize], order: &mut [usize]) -> Result<Draft> {
        let devices = |order: &[usize]| pattern.iter().map(|at| order[*at]).collect::<Vec<_>>();
        let placement =
            Placement { stages: devices(order).iter().map(|d| DeviceId(*d as u32)).collect() };
        let mut best = self.placed(&placement)?;
        let mut least = self.improve_cuts(&mut best, usize::MAX);
        loop {
            let before = least;
            for i in 0..order.len() {
                for j in i + 1..order.len() {
                    if self.input.blocks[order[i]] == self.input.blocks[order[j]] {
                        continue;
                    }
                    order.swap(i, j);
                    let mut draft = Draft { devices: devices(order), cuts: best.cuts.clone() };
                    let bound = self.improve_cuts(&mut draft, 2);
                    if bound < least {
                        (least, best) = (bound, draft);
                    } else {
                        order.swap(i, j);
                    }
                }
            }
            if least >= before * (1.0 - 1e-3) {
                return Ok(best);
            }
        }
    }

    fn placed(&self, placement: &Placement) -> Result<Draft> {
        let blocks: Vec<BlockCost> = self.input.blocks[0]
            .iter()
            .map(|block| BlockCost {
                forward: block.forward,
                backward_input: block.backward_input,
                backward_weight: block.backward_weight,
                bytes: block.bytes.fixed,
            })
            .collect();
        let crossing: Vec<u64> = self
            .input
            .crossings
            .iter()
            .map(|crossing| crossing.activation_bytes.saturating_add(crossing.gradient_bytes))
            .collect();
        let total = |d: usize| self.times[d][self.ends.len() - 1].iter().sum::<f64>();
        let speed = |d: &DeviceId| {
            let (own, first) = (total(d.index()), total(0));
            if own > 0.0 && first > 0.0 { first / own } else { 1.0 }
        };
        let speeds: Vec<f64> = placement.stages.iter().map(speed).collect();
        let options = PlaceOptions { marks: self.input.marks.clone(), memory_limits: vec![] };
        let cut = place(&blocks, &crossing, &speeds, &options)?;
        let end = |part: &Range<usize>| self.ends.binary_search(&part.end).expect("a legal cut");
        Ok(Draft {
            devices: placement.stages.iter().map(|d| d.index()).collect(),
            cuts: [0].into_iter().chain(cut.stages.iter().map(end)).collect(),
        })
    }

    fn layout(&self, draft: &Draft) -> Layout {
        Layout {
            placement: Placement {
                stages: draft.devices.iter().map(|d| DeviceId(*d as u32)).collect(),
            },
            cuts: draft
                .cuts
                .windows(2)
                .map(|ends| self.ends[ends[0]]..self.ends[ends[1]])
                .collect(),
        }
    }

    /// Shifts runs of cuts by one while that lowers the bound; returns it.
    fn improve_cuts(&self, draft: &mut Draft, rounds: usize) -> f64 {
        let mut least = self.bound(draft);
        let stages = draft.devices.len();
        for _ in 0..rounds {
            let before = least;
            for length in 1..=LONGEST_RUN.min(stages - 1) {
                for first in 1..=stages - length {
                    for up in [true, false] {
                        let run = first..first + length;
                        if !shift(&mut draft.cuts, run.clone(), up) {
                            continue;
                        }
                        let bound = self.bound(draft);
                        if bound < least {
                            least = bound;
                        } else {
                            shift(&mut draft.cuts, run, !up);
                        }
                    }
                }
            }
            if least >= before {
                break;
            }
        }
        least
    }

    /// What the makespan cannot be much below: see `simulate/lower_bound.rs` for the bound by each
    /// device's work.
    ///
    /// A microbatch occupies its stash at least for as long as a lone one is on its way from F to
    /// the end of B. All m need their place for that time, and there is so much only: that is the
    /// bound by memory. Some of the other devices' bounds makes cuts comparable whose worst device
    /// is the same.
    fn bound(&self, draft: &Draft) -> f64 {
        let m = f64::from(self.input.microbatches);
        let stages = draft.devices.len();
        let time = |s: usize| {
            let times = &self.times[draft.devices[s]];
            let (from, to) = (times[draft.cuts[s]], times[draft.cuts[s + 1]]);
            [to[0] - from[0], to[1] - from[1], to[2] - from[2]]
        };
        // From s - 1 to s and back.
        let transfer = |s: usize| {
            let crosses = s > 0 && draft.devices[s] != draft.devices[s - 1];
            if crosses { self.input.crossings[self.ends[draft.cuts[s]] - 1].transfer } else { 0.0 }
        };
        let mut path = 0.0;
        for s in 0..stages {
            let [f, b, _] = time(s);
            path += f + b + 2.0 * transfer(s);
        }
        let mut devices = vec![Load::default(); self.input.blocks.len()];
        let (mut head, mut tail) = (0.0, 0.0);
        for s in 0..stages {
            let [f, b, w] = time(s);
            if s == 0 {
                tail = w;
                path += w;
            } else {
                head += transfer(s);
                tail += transfer(s);
            }
            let device = &mut devices[draft.devices[s]];
            if !device.seen {
                *device = Load { seen: true, head, tail, ..Load::default() };
            }
            device.f_and_b += f + b;
            device.w += w;
            let bytes = &self.bytes[draft.devices[s]];
            let (from, to) = (bytes[draft.cuts[s]], bytes[draft.cuts[s + 1]]);
            device.fixed += to[0] - from[0];
            device.occupied += (to[1] - from[1]) * (path - head - tail);
            head += f;
            tail += b;
        }
        let (mut most, mut squares) = (0.0f64, 0.0);
        for (d, load) in devices.iter().enumerate() {
            let work = load.head + m * load.f_and_b + (m * load.w).max(load.tail);
            let memory = self.input.memory_limits.get(d).map_or(0.0, |limit| {
                let room = *limit as f64 - load.fixed;
                if room > 0.0 { m * load.occupied / room } else { 1e9 * (1.0 - room) }
            });
            let bound = work.max(memory);
            most = most.max(bound);
            squares += bound * bound;
        }
        most + OTHERS * (squares / devices.len() as f64).sqrt()
    }
}

const LONGEST_RUN: usize = 4;
const OTHERS: f64 = 0.05;

#[derive(Clone, Copy, Default)]
struct Load {
    seen: bool,
    /// Of the device's lowest stage.
    head: f64,
    tail: f64,
    f_and_b: f64,
    w: f64,
    fixed: f64,
    /// Bytes times time of one microbatch.
    occupied: f64,
}

/// Moves a run of cuts by one; whether every stage keeps a block.
fn shift(cuts: &mut [usize], run: Range<usize>, up: bool) -> bool {
    let (last, before) = (run.end - 1, run.start - 1);
    if up {
        if cuts[last] + 1 >= cuts[last + 1] {
            return false;
        }
        cuts[run].iter_mut().for_each(|cut| *cut += 1);
    } else {
        if cuts[before] + 1 >= cuts[run.start] {
            return false;
        }
        cuts[run].iter_mut().for_each(|cut| *cut -= 1);
    }
    true
}
