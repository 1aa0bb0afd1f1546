//! Which stages recompute F instead of keeping what it computed.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::plan::StageId;

/// What F leaves for the backward work of its microbatch. The trained weights are the same bits
/// with each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recompute {
    /// All that B and W read.
    #[default]
    None,
    /// Only what the stage was sent: B first recomputes F. This takes up to another F per
    /// microbatch, and saves nothing where B comes right after F.
    Stage,
    /// As `None`, but as `Stage` on those stages without which a device would not keep to its
    /// memory limit: the set of stages that costs the device the least time.
    Auto,
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Recompute::None => "none",
            Recompute::Stage => "stage",
            Recompute::Auto => "auto",
        })
    }
}

impl FromStr for Recompute {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Recompute::None),
            "stage" => Ok(Recompute::Stage),
            "auto" => Ok(Recompute::Auto),
            _ => Err(Error::config(format!("there is no recomputation '{name}'"))
                .hint("none, stage or auto")),
        }
    }
}

/// A stage that may recompute F, and the time that this takes per microbatch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecomputeCandidate {
    pub stage: StageId,
    pub time: f64,
}

/// The stages that recompute F: for every device the candidates that take the least time and with
/// which it keeps to its limit, none if it does without.
///
/// `candidates` and `limits` are those of every device. `peaks` says what every device holds, which
/// depends on its own stages alone. A device that no set helps takes the one with which it holds
/// the least, so that the error says what would be enough.
pub(super) fn least(
    candidates: Vec<Vec<RecomputeCandidate>>,
    limits: &[u64],
    mut peaks: impl FnMut(&[StageId]) -> Result<Vec<u64>>,
) -> Result<Vec<StageId>> {
    let mut devices: Vec<Trials> = candidates.into_iter().map(Trials::new).collect();
    loop {
        let mut stages: Vec<StageId> =
            devices.iter().flat_map(|device| device.set.iter().copied()).collect();
        stages.sort_unstable();
        let peaks = peaks(&stages)?;
        let mut open = false;
        for ((device, peak), limit) in devices.iter_mut().zip(peaks).zip(limits) {
            open |= device.weigh(peak, *limit);
        }
        if !open {
            let sets = devices.into_iter().flat_map(|device| device.set);
            let mut stages: Vec<StageId> = sets.collect();
            stages.sort_unstable();
            return Ok(stages);
        }
    }
}

/// One device on its way to the set of stages that it takes.
struct Trials {
    sets: Sets,
    /// What is tried, or was settled on.
    set: Vec<StageId>,
    /// The smallest peak so far, and its set.
    smallest: Option<(u64, Vec<StageId>)>,
    settled: bool,
}

impl Trials {
    fn new(candidates: Vec<RecomputeCandidate>) -> Self {
        Self { sets: Sets::new(candidates), set: Vec::new(), smallest: None, settled: false }
    }

    /// Takes note of what the device holds with the set; whether another one is to be tried.
    fn weigh(&mut self, peak: u64, limit: u64) -> bool {
        if self.settled || peak <= limit {
            self.settled = true;
            return false;
        }
        if self.smallest.as_ref().is_none_or(|(least, _)| peak < *least) {
            self.smallest = Some((peak, self.set.clone()));
        }
        match self.sets.next() {
            Some(set) => self.set = set,
            None => {
                self.settled = true;
                self.set = self.smallest.take().map(|(_, set)| set).unwrap_or_default();
            }
        }
        !self.settled
    }
}

/// Sets of candidates that are tried at most: all sets of eight of them. The last one is then the
/// set of all.
const MOST_SETS: usize = 1 << 8;

/// The sets of some candidates but for the empty one, in ascending order of their time, those of
/// fewer stages first where it is equal.
struct Sets {
    /// Ascending in time.
    candidates: Vec<RecomputeCandidate>,
    /// Sets to be given next: positions of candidates, ascending.
    open: Vec<Vec<usize>>,
    given: usize,
}

impl Sets {
    fn new(mut candidates: Vec<RecomputeCandidate>) -> Self {
        candidates.sort_by(|a, b| a.time.total_cmp(&b.time).then(a.stage.cmp(&b.stage)));
        let open = if candidates.is_empty() { Vec::new() } else { vec![vec![0]] };
        Self { candidates, open, given: 0 }
    }

