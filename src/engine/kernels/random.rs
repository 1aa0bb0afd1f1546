//! Random numbers by position: Philox 4x32-10, the same on every device.
//!
//! Element `i` of a fill depends on nothing but the key, the counter's base and `i`: it is word
//! `i % 4` of the block with counter `[i / 4, base[0], base[1], base[2]]`. Generator: Salmon et
//! al., "Parallel random numbers: as easy as 1, 2, 3", SC'11.

use multiversion::multiversion;

/// Blocks computed side by side.
const LANES: usize = 32;

/// Fills with uniform values in `[0, 1)`: the top 24 bits of each word times `2^-24`.
#[cfg(test)]
fn uniform(key: [u32; 2], counter: [u32; 3], dst: &mut [f32]) {
    fill(key, counter, dst, to_unit);
}

/// Fills with 0 with probability `p` and `1 / (1 - p)` otherwise: an element is 0 where
/// its uniform number in `[0, 1)`, the top 24 bits of its word times `2^-24`, is below `p`.
pub fn dropout_mask(key: [u32; 2], counter: [u32; 3], p: f32, dst: &mut [f32]) {
    assert!((0.0..1.0).contains(&p), "dropout probability {p} is not in [0, 1)");
    let kept = 1.0 / (1.0 - p);
    fill(
        key,
        counter,
        dst,
        #[inline(always)]
        |word| if to_unit(word) < p { 0.0 } else { kept },
    );
}

#[multiversion(targets = "simd")]
fn fill(key: [u32; 2], counter: [u32; 3], dst: &mut [f32], f: impl Fn(u32) -> f32 + Copy) {
    assert!(dst.len().div_ceil(4) <= u32::MAX as usize, "more elements than counters");
    {
        let (chunks, tail) = dst.as_chunks_mut::<{ 4 * LANES }>();
        let mut first = 0u32;
        for chunk in chunks {
            fill_chunk(key, first, counter, chunk, f);
            first += LANES as u32;
        }
        if !tail.is_empty() {
            let mut chunk = [0.0; 4 * LANES];
            fill_chunk(key, first, counter, &mut chunk, f);
            tail.copy_from_slice(&chunk[..tail.len()]);
        }
    }
}

#[inline(always)]
fn fill_chunk(
    key: [u32; 2],
    first: u32,
    counter: [u32; 3],
    dst: &mut [f32; 4 * LANES],
    f: impl Fn(u32) -> f32 + Copy,
) {
    let [c1, c2, c3] = counter;
    // Generating and interleaving in one loop would keep the compiler from vectorising it.
    let mut words = [[0; LANES]; 4];
    for i in 0..LANES {
        let block = philox(key, [first.wrapping_add(i as u32), c1, c2, c3]);
        for (word, value) in words.iter_mut().zip(block) {
            word[i] = value;
        }
    }
    for (i, block) in dst.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *block = std::array::from_fn(|w| f(words[w][i]));
    }
}

/// One block of Philox 4x32-10.
///
/// Words sit in the low halves of 64-bit integers, with garbage above them between rounds: the
/// operand that vector multiplications take.
#[inline(always)]
fn philox([mut k0, mut k1]: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut w0, mut w1, mut w2, mut w3] = counter.map(u64::from);
    for _ in 0..10 {
        let p0 = (w0 & 0xFFFF_FFFF) * 0xD251_1F53;
        let p1 = (w2 & 0xFFFF_FFFF) * 0xCD9E_8D57;
        w0 = (p1 >> 32) ^ w1 ^ k0 as u64;
        w1 = p1;
        w2 = (p0 >> 32) ^ w3 ^ k1 as u64;
        w3 = p0;
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [w0 as u32, w1 as u32, w2 as u32, w3 as u32]
}

#[inline(always)]
fn to_unit(word: u32) -> f32 {
    // Through i32, which converts in one vector instruction; 24 bits are never negative.
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vectors() {
        // kat_vectors of the Random123 library, philox4x32 10.
        assert_eq!(philox([0; 2], [0; 4]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        let ones = u32::MAX;
        let want = [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd];
        assert_eq!(philox([ones; 2], [ones; 4]), want);
        let counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        let want = [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1];
        assert_eq!(philox([0xa4093822, 0x299f31d0], counter), want);
    }

    #[test]
    fn element_depends_on_its_position_alone() {
        let (key, base) = ([1, 2], [3, 4, 5]);
        let mut long = vec![0.0; 1003];
        uniform(key, base, &mut long);
        for n in [0, 1, 3, 4, 63, 64, 65, 130] {
            let mut short = vec![0.0; n];
            uniform(key, base, &mut short);
            assert_eq!(short, long[..n]);
        }
        for (i, &u) in long.iter().enumerate() {
            let word = philox(key, [i as u32 / 4, 3, 4, 5])[i % 4];
            assert_eq!(u, (word >> 8) as f32 / 16_777_216.0);
            assert!((0.0..1.0).contains(&u));
        }
    }

    #[test]
    fn mask_drops_where_uniform_is_below_p() {
        let mut u = vec![0.0; 10_001];
        let mut mask = u.clone();
        uniform([7, 8], [0; 3], &mut u);
        dropout_mask([7, 8], [0; 3], 0.25, &mut mask);
        for (&u, &m) in u.iter().zip(&mask) {
            assert_eq!(m, if u < 0.25 { 0.0 } else { 1.0 / 0.75 });
        }
        let mean = mask.iter().map(|&m| m as f64).sum::<f64>() / mask.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "mean {mean}");
    }
}
