//! The buffers of a layout, and where in them everything is.

use std::collections::HashMap;

use wgpu::{Buffer, BufferBinding, BufferUsages};

use super::context::Context;
use super::layout::{ArenaId, Layout, Place, Range, SMALL, Slots, TIMESTAMPS};
use crate::engine::IN_FLIGHT;
use crate::error::Result;

/// All buffers of a device but the staging ones.
#[derive(Debug)]
pub(super) struct Buffers {
    arenas: HashMap<ArenaId, Vec<Buffer>>,
    working: Vec<Buffer>,
    /// By segment, slot and buffer.
    slots: Vec<Vec<Vec<Buffer>>>,
    backward_slots: Vec<Vec<Vec<Buffer>>>,
    /// A word that kernels set when an index is out of range.
    pub(super) status: Buffer,
    /// The optimizer's settings of a step.
    pub(super) settings: Buffer,
    /// Where timestamps are put, and what takes them.
    pub(super) timestamps: Option<(wgpu::QuerySet, Buffer)>,
}

/// A storage buffer that is copied to and from.
pub(super) const STORAGE: BufferUsages = BufferUsages::STORAGE
    .union(BufferUsages::UNIFORM)
    .union(BufferUsages::COPY_SRC)
    .union(BufferUsages::COPY_DST);

impl Buffers {
    pub(super) fn new(context: &mut Context, layout: &Layout) -> Result<Self> {
        let mut arenas = HashMap::new();
        for (arena, chunks) in &layout.arenas.chunks {
            let what = arena.to_string();
            let chunks = chunks.iter().map(|&bytes| context.buffer(&what, bytes, STORAGE));
            arenas.insert(*arena, chunks.collect::<Result<_>>()?);
        }
        let working = layout.working.iter();
        let working = working.map(|&bytes| context.buffer("working memory", bytes, STORAGE));
        let working = working.collect::<Result<_>>()?;
        let mut some = |slots: usize, sizes: &[u64]| -> Result<Vec<Vec<Buffer>>> {
            let mut slot = || {
                let buffers = sizes.iter();
                buffers.map(|&bytes| context.buffer("a stash", bytes, STORAGE)).collect()
            };
            (0..slots).map(|_| slot()).collect()
        };
        let (mut slots, mut backward_slots) = (Vec::new(), Vec::new());
        for segment in &layout.segments {
            slots.push(some(segment.slots, &segment.buffers)?);
            backward_slots.push(some(segment.backward_slots, &segment.backward_buffers)?);
        }
        let status = context.buffer("the status", SMALL, STORAGE)?;
        let settings = context.buffer("the optimizer's settings", SMALL, STORAGE)?;
        let mut timestamps = None;
        if context.limits().timestamps {
            let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
            let bytes = IN_FLIGHT as u64 * TIMESTAMPS;
            let buffer = context.buffer("timestamps", bytes, usage)?;
            timestamps = Some((context.queries(2 * IN_FLIGHT as u32), buffer));
        }
        Ok(Self { arenas, working, slots, backward_slots, status, settings, timestamps })
    }

    pub(super) fn range(&self, range: Range) -> BufferBinding<'_> {
        BufferBinding {
            buffer: &self.arenas[&range.arena][range.chunk],
            offset: range.offset,
            size: std::num::NonZeroU64::new(range.bytes),
        }
    }

    pub(super) fn chunk(&self, arena: ArenaId, chunk: usize) -> &Buffer {
        &self.arenas[&arena][chunk]
    }

    /// Where a tensor of a microbatch is that has these slots.
    pub(super) fn place(&self, place: Place, segment: usize, slots: Slots) -> BufferBinding<'_> {
        let Slots { slot, backward } = slots;
        match place {
            Place::Slot(at) => self.slots[segment][slot][at].as_entire_buffer_binding(),
            Place::Backward(at) => {
                self.backward_slots[segment][backward][at].as_entire_buffer_binding()
            }
            Place::Working(at) => self.working[at].as_entire_buffer_binding(),
            Place::Arena(range) => self.range(range),
        }
    }
}
