//! A building block of the V placement -> the lanes of a step, by arithmetic on a grid of slots
//! (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory", sections 3 and 4).
//!
//! A building block says in which slots each device runs the four F and B of one microbatch, for
//! F = B = W = 1. Of six slots in a row a device so fills four, and no two of one device are equal
//! mod 6. Microbatch k starts 6k slots later. Then actions move into the earliest free slot that
//! what they wait for allows and that keeps the stash within the limit; and the free slots run W,
//! the oldest first. No action ever moves to a later slot, so the lanes cannot deadlock.

use std::ops::Range;

use super::Size;
use crate::action::{Action, DeviceId, MicrobatchId, StageId};
use crate::work::Work;

/// The slots of one microbatch's F and B on one device, in the order they run.
#[derive(Debug, Clone, Copy)]
pub(super) struct BuildingBlock {
    /// F of the chunk on the way down the devices.
    pub down_f: u32,
    /// F of the chunk on the way back up.
    pub up_f: u32,
    /// B of the chunk on the way up, whose gradient goes down the devices.
    pub up_b: u32,
    /// B of the chunk on the way down.
    pub down_b: u32,
}

/// The F and B that a squeeze may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Squeezed {
    /// All of them. No slot is left empty that could be filled, which is the best that a block can
    /// do that has little to fill gaps with.
    All,
    /// Those of the first microbatches and of the last. In the steady state the block fills every
    /// slot already, so nothing is won there at F = B = W. And much is lost at other costs: an F
    /// that moves up as far as the stash allows waits for a W, and the F and B of its microbatch on
    /// the next devices wait for it, where the block gives each of them some slots to be late in.
    Ends,
}

/// The lanes that come of `block`, which is given the device, when no device may hold more than
/// `stash` microbatches, counted as `peak_stash` does: two chunks are one.
pub(super) fn squeeze(
    size: Size,
    stash: u32,
    squeezed: Squeezed,
    block: impl Fn(DeviceId) -> BuildingBlock,
) -> Vec<Vec<Action>> {
    let mut grid = repeat(size, &block);
    let keeps = match squeezed {
        Squeezed::All => 0..0,
        Squeezed::Ends => grid.steady_state(),
    };
    let mut order: Vec<(u32, u32, Pass, u32)> = Vec::new();
    for (device, row) in (0u32..).zip(&grid.rows) {
        let passes = (0u32..).zip(&row.slots).filter_map(|(slot, pass)| Some((slot, (*pass)?)));
        order.extend(passes.map(|(slot, (pass, microbatch))| (slot, device, pass, microbatch)));
    }
    order.retain(|(slot, ..)| !keeps.contains(slot));
    order.sort_unstable();
    for (slot, device, pass, microbatch) in order {
        let earliest = grid.earliest(device, pass, microbatch);
        let row = &mut grid.rows[device as usize];
        let moved = (earliest..slot).find(|to| row.advance(slot, *to, 2 * stash));
        grid.slots_of[device as usize][pass as usize][microbatch as usize] = moved.unwrap_or(slot);
    }
    (0u32..).zip(&grid.rows).map(|(device, row)| lane(size, device, row)).collect()
}

/// An F or a B of one of a device's two chunks. A microbatch comes through them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    DownF,
    UpF,
    UpB,
    DownB,
}

impl Pass {
    const ALL: [Self; 4] = [Self::DownF, Self::UpF, Self::UpB, Self::DownB];

    fn is_forward(self) -> bool {
        matches!(self, Self::DownF | Self::UpF)
    }

    fn action(self, size: Size, device: u32, microbatch: u32) -> Action {
        let stage = match self {
            Self::DownF | Self::DownB => device,
            Self::UpF | Self::UpB => 2 * size.devices - 1 - device,
        };
        let work = if self.is_forward() { Work::F } else { Work::B };
        Action::new(StageId(stage), work, MicrobatchId(microbatch))
    }
}

struct SlotGrid {
    rows: Vec<SlotRow>,
    /// Where each device runs each pass of each microbatch.
    slots_of: Vec<[Vec<u32>; 4]>,
}

/// The slots of one device.
struct SlotRow {
    slots: Vec<Option<(Pass, u32)>>,
    /// What the device holds before each slot, and after the last.
    before: Vec<HeldChunks>,
}

/// What a device holds, in chunks of microbatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct HeldChunks {
    /// F is done, W is not.
    chunks: u32,
    /// B is done, W is not.
    pending: u32,
}

