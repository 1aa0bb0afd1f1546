//! Buffers through which tensors come from the host and go to it, used in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use wgpu::{Buffer, BufferUsages, MapMode};

use super::context::Context;
use crate::error::Result;

/// Where an entry's data may be reached.
const ON_DEVICE: u8 = 0;
const ON_HOST: u8 = 1;
const FAILED: u8 = 2;

/// A map that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Staging buffers of one direction.
#[derive(Debug)]
pub(super) struct Ring {
    mode: MapMode,
    entries: Vec<Entry>,
    next: usize,
}

#[derive(Debug)]
struct Entry {
    buffer: Buffer,
    state: Arc<AtomicU8>,
}

/// One entry of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId(usize);

impl EntryId {
    /// Its position in the ring.
    pub(super) fn index(self) -> u32 {
        self.0 as u32
    }
}

impl Ring {
    /// Makes `count` buffers of `bytes`, for what the host writes.
    pub(super) fn up(context: &mut Context, count: usize, bytes: u64) -> Result<Self> {
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        Self::new(context, MapMode::Write, usage, ON_HOST, count, bytes)
    }

    /// Makes `count` buffers of `bytes`, for what the host reads.
    pub(super) fn down(context: &mut Context, count: usize, bytes: u64) -> Result<Self> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Self::new(context, MapMode::Read, usage, ON_DEVICE, count, bytes)
    }

    fn new(
        context: &mut Context,
        mode: MapMode,
        usage: BufferUsages,
        state: u8,
        count: usize,
        bytes: u64,
    ) -> Result<Self> {
        let entry = |_| {
            let buffer = context.buffer("staging", bytes, usage)?;
            Ok(Entry { buffer, state: Arc::new(AtomicU8::new(state)) })
        };
        let entries = (0..count).map(entry).collect::<Result<_>>()?;
        Ok(Self { mode, entries, next: 0 })
    }

    /// The entry whose turn it is.
    pub(super) fn take(&mut self) -> EntryId {
        let entry = EntryId(self.next);
        self.next = (self.next + 1) % self.entries.len();
        entry
    }

    pub(super) fn buffer(&self, entry: EntryId) -> &Buffer {
        &self.entries[entry.0].buffer
    }

    /// Asks for an entry's data on the host, once the work submitted so far is done with it.
    pub(super) fn map(&self, entry: EntryId) {
        let Entry { buffer, state } = &self.entries[entry.0];
        let state = state.clone();
        buffer.map_async(self.mode, .., move |result| {
            state.store(if result.is_ok() { ON_HOST } else { FAILED }, Ordering::Release);
        });
    }

    /// Gives an entry back to the device.
    pub(super) fn unmap(&self, entry: EntryId) {
        let Entry { buffer, state } = &self.entries[entry.0];
        state.store(ON_DEVICE, Ordering::Release);
        buffer.unmap();
    }

    /// Waits for an entry that was asked for.
    pub(super) fn wait(&self, entry: EntryId, context: &Context) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.entries[entry.0].state.load(Ordering::Acquire) {
                ON_HOST => return Ok(()),
                FAILED => return context.check().and(Err(context.error("a buffer is not mapped"))),
                _ if start.elapsed() > TIMEOUT => {
                    return Err(context.error("the device does not answer"));
                }
                _ => {
                    context.poll()?;
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Writes to an entry that is on the host.
    pub(super) fn write(
        &self,
        entry: EntryId,
        context: &Context,
        write: impl FnOnce(&mut dyn FnMut(u64, &[u8])),
    ) -> Result<()> {
        let mut view = self.entries[entry.0]
            .buffer
            .get_mapped_range_mut(..)
            .map_err(|error| context.error(error))?;
        write(&mut |offset, bytes| {
            let offset = offset as usize;
            view.slice(offset..offset + bytes.len()).copy_from_slice(bytes);
        });
        Ok(())
    }

    /// Reads from an entry that is on the host.
    pub(super) fn read<T>(
        &self,
        entry: EntryId,
        context: &Context,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let view = self.entries[entry.0]
            .buffer
            .get_mapped_range(..)
            .map_err(|error| context.error(error))?;
        Ok(read(&view))
    }
}
