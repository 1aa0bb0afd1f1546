//! The slots that a microbatch may have on its way through a segment.

/// Where a microbatch is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slots {
    /// Of all buffers but those of what B leaves.
    pub slot: usize,
    /// Of what B leaves; 0 as long as there is nothing of that.
    pub backward: usize,
}

/// Bindings are made for every pair of slots that a microbatch may have: beyond so many it is as
/// well to have a few backward slots more.
const MOST_PAIRS: usize = 64;

/// The pairs of slots that a microbatch may have, with at least so many backward slots, but not so
/// many pairs that their bindings are a burden.
///
/// Where microbatches leave in turn, the k-th has slot and backward slot k, each counted around.
/// Where they do not, any two free slots may meet. With as many backward slots as slots they always
/// are of one number.
pub fn pairs(slots: usize, least: usize, in_turn: bool) -> Vec<Slots> {
    let pairs = |backward: usize| match in_turn || backward == slots {
        true => turns(slots, backward),
        false => slots * backward,
    };
    let few = |backward: &usize| pairs(*backward) <= MOST_PAIRS.max(slots);
    let backward = (least..=slots).find(few).unwrap_or(slots);
    if !in_turn && backward != slots {
        return product(slots, backward);
    }
    let turn = |turn| Slots { slot: turn % slots, backward: turn % backward };
    (0..turns(slots, backward)).map(turn).collect()
}

/// After how many microbatches both kinds of slots begin anew: the least common multiple.
fn turns(slots: usize, backward: usize) -> usize {
    let multiples = (1..=backward).map(|times| times * slots);
    multiples.into_iter().find(|turn| turn % backward == 0).expect("the last one is")
}

/// Every slot with every backward slot.
pub fn product(slots: usize, backward: usize) -> Vec<Slots> {
    let all = |slot| (0..backward).map(move |backward| Slots { slot, backward });
    (0..slots).flat_map(all).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many backward slots there are, and how many pairs.
    fn counts(slots: usize, least: usize, in_turn: bool) -> (usize, usize) {
        let pairs = pairs(slots, least, in_turn);
        let backward: HashSet<usize> = pairs.iter().map(|pair| pair.backward).collect();
        (backward.len(), pairs.len())
    }

    #[test]
    fn backward_slots_are_enough_and_their_pairs_are_few() {
        for in_turn in [true, false] {
            for open in 1..100 {
                for least in 1..=open {
                    let (backward, pairs) = counts(open, least, in_turn);
                    assert!((least..=open).contains(&backward), "{least} of {open}");
                    assert!(pairs <= MOST_PAIRS.max(open), "{least} of {open}");
                }
            }
        }
        let in_turn = [(8, 1), (4, 3), (6, 4), (63, 62)].map(|(of, b)| counts(of, b, true));
        assert_eq!(in_turn, [(1, 8), (3, 12), (4, 12), (63, 63)]);
        let in_any = [(8, 1), (4, 3), (6, 6), (20, 4)].map(|(of, b)| counts(of, b, false));
        assert_eq!(in_any, [(1, 8), (3, 12), (6, 6), (20, 20)]);
    }
}