    fn time(&self, set: &[usize]) -> f64 {
        set.iter().map(|&at| self.candidates[at].time).sum()
    }
}

impl Iterator for Sets {
    type Item = Vec<StageId>;

    fn next(&mut self) -> Option<Vec<StageId>> {
        let compare = |a: &Vec<usize>, b: &Vec<usize>| {
            let times = self.time(a).total_cmp(&self.time(b));
            times.then(a.len().cmp(&b.len())).then_with(|| a.cmp(b))
        };
        let open = self.open.iter().enumerate();
        let (next, _) = open.min_by(|(_, a), (_, b)| compare(a, b))?;
        let mut set = self.open.swap_remove(next);
        self.given += 1;
        if self.given == MOST_SETS {
            self.open.clear();
            set = (0..self.candidates.len()).collect();
        }
        // Every set follows from one that takes no more time: by one more candidate, or by the next
        // one in place of the last.
        let last = set[set.len() - 1];
        if last + 1 < self.candidates.len() {
            let with = |set: &[usize]| [set, &[last + 1]].concat();
            self.open.extend([with(&set), with(&set[..set.len() - 1])]);
        }
        Some(set.into_iter().map(|at| self.candidates[at].stage).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn candidates(times: &[u32]) -> Vec<RecomputeCandidate> {
        let candidate = |(stage, time): (u32, &u32)| RecomputeCandidate {
            stage: StageId(stage),
            time: f64::from(*time),
        };
        (0..).zip(times).map(candidate).collect()
    }

    proptest! {
        #[test]
        fn sets_ascend_in_time_and_are_all_there(times in prop::collection::vec(0u32..9, 0..8)) {
            let sets: Vec<Vec<StageId>> = Sets::new(candidates(&times)).collect();
            let time = |set: &Vec<StageId>| set.iter().map(|stage| times[stage.index()]).sum();
            let spent: Vec<u32> = sets.iter().map(time).collect();
            prop_assert!(spent.is_sorted(), "{spent:?}");
            let different: BTreeSet<BTreeSet<StageId>> =
                sets.iter().map(|set| set.iter().copied().collect()).collect();
            prop_assert_eq!((sets.len(), different.len()), ((1 << times.len()) - 1, sets.len()));
        }

        #[test]
        fn no_cheaper_set_keeps_a_device_to_its_limit(
            stages in prop::collection::vec((1u32..9, 0u64..9), 1..7),
            limit in 0u64..40,
        ) {
            let (times, saved): (Vec<u32>, Vec<u64>) = stages.into_iter().unzip();
            let held = |set: &[StageId]| 40 - set.iter().map(|s| saved[s.index()]).sum::<u64>();
            let peaks = |set: &[StageId]| Ok(vec![held(set)]);
            let found = least(vec![candidates(&times)], &[limit], peaks).unwrap();
            let time = |set: &[StageId]| set.iter().map(|s| times[s.index()]).sum::<u32>();
            let sets = Sets::new(candidates(&times)).chain([Vec::new()]);
            let cheapest = sets.filter(|set| held(set) <= limit).map(|set| time(&set)).min();
            match cheapest {
                Some(cheapest) => {
                    prop_assert!(held(&found) <= limit);
                    prop_assert_eq!(time(&found), cheapest);
                }
                None => prop_assert_eq!(held(&found), 40 - saved.iter().sum::<u64>()),
            }
        }
    }

    #[test]
    fn devices_choose_by_themselves() {
        let all = candidates(&[3, 1, 2, 1]);
        let devices = vec![vec![all[0], all[2]], vec![all[1], all[3]], Vec::new()];
        // Every stage that recomputes F saves 5 of 20 bytes.
        let peaks = |set: &[StageId]| {
            let saved = |own: [u32; 2]| {
                5 * set.iter().filter(|stage| own.contains(&stage.0)).count() as u64
            };
            Ok(vec![20 - saved([0, 2]), 20 - saved([1, 3]), 20])
        };
        assert_eq!(least(devices, &[15, 10, 20], peaks).unwrap(), [1, 2, 3].map(StageId));
    }

    #[test]
    fn many_candidates_end_with_all_of_them() {
        let sets: Vec<Vec<StageId>> = Sets::new(candidates(&[1; 20])).collect();
        assert_eq!((sets.len(), sets[MOST_SETS - 1].len()), (MOST_SETS, 20));
    }
}
