//! Parameters, gradients, optimizer state and constants: one array each, in as few buffers as the
//! adapter's limit allows, so that one dispatch updates many parameters.

use std::collections::HashMap;

use super::{AdapterLimits, ELEMENT, GradientSums};
use crate::compile::Accumulator;
use crate::engine::{StageSetup, UpdateRule};
use crate::graph::{NodeId, ParameterId};
use crate::split::Split;

/// Elements whose squares are summed to one number by the device.
pub(crate) const NORM_PART: u64 = 4096;

/// Which array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ArenaId {
    /// Parameters that the device updates.
    Owned,
    /// The first sum of gradients of each of these, in the same places.
    Gradients,
    /// The optimizer's state of each of these, in the same places.
    Moment(u32),
    /// What parameters (0) and the optimizer's state (1 and on) were before a provisional update,
    /// in the same places.
    Before(u32),
    /// Squares of the norms of parts of each of these gradients.
    Norms,
    /// Parameters that no optimizer of the device updates.
    Borrowed,
    /// What states were at the beginning of a step.
    States,
    /// All other sums of gradients.
    Sums,
    /// Values that depend on no input and no parameter.
    Constants,
}

impl std::fmt::Display for ArenaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ArenaId::Owned => "parameters",
            ArenaId::Gradients => "gradients",
            ArenaId::Moment(_) => "the optimizer's state",
            ArenaId::Before(_) => "what an update is undone from",
            ArenaId::Norms => "norms of gradients",
            ArenaId::Borrowed => "parameters of other devices",
            ArenaId::States => "states before a step",
            ArenaId::Sums => "sums of gradients",
            ArenaId::Constants => "constants",
        })
    }
}

/// A part of one buffer of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Range {
    pub(crate) arena: ArenaId,
    /// Which of its buffers.
    pub(crate) chunk: usize,
    /// In bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) bytes: u64,
}

/// The arenas of a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arenas {
    /// Bytes of the buffers of every arena.
    pub(crate) chunks: Vec<(ArenaId, Vec<u64>)>,
    /// How many bytes of every buffer of owned parameters decay: those at its beginning.
    pub(crate) decayed: Vec<u64>,
    /// Where parameters are.
    pub(crate) parameters: HashMap<ParameterId, Range>,
    /// Where states are kept during a step.
    pub(crate) states: HashMap<ParameterId, Range>,
    /// Where the norms of owned parameters' gradients are, with clipping.
    pub(crate) norms: HashMap<ParameterId, Range>,
    /// Where sums of gradients are, local and from elsewhere.
    pub(crate) sums: HashMap<Accumulator, Range>,
    /// Where constants are.
    pub(crate) constants: HashMap<NodeId, Range>,
}

