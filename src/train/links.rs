//! What a parcel takes from every device to every other: latency, and time per byte.
//!
//! From one worker to another a parcel is a pointer, and takes what it takes to wake a thread. A
//! device with memory of its own adds its move down to the host, the one that takes it its move up.

use crate::engine::{Outcome, Parcel};
use crate::error::{Error, Result};
use crate::plan::{DeviceId, TransferCost, Transfers, Work};
use crate::threads::{bounded, now, spawn};

/// What was measured of one device's way to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredLink {
    /// The device that sends.
    pub from: DeviceId,
    /// The device that takes.
    pub to: DeviceId,
    /// Bytes of the largest parcel that any cut of the model sends.
    pub bytes: u64,
    /// What that takes.
    pub seconds: f64,
    /// The one over the other.
    pub bytes_per_second: f64,
    /// The part of `seconds` that does not depend on the bytes.
    pub latency: f64,
}

/// The moves of parcels between one device and the host: bytes and seconds of each.
#[derive(Debug, Clone, Default)]
pub(super) struct HostMoves {
    up: Vec<(u64, f64)>,
    down: Vec<(u64, f64)>,
}

impl HostMoves {
    /// Adds what was moved for one action, whose parcels have so many bytes.
    pub fn add(&mut self, arrived: u64, sent: u64, outcome: &Outcome) {
        let seconds =
            |&(start, end): &(std::time::Instant, std::time::Instant)| (end - start).as_secs_f64();
        // The first one is up, if anything arrived; the last one is down, if anything was sent.
        let moves = &outcome.transfers;
        if arrived > 0 && moves.len() > usize::from(sent > 0) {
            self.up.extend(moves.first().map(|of| (arrived, seconds(of))));
        }
        if sent > 0 {
            self.down.extend(moves.last().map(|of| (sent, seconds(of))));
        }
    }

    fn costs(&self) -> (TransferCost, TransferCost) {
        (fitted(&self.up), fitted(&self.down))
    }
}

/// The links between devices whose moves are these, for a pipeline whose largest parcel is like
/// `parcel`, of so many bytes. Devices of the same `hardware` have the same links.
pub(super) fn links(
    hardware: &[usize],
    moves: &[HostMoves],
    (parcel, bytes): (Parcel, u64),
) -> Result<(Transfers, Vec<MeasuredLink>)> {
    if hardware.len() < 2 {
        return Ok((Transfers::default(), Vec::new()));
    }
    let latency = hand_over(&Parcel::new())?;
    let more = (hand_over(&parcel)? - latency).max(0.0);
    let per_byte = if bytes > 0 { more / bytes as f64 } else { 0.0 };
    let moves: Vec<_> = moves.iter().map(HostMoves::costs).collect();
    let transfers = Transfers::from_fn(hardware.len(), |from, to| {
        let (_, down) = moves[hardware[from.index()]];
        let (up, _) = moves[hardware[to.index()]];
        TransferCost {
            latency: latency + down.latency + up.latency,
            per_byte: per_byte + down.per_byte + up.per_byte,
        }
    });
    let devices = || (0..hardware.len() as u32).map(DeviceId);
    let measured = |(from, to): (DeviceId, DeviceId)| {
        let cost = transfers.cost(from, to);
        let seconds = cost.time(bytes);
        let bytes_per_second = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
        MeasuredLink { from, to, bytes, seconds, bytes_per_second, latency: cost.latency }
    };
    let pairs = devices().flat_map(|from| devices().map(move |to| (from, to)));
    let links = pairs.filter(|(from, to)| from != to).map(measured).collect();
    Ok((transfers, links))
}

/// Seconds from one thread to another, which has to wake: the median of some.
fn hand_over(parcel: &Parcel) -> Result<f64> {
    let (there, inbox) = bounded::<Parcel>(1);
    let (back, answers) = bounded::<Parcel>(1);
    let echo = move || {
        while let Ok(parcel) = inbox.recv() {
            if back.send(parcel).is_err() {
                break;
            }
        }
    };
    let gone = || Error::run("the thread that a parcel is handed to has ended");
    let thread = spawn("link", echo)
        .map_err(|error| Error::run(format!("no thread for a measured link: {error}")))?;
    let mut ways = Vec::with_capacity(HAND_OVERS);
    for _ in 0..HAND_OVERS {
        let start = now();
        there.send(parcel.clone()).map_err(|_| gone())?;
        answers.recv().map_err(|_| gone())?;
        ways.push((now() - start).as_secs_f64() / 2.0);
    }
    drop(there);
    thread.join().map_err(|_| gone())?;
    ways.sort_by(f64::total_cmp);
    Ok(ways[HAND_OVERS / 2])
}

