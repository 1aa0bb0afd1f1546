//! Where the blocks go: device orders and cuts, by a bound on the makespan that is quick to compute.

use std::ops::Range;

use super::SearchInput;
use super::improve::Budget;
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
    /// Of blocks 0 to `ends[i]` on device d, at `d * ends.len() + i`.
    sums: Vec<Sums>,
}

/// Times of F, B and W, fixed bytes, and bytes of a microbatch between F and B.
type Sums = [f64; 5];

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
        let mut sums = Vec::new();
        for row in &input.blocks {
            let mut sum = Sums::default();
            sums.push(sum);
            for pair in ends.windows(2) {
                for block in &row[pair[0]..pair[1]] {
                    let stash = [block.bytes.forward_for_b, block.bytes.forward_for_w];
                    sum[0] += block.forward;
                    sum[1] += block.backward_input;
                    sum[2] += block.backward_weight;
                    sum[3] += block.bytes.fixed as f64;
                    sum[4] += stash.map(|bytes| bytes as f64).iter().sum::<f64>();
                }
                sums.push(sum);
            }
        }
        Self { input, ends, sums }
    }

    /// Time of a microbatch if `device` held all blocks.
    fn whole(&self, device: usize) -> f64 {
        let [f, b, w, ..] = self.sums[(device + 1) * self.ends.len() - 1];
        f + b + w
    }

    /// Whether there are enough blocks, or enough marks, for so many stages.
    pub fn can_fill(&self, stages: usize) -> bool {
        stages < self.ends.len()
    }

    /// The cut of [`place`] for the devices' mean speeds, and the best that is found from there.
    pub fn cuts_of(&self, placement: &Placement) -> Result<[Layout; 2]> {
        let placed = self.placed(placement)?;
        let mut found = placed.clone();
        self.improve_cuts(&mut found, usize::MAX, LONGEST_RUN, &mut Vec::new());
        Ok([self.layout(&placed), self.layout(&found)])
    }

    /// Layouts of a pattern, `pattern[s]` being the place in line of stage s's device, for several
    /// orders of the devices.
    pub fn orders_of(&self, pattern: &[usize], budget: &mut Budget) -> Result<Vec<Layout>> {
        let devices = self.input.blocks.len();
        let mut by_speed: Vec<usize> = (0..devices).collect();
        by_speed.sort_by(|a, b| self.whole(*a).total_cmp(&self.whole(*b)));
        let given: Vec<usize> = (0..devices).collect();
        let reversed: Vec<usize> = by_speed.iter().rev().copied().collect();
        let mut found: Vec<(f64, Layout)> = Vec::new();
        for (left, mut order) in [3, 2, 1].into_iter().zip([given, by_speed, reversed]) {
            let mut share = budget.take(left);
            let draft = self.improve_order(pattern, &mut order, &mut share)?;
            budget.0 += share.0;
            let layout = self.layout(&draft);
            if !found.iter().any(|(_, other)| *other == layout) {
                found.push((self.bound(&draft, &mut Vec::new()), layout));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(found.into_iter().map(|(_, layout)| layout).collect())
    }

    /// Layouts that differ from `layout` by a shifted cut or by two devices that have changed places;
    /// the most promising ones first.
    pub fn neighbours(&self, layout: &Layout) -> Vec<Layout> {
        let draft = self.draft(layout);
        let stages = draft.devices.len();
        let mut drafts = Vec::new();
        for length in 1..=2.min(stages - 1) {
            for first in 1..=stages - length {
                for up in [true, false] {
                    let mut shifted = draft.clone();
                    if shift(&mut shifted.cuts, first..first + length, up) {
                        drafts.push(shifted);
                    }
                }
            }
        }
        for one in 0..self.input.blocks.len() {
            for other in one + 1..self.input.blocks.len() {
                if self.input.blocks[one] != self.input.blocks[other] {
                    drafts.push(swapped(&draft, one, other));
                }
            }
        }
        let mut loads = Vec::new();
        let mut found: Vec<(f64, Draft)> =
            drafts.into_iter().map(|draft| (self.bound(&draft, &mut loads), draft)).collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.iter().map(|(_, draft)| self.layout(draft)).collect()
    }

    fn draft(&self, layout: &Layout) -> Draft {
        let end = |part: &Range<usize>| self.ends.binary_search(&part.end).expect("a legal cut");
        Draft {
            devices: layout.placement.stages.iter().map(|d| d.index()).collect(),
            cuts: [0].into_iter().chain(layout.cuts.iter().map(end)).collect(),
        }
    }

    fn improve_order(&self, pattern: &[usize], order: &mut [usize], budget: &mut Budget) -> Result<Draft> {
        let devices = |order: &[usize]| pattern.iter().map(|at| order[*at]).collect::<Vec<_>>();
        let placement =
            Placement { stages: devices(order).iter().map(|d| DeviceId(*d as u32)).collect() };
        let mut best = self.placed(&placement)?;
        let mut loads = Vec::new();
        let mut least = self.improve_cuts(&mut best, usize::MAX, LONGEST_RUN, &mut loads);
        loop {
            let before = least;
            for i in 0..order.len() {
                for j in i + 1..order.len() {
                    if self.input.blocks[order[i]] == self.input.blocks[order[j]] {
                        continue;
                    }
                    if budget.0 == 0 {
                        break;
                    }
                    let mut draft = swapped(&best, order[i], order[j]);
                    let bounds = 1 + 4 * pattern.len();
                    budget.spend(bounds * pattern.len() / STAGES_PER_ACTION);
                    let bound = self.improve_cuts(&mut draft, 1, 2, &mut loads);
                    if bound < least {
                        (least, best) = (bound, draft);
                        order.swap(i, j);
                    }
                }
            }
            least = self.improve_cuts(&mut best, usize::MAX, LONGEST_RUN, &mut loads);
            if least >= before * (1.0 - 1e-3) || budget.0 == 0 {
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
        let speed = |d: &DeviceId| {
            let (own, first) = (self.whole(d.index()), self.whole(0));
            if own > 0.0 && first > 0.0 { first / own } else { 1.0 }
        };
        let speeds: Vec<f64> = placement.stages.iter().map(speed).collect();
        let options = PlaceOptions { marks: self.input.marks.clone(), memory_limits: vec![] };
        let cut = place(&blocks, &crossing, &speeds, &options)?;
        Ok(self.draft(&Layout { placement: placement.clone(), cuts: cut.stages }))
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
    fn improve_cuts(&self, draft: &mut Draft, rounds: usize, longest: usize, loads: &mut Vec<Load>) -> f64 {
        let mut least = self.bound(draft, loads);
        let stages = draft.devices.len();
        for _ in 0..rounds {
            let before = least;
            for length in 1..=longest.min(stages - 1) {
                for first in 1..=stages - length {
                    for up in [true, false] {
                        let run = first..first + length;
                        if !shift(&mut draft.cuts, run.clone(), up) {
                            continue;
                        }
                        let bound = self.bound(draft, loads);
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
    fn bound(&self, draft: &Draft, loads: &mut Vec<Load>) -> f64 {
        let m = f64::from(self.input.microbatches);
        loads.clear();
        loads.resize(self.input.blocks.len(), Load::default());
        let (mut head, mut tail) = (0.0, 0.0);
        for (s, (&device, cut)) in draft.devices.iter().zip(draft.cuts.windows(2)).enumerate() {
            let row = device * self.ends.len();
            let (from, to) = (&self.sums[row + cut[0]], &self.sums[row + cut[1]]);
            let [f, b, w, fixed, stash] = std::array::from_fn(|i| to[i] - from[i]);
            if s == 0 {
                tail = w;
            } else if device != draft.devices[s - 1] {
                let transfer = self.input.crossings[self.ends[cut[0]] - 1].transfer;
                head += transfer;
                tail += transfer;
            }
            let load = &mut loads[device];
            if load.f_and_b_and_w == 0.0 {
                (load.head, load.tail) = (head, tail);
            }
            load.w += w;
            load.f_and_b_and_w += f + b + w;
            load.fixed += fixed;
            load.stash += stash;
            load.elsewhere += stash * (head + tail);
            head += f;
            tail += b;
        }
        let path = head + tail;
        let (mut most, mut squares) = (0.0f64, 0.0);
        for (d, load) in loads.iter().enumerate() {
            let work = load.head + m * load.f_and_b_and_w + (load.tail - m * load.w).max(0.0);
            let memory = self.input.memory_limits.get(d).map_or(0.0, |limit| {
                let room = *limit as f64 - load.fixed;
                let occupied = path * load.stash - load.elsewhere;
                if room > 0.0 { m * occupied / room } else { 1e9 * (1.0 - room) }
            });
            let bound = work.max(memory);
            most = most.max(bound);
            squares += bound * bound;
        }
        most + OTHERS * (squares / loads.len() as f64).sqrt()
    }
}

const LONGEST_RUN: usize = 4;
/// How long a bound takes, per stage, compared with dispatching an action.
const STAGES_PER_ACTION: usize = 16;
const OTHERS: f64 = 0.05;

/// What a layout asks of one device.
#[derive(Clone, Copy, Default)]
struct Load {
    /// Of its lowest stage.
    head: f64,
    tail: f64,
    /// Of a microbatch.
    f_and_b_and_w: f64,
    w: f64,
    fixed: f64,
    stash: f64,
    /// Bytes of a microbatch times the time that it is on its way before F and after B.
    elsewhere: f64,
}

/// Two devices change places, and each takes as many blocks along as it has.
fn swapped(draft: &Draft, one: usize, other: usize) -> Draft {
    let devices: Vec<usize> = draft
        .devices
        .iter()
        .map(|&device| match device {
            device if device == one => other,
            device if device == other => one,
            device => device,
        })
        .collect();
    let sizes = |of: usize| {
        let held = draft.devices.iter().zip(draft.cuts.windows(2));
        held.filter(move |(device, _)| **device == of).map(|(_, cut)| cut[1] - cut[0])
    };
    let (mut of_one, mut of_other) = (sizes(one), sizes(other));
    let mut end = 0;
    let ends = devices.iter().zip(draft.cuts.windows(2)).map(|(&device, cut)| {
        let size = if device == one {
            of_one.next()
        } else if device == other {
            of_other.next()
        } else {
            None
        };
        end += size.unwrap_or(cut[1] - cut[0]);
        end
    });
    let cuts = [0].into_iter().chain(ends).collect();
    Draft { devices, cuts }
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