impl Arenas {
    pub(super) fn new(
        split: &Split,
        stages: &[StageSetup],
        gradient_sums: &GradientSums,
        rule: &UpdateRule,
        limits: AdapterLimits,
    ) -> Self {
        let graph = &split.joint.graph;
        let bytes = |id: NodeId| graph[id].shape.elements() as u64 * ELEMENT;
        let of = |parameter: ParameterId| bytes(graph.parameters[parameter.index()].node);
        let mut owned = unique(stages.iter().flat_map(|stage| stage.owned.clone()).collect());
        let used = unique(stages.iter().flat_map(|of| of.program.parameters.clone()).collect());
        let borrowed: Vec<ParameterId> =
            used.into_iter().filter(|id| owned.binary_search(id).is_err()).collect();
        let spared = |parameter: ParameterId| {
            let dimensions = graph[graph.parameters[parameter.index()].node].shape.0.len();
            rule.optimizer.of(dimensions) != rule.optimizer
        };
        owned.sort_by_key(|&id| (spared(id), id));
        let constants: Vec<NodeId> =
            unique(stages.iter().flat_map(|stage| stage.program.constants.clone()).collect());
        let mut others: Vec<Accumulator> = gradient_sums.added.clone();
        others.extend(&gradient_sums.partial.sent);

        let mut packer = Packer { limits, chunks: Vec::new() };
        let own = packer.arena(ArenaId::Owned, owned.iter().map(|&id| of(id)));
        let borrow = packer.arena(ArenaId::Borrowed, borrowed.iter().map(|&id| of(id)));
        let rest = packer.arena(ArenaId::Sums, others.iter().map(|sum| of(sum.parameter)));
        let states: Vec<ParameterId> =
            stages.iter().flat_map(|of| &of.program.states).map(|state| state.parameter).collect();
        let kept = packer.arena(ArenaId::States, states.iter().map(|&id| of(id)));
        let fixed = packer.arena(ArenaId::Constants, constants.iter().map(|&id| bytes(id)));
        packer.twin(ArenaId::Gradients);
        let moments = rule.optimizer.moments() as u32;
        (0..moments).for_each(|moment| packer.twin(ArenaId::Moment(moment)));
        if rule.may_undo() {
            (0..=moments).for_each(|of| packer.twin(ArenaId::Before(of)));
        }
        let clipped = if rule.clipping.is_some() { &owned[..] } else { &[] };
        let parts = |&id: &ParameterId| of(id).div_ceil(NORM_PART * ELEMENT) * ELEMENT;
        let norms = packer.arena(ArenaId::Norms, clipped.iter().map(parts));

        let mut decayed: Vec<u64> = packer.chunks[0].1.clone();
        for (_, range) in owned.iter().zip(&own).filter(|(id, _)| spared(**id)) {
            decayed[range.chunk] = decayed[range.chunk].min(range.offset);
        }
        let first = |parameter: ParameterId| {
            let sums = stages.iter().flat_map(|stage| &stage.program.accumulators);
            sums.filter(|sum| sum.parameter == parameter).min().copied()
        };
        let mut sums: HashMap<Accumulator, Range> = others.into_iter().zip(rest).collect();
        for (&parameter, range) in owned.iter().zip(&own) {
            let first = first(parameter).expect("the owner has the first gradient");
            sums.insert(first, Range { arena: ArenaId::Gradients, ..*range });
        }
        let norms = clipped.iter().copied().zip(norms).collect();
        let parameters = owned.into_iter().zip(own).chain(borrowed.into_iter().zip(borrow));
        Self {
            chunks: packer.chunks,
            decayed,
            parameters: parameters.collect(),
            states: states.into_iter().zip(kept).collect(),
            norms,
            sums,
            constants: constants.into_iter().zip(fixed).collect(),
        }
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.iter().flat_map(|(_, chunks)| chunks).sum()
    }

    /// Bytes of the buffers of one arena.
    pub(crate) fn chunks(&self, arena: ArenaId) -> &[u64] {
        let found = self.chunks.iter().find(|(id, _)| *id == arena);
        found.map_or(&[], |(_, chunks)| chunks)
    }
}

fn unique<T: Ord>(mut ids: Vec<T>) -> Vec<T> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Puts tensors one after another into buffers.
struct Packer {
    limits: AdapterLimits,
    chunks: Vec<(ArenaId, Vec<u64>)>,
}

impl Packer {
    fn arena(&mut self, arena: ArenaId, sizes: impl Iterator<Item = u64>) -> Vec<Range> {
        let mut chunks: Vec<u64> = Vec::new();
        let place = |bytes: u64| {
            let padded = bytes.next_multiple_of(self.limits.alignment);
            match chunks.last_mut() {
                Some(last) if *last + padded <= self.limits.buffer_bytes => *last += padded,
                _ => chunks.push(padded),
            }
            let chunk = chunks.len() - 1;
            Range { arena, chunk, offset: chunks[chunk] - padded, bytes }
        };
        let ranges = sizes.map(place).collect();
        self.chunks.push((arena, chunks));
        ranges
    }

    /// An arena with the places of the owned parameters.
    fn twin(&mut self, arena: ArenaId) {
        let (_, chunks) = &self.chunks[0];
        let chunks = chunks.clone();
        self.chunks.push((arena, chunks));
    }
}