impl HeldChunks {
    /// After a slot that runs `pass`, or W if it runs none.
    fn after(self, pass: Option<Pass>) -> Self {
        let Self { chunks, pending } = self;
        match pass {
            Some(pass) if pass.is_forward() => Self { chunks: chunks + 1, pending },
            Some(_) => Self { chunks, pending: pending + 1 },
            None if pending > 0 => Self { chunks: chunks - 1, pending: pending - 1 },
            None => self,
        }
    }
}

/// The building block of every microbatch, six slots after the one before.
fn repeat(size: Size, block: &impl Fn(DeviceId) -> BuildingBlock) -> SlotGrid {
    let offsets = |device| {
        let BuildingBlock { down_f, up_f, up_b, down_b } = block(DeviceId(device));
        [down_f, up_f, up_b, down_b]
    };
    let slots_of: Vec<[Vec<u32>; 4]> = (0..size.devices)
        .map(|device| {
            offsets(device).map(|at| (0..size.microbatches).map(|k| at + 6 * k).collect())
        })
        .collect();
    let row = |slots_of: &[Vec<u32>; 4]| {
        let last = slots_of.iter().flatten().max().expect("there is a microbatch");
        let mut slots = vec![None; *last as usize + 1];
        for (pass, of) in Pass::ALL.into_iter().zip(slots_of) {
            for (microbatch, slot) in (0u32..).zip(of) {
                let before = slots[*slot as usize].replace((pass, microbatch));
                assert_eq!(before, None, "two passes in slot {slot}");
            }
        }
        let mut before = vec![HeldChunks::default()];
        for pass in &slots {
            let held = before[before.len() - 1];
            before.push(held.after(pass.map(|(pass, _)| pass)));
        }
        SlotRow { slots, before }
    };
    SlotGrid { rows: slots_of.iter().map(row).collect(), slots_of }
}

impl SlotGrid {
    /// The slots in which the last device, where every microbatch turns, has run its first B of
    /// both chunks and has F left.
    fn steady_state(&self) -> Range<u32> {
        let [_, up_f, _, down_b] = self.slots_of.last().expect("there is a device");
        down_b[0] + 1..up_f[up_f.len() - 1] + 1
    }

    /// The first slot at whose start all that the pass waits for is done.
    fn earliest(&self, device: u32, pass: Pass, microbatch: u32) -> u32 {
        let (first, last) = (0, self.rows.len() as u32 - 1);
        let feeds = match pass {
            Pass::DownF if device == first => None,
            Pass::UpB if device == first => Some((device, Pass::UpF)),
            Pass::DownF | Pass::UpB => Some((device - 1, pass)),
            Pass::UpF if device == last => Some((device, Pass::DownF)),
            Pass::DownB if device == last => Some((device, Pass::UpB)),
            Pass::UpF | Pass::DownB => Some((device + 1, pass)),
        };
        let end = |device: u32, pass: Pass, microbatch: u32| {
            self.slots_of[device as usize][pass as usize][microbatch as usize] + 1
        };
        let fed = feeds.map_or(0, |(device, pass)| end(device, pass, microbatch));
        let turn = microbatch.checked_sub(1).map_or(0, |before| end(device, pass, before));
        fed.max(turn)
    }
}

impl SlotRow {
    /// Moves what runs in slot `from` into the earlier slot `to`, if that is free and the device
    /// then holds at most `limit` chunks at any time.
    fn advance(&mut self, from: u32, to: u32, limit: u32) -> bool {
        let (from, to) = (from as usize, to as usize);
        if self.slots[to].is_some() {
            return false;
        }
        self.slots.swap(from, to);
        // From `to` on the device holds other chunks, and some slots after `from` the same again.
        let mut changed = Vec::new();
        let mut held = self.before[to];
        for slot in to..self.slots.len() {
            held = held.after(self.slots[slot].map(|(pass, _)| pass));
            if held.chunks > limit {
                self.slots.swap(from, to);
                return false;
            }
            if slot >= from && held == self.before[slot + 1] {
                break;
            }
            changed.push(held);
        }
        self.before[to + 1..][..changed.len()].copy_from_slice(&changed);
        true
    }
}

/// The row's passes in order, with W in the free slots and after the last.
fn lane(size: Size, device: u32, row: &SlotRow) -> Vec<Action> {
    let mut lane = Vec::with_capacity(6 * size.microbatches as usize);
    let mut pending = std::collections::VecDeque::new();
    for slot in &row.slots {
        let Some((pass, microbatch)) = *slot else {
            lane.extend(pending.pop_front());
            continue;
        };
        let action = pass.action(size, device, microbatch);
        lane.push(action);
        if !pass.is_forward() {
            pending.push_back(action.alone(Work::W));
        }
    }
    lane.extend(pending);
    lane
}
