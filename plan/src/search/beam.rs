//! Orders of actions, tried together: the best of all where they are few, else the best of a beam.
//!
//! Orders are built action by action, all of the same length at once. What is left to try of each
//! is bounded from below (`beam/remaining.rs`), and of two that have done the same, one that is
//! nowhere later replaces the other. A layer that is wider than the beam is cut to it; where none
//! was, no order is faster than the one that is found.

mod remaining;

use std::collections::HashMap;

use super::instance::Instance;
use crate::action::{Action, MicrobatchId, StageId};
use crate::work::{PerWork, Work};
use remaining::Remaining;

/// What comes of a beam.
pub(super) struct Outcome {
    /// The lanes of an order that is faster than the one to beat, and its makespan.
    pub faster: Option<(Vec<Vec<Action>>, f64)>,
    /// Whether nothing was cut: then no order is faster than that one, or, where there is none,
    /// than the one to beat.
    pub exact: bool,
    /// How many orders were looked at.
    pub nodes: usize,
}

/// Looks for an order that takes less than `to_beat`, with at most `width` of the same length kept.
pub(super) fn beam(instance: &Instance, to_beat: f64, width: usize) -> Outcome {
    let mut beam = Beam::new(instance, to_beat * (1.0 - ROUNDING));
    let mut layer = vec![Node::first(instance)];
    let (mut exact, mut nodes) = (true, 0);
    for _ in 0..instance.actions() {
        let mut next = Vec::new();
        let mut known: HashMap<Done, Vec<usize>> = HashMap::new();
        for (parent, node) in layer.iter().enumerate() {
            beam.expand(node, parent, &mut next, &mut known);
        }
        nodes += next.len();
        next.retain(|node| !node.is_replaced);
        if next.len() > width {
            exact = false;
            next.sort_by(|a, b| a.bound.total_cmp(&b.bound).then(a.total.total_cmp(&b.total)));
            next.truncate(width);
        }
        beam.steps.push(next.iter().map(|node| (node.parent, node.action)).collect());
        layer = next;
        if layer.is_empty() {
            return Outcome { faster: None, exact, nodes };
        }
    }
    let ends = layer.iter().map(|node| node.bound);
    let best = ends.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    let faster = best.map(|(at, makespan)| (beam.lanes(at), makespan));
    Outcome { faster, exact, nodes }
}

/// What no order takes less than.
pub(super) fn bound_of_all(instance: &Instance) -> f64 {
    let Node { done, times, .. } = Node::first(instance);
    Remaining::new(instance).bound(&done.0, &times)
}

/// How many F, B and W of every stage are done, and what its device must not do next.
type Done = (Vec<PerWork<u8>>, u64);

/// An order of some actions.
struct Node {
    done: Done,
    /// When every device is free; then when every parcel for F, and every one for B, has arrived:
    /// infinite if it is not under way yet, 0 if it is taken. At the place that [`arrival`] says.
    times: Vec<f64>,
    stash: Vec<u64>,
    /// No way to go on from here takes less.
    bound: f64,
    /// The sum of the times at which devices are free.
    total: f64,
    parent: usize,
    action: Action,
    is_replaced: bool,
}

impl Node {
    fn first(instance: &Instance) -> Self {
        let stages = instance.stages.len();
        let (p, m) = (instance.devices.len(), instance.microbatches);
        let mut times = vec![0.0; p];
        times.resize(p + 2 * stages * m, f64::INFINITY);
        times[p..p + m].fill(0.0);
        Self {
            done: (vec![PerWork::default(); stages], 0),
            times,
            stash: vec![0; p],
            bound: 0.0,
            total: 0.0,
            parent: 0,
            action: Action::new(StageId(0), Work::F, MicrobatchId(0)),
            is_replaced: false,
        }
    }
}

/// Where [`Node::times`] has the arrival of what F or B takes.
fn arrival(instance: &Instance, stage: usize, work: Work, k: usize) -> usize {
    let m = instance.microbatches;
    let of_b = if work == Work::B { instance.stages.len() * m } else { 0 };
    instance.devices.len() + of_b + stage * m + k
}

/// An action that could be next on its device.
#[derive(Clone, Copy)]
struct Next {
    stage: usize,
    work: Work,
    start: f64,
    end: f64,
}

struct Beam<'a> {
    instance: &'a Instance,
    remaining: Remaining<'a>,
    /// What takes as long or longer is not of interest.
    cutoff: f64,
    /// Of every layer's nodes, the parent in the layer before, and what it ran.
    steps: Vec<Vec<(usize, Action)>>,
    candidates: Vec<Next>,
}

impl<'a> Beam<'a> {
    fn new(instance: &'a Instance, cutoff: f64) -> Self {
        let (remaining, candidates) = (Remaining::new(instance), Vec::new());
        Self { instance, remaining, cutoff, steps: Vec::new(), candidates }
    }

    /// Adds what may come after `node`.
    ///
    /// Of all actions that could be next on their devices, let one end first. Where its device does
    /// nothing else that starts before that end, it may as well run it first (Giffler and Thompson
    /// 1960), unless it takes memory that something else on the device needs before: so that is
    /// tried too, by keeping it from running next.
    fn expand(
        &mut self,
        node: &Node,
        parent: usize,
        next: &mut Vec<Node>,
        known: &mut HashMap<Done, Vec<usize>>,
    ) {
        let mut kept = node.done.1;
        loop {
            self.collect(node, kept);
            let earliest = |a: &&Next, b: &&Next| a.end.total_cmp(&b.end);
            let Some(&first) = self.candidates.iter().min_by(earliest) else { return };
            let device = self.instance.stages[first.stage].device;
            for candidate in std::mem::take(&mut self.candidates) {
                let same = (candidate.stage, candidate.work) == (first.stage, first.work);
                let competes = same || candidate.start < first.end;
                if competes && self.instance.stages[candidate.stage].device == device {
                    self.run(node, parent, kept, candidate, next, known);
                }
            }
            if !self.takes_memory(first) {
                return;
            }
            kept |= bit(first.stage, first.work);
        }
    }

