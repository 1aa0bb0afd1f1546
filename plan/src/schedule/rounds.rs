//! The order in which a device of a loop takes its chunks: p microbatches of one chunk, the same p
//! of the next chunk, and after the last chunk the next p microbatches (Narayanan et al. 2021,
//! section 2.2).

use super::Size;

/// A chunk and a microbatch by turn. Chunk v - 1 - c takes the turns of chunk c on the way back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub chunk: u32,
    pub microbatch: u32,
}

/// The turns of whole rounds. Where p does not divide m, the last round goes beyond the
/// microbatches that there are: those turns are empty.
pub(super) fn turns(size: Size) -> impl Iterator<Item = Option<Turn>> + Clone {
    let Size { devices, chunks, microbatches } = size;
    (0..microbatches.div_ceil(devices)).flat_map(move |round| {
        (0..chunks).flat_map(move |chunk| {
            (round * devices..(round + 1) * devices).map(move |microbatch| {
                (microbatch < microbatches).then_some(Turn { chunk, microbatch })
            })
        })
    })
}