/// The line through moves by least squares, neither of whose parts is negative; where all have one
/// size, all of it counts by the byte. Nothing where nothing was moved.
fn fitted(moves: &[(u64, f64)]) -> TransferCost {
    // Of moves of one size the shortest counts, as it does of actions.
    let mut shortest: Vec<(u64, f64)> = Vec::new();
    let mut sorted = moves.to_vec();
    sorted.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for of in sorted {
        if shortest.last().is_none_or(|last| last.0 != of.0) {
            shortest.push(of);
        }
    }
    let count = shortest.len() as f64;
    let mean = |of: &dyn Fn(&(u64, f64)) -> f64| shortest.iter().map(of).sum::<f64>() / count;
    if shortest.is_empty() {
        return TransferCost::default();
    }
    let (size, time) = (mean(&|of| of.0 as f64), mean(&|of| of.1));
    let by_the_byte = TransferCost { latency: 0.0, per_byte: time / size };
    let spread = mean(&|of| (of.0 as f64 - size).powi(2));
    if spread == 0.0 {
        return by_the_byte;
    }
    let slope = mean(&|of| (of.0 as f64 - size) * (of.1 - time)) / spread;
    match (slope, time - slope * size) {
        (slope, _) if slope < 0.0 => TransferCost::of_any_size(time),
        (_, latency) if latency < 0.0 => by_the_byte,
        (per_byte, latency) => TransferCost { latency, per_byte },
    }
}

/// Bytes of what an action takes and of what it sends; W does neither.
pub(super) fn parcel_bytes(work: Work, forward: [u64; 2], backward: [u64; 2]) -> [u64; 2] {
    match work {
        Work::F => forward,
        Work::B => backward,
        Work::W => [0; 2],
    }
}

/// Some milliseconds in all.
const HAND_OVERS: usize = 101;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_of_several_sizes_have_a_latency_and_a_time_per_byte() {
        let fit = |moves: &[(u64, f64)]| {
            let cost = fitted(moves);
            [cost.latency, cost.per_byte].map(|part| (part * 1e9).round() / 1e9)
        };
        assert_eq!(fit(&[]), [0.0, 0.0]);
        assert_eq!(fit(&[(10, 5.0), (10, 9.0)]), [0.0, 0.5]);
        assert_eq!(fit(&[(10, 5.0), (20, 7.0), (30, 9.0), (30, 99.0)]), [3.0, 0.2]);
        // Rather no latency, or no time per byte, than less than none.
        assert_eq!(fit(&[(10, 1.0), (20, 9.0)])[0], 0.0);
        assert_eq!(fit(&[(10, 9.0), (20, 1.0)]), [5.0, 0.0]);
    }

    #[test]
    fn a_device_with_its_own_memory_is_farther_away_in_both_directions() {
        let gpu = HostMoves { up: vec![(100, 1.0), (200, 2.0)], down: vec![(100, 3.0)] };
        let (transfers, links) =
            links(&[0, 1, 0], &[HostMoves::default(), gpu], (Parcel::new(), 100)).unwrap();
        let time = |from, to| transfers.time(DeviceId(from), DeviceId(to), 100);
        assert!(time(0, 1) >= 1.0 && time(1, 0) >= 3.0 && time(0, 2) < 1.0);
        assert_eq!(time(0, 1), time(2, 1));
        assert_eq!(links.len(), 6);
        for MeasuredLink { from, to, bytes, seconds, bytes_per_second, latency } in links {
            assert_eq!((bytes, seconds), (100, transfers.time(from, to, 100)));
            assert!(latency > 0.0 && latency <= seconds && bytes_per_second > 0.0);
        }
    }
}