    /// Whether a limit of memory may be a reason to run something else before.
    fn takes_memory(&self, next: Next) -> bool {
        let stage = &self.instance.stages[next.stage];
        let device = &self.instance.devices[stage.device];
        let all = device.stash.saturating_mul(self.instance.microbatches as u64);
        let takes = match next.work {
            Work::F => stage.after_f > 0,
            Work::B => stage.after_b > stage.after_f,
            Work::W => false,
        };
        takes && device.capacity < all.saturating_add(device.headroom)
    }

    fn collect(&mut self, node: &Node, kept: u64) {
        self.candidates.clear();
        for (s, stage) in self.instance.stages.iter().enumerate() {
            let PerWork([f, b, w]) = node.done.0[s];
            let (free, stash) = (node.times[stage.device], node.stash[stage.device]);
            let capacity = self.instance.devices[stage.device].capacity;
            for (work, k) in [(Work::F, f), (Work::B, b), (Work::W, w)] {
                let after = match work {
                    Work::F => stash.saturating_add(stage.after_f),
                    Work::B => stash.saturating_add(stage.bytes.backward_for_w),
                    Work::W => stash,
                };
                let most = after.max(stash.saturating_add(stage.bytes.working[work]));
                let arrived = match work {
                    Work::W if w < b => free,
                    Work::B if b == f => f64::INFINITY,
                    Work::F | Work::B if usize::from(k) < self.instance.microbatches => {
                        node.times[arrival(self.instance, s, work, k.into())]
                    }
                    _ => f64::INFINITY,
                };
                if arrived.is_finite() && most <= capacity && kept & bit(s, work) == 0 {
                    let start = free.max(arrived);
                    let end = start + stage.time[work];
                    self.candidates.push(Next { stage: s, work, start, end });
                }
            }
        }
    }

    /// Adds `node` with one action more, unless it cannot be of interest.
    fn run(
        &mut self,
        node: &Node,
        parent: usize,
        kept: u64,
        Next { stage: s, work, end, .. }: Next,
        next: &mut Vec<Node>,
        known: &mut HashMap<Done, Vec<usize>>,
    ) {
        let instance = self.instance;
        let stage = &instance.stages[s];
        let mut done = (node.done.0.clone(), kept);
        let k = usize::from(done.0[s][work]);
        done.0[s][work] += 1;
        for own in &instance.devices[stage.device].chunks {
            Work::ALL.iter().for_each(|work| done.1 &= !bit(*own, *work));
        }
        let mut times = node.times.clone();
        times[stage.device] = end;
        if work != Work::W {
            times[arrival(instance, s, work, k)] = 0.0;
        }
        match work {
            Work::F if s + 1 == instance.stages.len() => {
                times[arrival(instance, s, Work::B, k)] = end;
            }
            Work::F => times[arrival(instance, s + 1, work, k)] = end + stage.transfer_up,
            Work::B if s > 0 => {
                times[arrival(instance, s - 1, work, k)] = end + stage.transfer_down
            }
            Work::B | Work::W => {}
        }
        let bound = self.remaining.bound(&done.0, &times).max(node.bound);
        if bound >= self.cutoff {
            return;
        }
        let same = known.entry(done.clone()).or_default();
        let no_later = |one: &[f64], other: &[f64]| one.iter().zip(other).all(|(a, b)| a <= b);
        if same.iter().any(|other| no_later(&next[*other].times, &times)) {
            return;
        }
        same.retain(|other| {
            let other = &mut next[*other];
            other.is_replaced = no_later(&times, &other.times);
            !other.is_replaced
        });
        same.push(next.len());
        let mut stash = node.stash.clone();
        let held = &mut stash[stage.device];
        *held = match work {
            Work::F => held.saturating_add(stage.after_f),
            Work::B => held.saturating_add(stage.after_b).saturating_sub(stage.after_f),
            Work::W => held.saturating_sub(stage.after_b),
        };
        let action = Action::new(StageId(s as u32), work, MicrobatchId(k as u32));
        let total = times[..instance.devices.len()].iter().sum();
        next.push(Node { done, times, stash, bound, total, parent, action, is_replaced: false });
    }

    /// The lanes of a node of the last layer.
    fn lanes(&self, mut at: usize) -> Vec<Vec<Action>> {
        let mut lanes = vec![Vec::new(); self.instance.devices.len()];
        for layer in self.steps.iter().rev() {
            let (parent, action) = layer[at];
            lanes[self.instance.stages[action.stage.index()].device].push(action);
            at = parent;
        }
        lanes.iter_mut().for_each(|lane| lane.reverse());
        lanes
    }
}

fn bit(stage: usize, work: Work) -> u64 {
    1 << (Work::ALL.len() * stage + work as usize)
}

/// The most stages that a beam knows: as many as there are bits for.
pub(super) const MOST_STAGES: usize = 64 / Work::ALL.len();

/// What is faster by less than this fraction is not faster.
const ROUNDING: f64 = 1e-9;
