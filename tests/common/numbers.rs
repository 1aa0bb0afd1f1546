//! Numbers to compute with.

/// Numbers in `low..high` that depend on `seed` alone.
pub fn numbers(seed: u64, count: usize, low: f32, high: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators").
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) >> 40
    };
    (0..count).map(|_| low + (high - low) * (next() as f32 / (1u64 << 24) as f32)).collect()
}
