//! Values of known lifetimes to buffers that are used again.

/// How long a value is needed, and how large it is. Times only have an order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lifetime<T> {
    /// When it is written.
    pub(super) first: T,
    /// When it is read for the last time.
    pub(super) last: T,
    /// Its size.
    pub(super) bytes: u64,
}

/// The buffer of every value, and the bytes of every buffer. Values of one buffer are never needed
/// at the same time, not even one read while the other is written.
///
/// Greedy by size (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net
/// Inference", section 4.3): the largest first, each into the first buffer that is free for it.
pub(super) fn pack<T: Ord + Copy>(values: &[Lifetime<T>]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(values[at].bytes), values[at].first, at));
    let mut buffers: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut homes = vec![0; values.len()];
    for at in order {
        let value = values[at];
        let free = |others: &[usize]| {
            others
                .iter()
                .map(|&other| values[other])
                .all(|other| other.last < value.first || value.last < other.first)
        };
        let home = match buffers.iter().position(|(_, others)| free(others)) {
            Some(home) => home,
            None => {
                buffers.push((value.bytes, Vec::new()));
                buffers.len() - 1
            }
        };
        buffers[home].1.push(at);
        homes[at] = home;
    }
    (homes, buffers.into_iter().map(|(bytes, _)| bytes).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_that_are_needed_at_once_are_apart(
            raw in prop::collection::vec((0u32..30, 0u32..10, 1u64..100), 0..40)
        ) {
            let values: Vec<Lifetime<u32>> = raw
                .iter()
                .map(|&(first, length, bytes)| Lifetime { first, last: first + length, bytes })
                .collect();
            let (homes, sizes) = pack(&values);
            for (at, value) in values.iter().enumerate() {
                prop_assert!(value.bytes <= sizes[homes[at]]);
                for (other, home) in values.iter().zip(&homes).skip(at + 1) {
                    let apart = other.last < value.first || value.last < other.first;
                    prop_assert!(apart || *home != homes[at]);
                }
            }
            let most = (0u32..45)
                .map(|now| {
                    let held = values.iter().filter(|v| (v.first..=v.last).contains(&now));
                    held.map(|v| v.bytes).sum::<u64>()
                })
                .max();
            let total: u64 = sizes.iter().sum();
            prop_assert!(most.unwrap_or(0) <= total);
            prop_assert!(total <= values.iter().map(|v| v.bytes).sum::<u64>());
        }
    }
}
