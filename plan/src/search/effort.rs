//! How much is done for an input of some size, in work that is the same on every machine.
//!
//! The work for p devices and m microbatches grows with p m, up to a limit; beyond that the search
//! does a smaller part of what it would do, and says so.

use super::improve::Budget;

/// What a search does under one memory limit.
#[derive(Debug)]
pub(super) struct Effort {
    /// Actions to dispatch in search of an order.
    pub budget: Budget,
    /// Pairs of stage and microbatch that a beam weighs for one assignment.
    pub pairs_weighed: usize,
}

/// What a search does for devices and microbatches of these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SearchEffort {
    /// Actions to dispatch in search of an order; 0 where that would be too few to find anything.
    actions: u64,
    /// Whether that is less than the size asks for.
    pub cut_short: bool,
}

impl SearchEffort {
    pub fn of(devices: usize, microbatches: u32) -> Self {
        let pairs = (devices as u64).saturating_mul(u64::from(microbatches));
        let wanted = pairs.saturating_mul(ACTIONS_PER_PAIR).max(ACTIONS_AT_LEAST);
        let actions = wanted.min(ACTIONS_AT_MOST);
        let enough = actions / LEAST_ACTIONS_PER_PAIR >= pairs;
        Self { actions: if enough { actions } else { 0 }, cut_short: actions < wanted }
    }

    /// For one memory limit; nothing where no order is searched.
    pub fn under_a_limit(self) -> Option<Effort> {
        let (budget, pairs_weighed) = (Budget(self.actions), PAIRS_WEIGHED);
        (self.actions > 0).then_some(Effort { budget, pairs_weighed })
    }
}

/// The most chunks per device with which loops of so many are all affordable: from 2, which the
/// families in a V have, to `most`.
///
/// A plan of v chunks has 3 p m v actions, so plans of 1 to V chunks about 3 p m V^2 / 2 together.
/// What a further chunk is worth falls at the same time: the ramp of a loop is that of one chunk
/// over v.
pub(super) fn affordable_chunks(devices: u32, microbatches: u32, most: u32) -> u32 {
    let one = 3 * u64::from(devices).saturating_mul(u64::from(microbatches)).max(1);
    let all = |chunks: u64| one.saturating_mul(chunks * (chunks + 1) / 2);
    let affordable = (1..=most).take_while(|chunks| all(u64::from(*chunks)) <= FAMILY_ACTIONS);
    affordable.last().unwrap_or(0).max(2).min(most)
}

/// Half a second for 16 devices and 64 microbatches on one slow core.
const ACTIONS_PER_PAIR: u64 = 5_000;
const ACTIONS_AT_LEAST: u64 = 2_000_000;
/// Some ten seconds.
const ACTIONS_AT_MOST: u64 = 50_000_000;
/// Some twenty assignments in an order each, of a few chunks per device, is the least that makes a
/// search.
const LEAST_ACTIONS_PER_PAIR: u64 = 150;
/// A tenth of a second for each assignment.
const PAIRS_WEIGHED: usize = 6_000_000;
/// Of all plans of a family that takes any number of chunks.
const FAMILY_ACTIONS: u64 = 8_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_grows_with_the_size_up_to_a_limit_and_says_where_it_is_less() {
        let of = |devices, microbatches| {
            let effort = SearchEffort::of(devices, microbatches);
            (effort.actions, effort.cut_short)
        };
        assert_eq!(of(4, 8), (ACTIONS_AT_LEAST, false));
        assert_eq!(of(16, 64), (5_120_000, false));
        assert_eq!(of(32, 256), (40_960_000, false));
        assert_eq!(of(64, 512), (ACTIONS_AT_MOST, true));
        assert_eq!(of(256, 2048), (0, true));
        assert_eq!(of(usize::MAX, u32::MAX), (0, true));
    }

    #[test]
    fn small_plans_are_tried_with_as_many_chunks_as_may_be_and_large_ones_with_two_at_least() {
        let of = |devices, microbatches| affordable_chunks(devices, microbatches, 64);
        assert_eq!([of(4, 8), of(16, 64), of(64, 512), of(256, 2048)], [64, 64, 12, 2]);
        assert_eq!(of(u32::MAX, u32::MAX), 2);
        assert_eq!(affordable_chunks(4, 8, 1), 1);
    }
}
