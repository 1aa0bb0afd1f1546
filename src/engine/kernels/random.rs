//! Random numbers by position: Philox 4x32-10, the same on every device.
//!
//! Element `i` of a fill depends on nothing but the key, the counter's base and `i`: it is word
//! `i % 4` of the block with counter `[i / 4, base[0], base[1], base[2]]`. Generator: Salmon et
//! al., "Parallel random numbers: as easy as 1, 2, 3", SC'11.

use multiversion::multiversion;

/// Blocks computed side by side.
const LANES: usize = 32;

/// Fills with uniform values in `[low, high)`, from those in `[0, 1)` that are the top 24 bits of
/// each word times `2^-24`.
pub fn uniform(key: [u32; 2], counter: [u32; 3], [low, high]: [f32; 2], dst: &mut [f32]) {
    let width = high - low;
    fill(
        key,
        counter,
        dst,
        #[inline(always)]
        |word| low + width * to_unit(word),
    );
}

/// Fills with 0 with probability `p` and 1 otherwise: the elements that [`dropout_mask`] drops and
/// keeps.
pub fn bernoulli(key: [u32; 2], counter: [u32; 3], p: f32, dst: &mut [f32]) {
    fill(
        key,
        counter,
        dst,
        #[inline(always)]
        |word| if to_unit(word) < p { 0.0 } else { 1.0 },
    );
}

/// Fills with normal values: the inverse distribution function at the middle of the `2^-24` that a
/// word's top 24 bits name.
pub fn normal(key: [u32; 2], counter: [u32; 3], [mean, deviation]: [f32; 2], dst: &mut [f32]) {
    fill(
        key,
        counter,
        dst,
        #[inline(always)]
        |word| mean + deviation * to_normal(word),
    );
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

/// `sqrt(2) erfinv(u)` for an odd multiple `u` of `2^-24` in `(-1, 1)`, by the single precision
/// polynomials of Giles 2012, "Approximating the erfinv function", table 5.
#[inline(always)]
fn to_normal(word: u32) -> f32 {
    let odd = 2 * (word >> 8) as i32 + 1 - (1 << 24);
    let u = odd as f32 * (1.0 / 16_777_216.0);
    let w = -((1.0 - u) * (1.0 + u)).ln();
    let horner = |w: f32, terms: [f32; 9]| terms.into_iter().fold(0.0, |sum, term| sum * w + term);
    let ratio = if w < 5.0 { horner(w - 2.5, CENTRE) } else { horner(w.sqrt() - 3.0, TAIL) };
    std::f32::consts::SQRT_2 * ratio * u
}

/// Highest power first.
const CENTRE: [f32; 9] = [
    2.810_226_4e-8,
    3.432_739_4e-7,
    -3.523_387_7e-6,
    -4.391_506_5e-6,
    0.000_218_580_87,
    -0.001_253_725,
    -0.004_177_681_6,
    0.246_640_73,
    1.501_409_4,
];

/// Highest power first.
const TAIL: [f32; 9] = [
    -0.000_200_214_26,
    0.000_100_950_56,
    0.001_349_343_2,
    -0.003_673_428_4,
    0.005_739_507_7,
    -0.007_622_461_3,
    0.009_438_870_5,
    1.001_674,
    2.832_976_8,
];

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
        uniform(key, base, [0.0, 1.0], &mut long);
        for n in [0, 1, 3, 4, 63, 64, 65, 130] {
            let mut short = vec![0.0; n];
            uniform(key, base, [0.0, 1.0], &mut short);
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
        uniform([7, 8], [0; 3], [0.0, 1.0], &mut u);
        dropout_mask([7, 8], [0; 3], 0.25, &mut mask);
        for (&u, &m) in u.iter().zip(&mask) {
            assert_eq!(m, if u < 0.25 { 0.0 } else { 1.0 / 0.75 });
        }
        let mean = mask.iter().map(|&m| m as f64).sum::<f64>() / mask.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "mean {mean}");
    }

    #[test]
    fn normal_values_have_their_mean_deviation_and_tails() {
        let mut values = vec![0.0; 100_000];
        normal([7, 8], [0; 3], [3.0, 2.0], &mut values);
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = |x: &f32| (f64::from(*x) - mean).powi(2);
        let deviation = (values.iter().map(square).sum::<f64>() / n).sqrt();
        assert!((mean - 3.0).abs() < 0.03, "mean {mean}");
        assert!((deviation - 2.0).abs() < 0.03, "deviation {deviation}");
        // The share beyond k deviations is erfc(k / sqrt(2)).
        for (k, expected) in [(1.0, 0.317_31), (2.0, 0.045_50), (3.0, 0.002_70)] {
            let beyond = values.iter().filter(|&&x| (f64::from(x) - 3.0).abs() > 2.0 * k).count();
            let share = beyond as f64 / n;
            assert!((share - expected).abs() < 0.15 * expected + 0.002, "{k}: {share}");
        }
        assert!(values.iter().all(|x| x.is_finite()));
        assert!(to_normal(0).is_finite() && to_normal(u32::MAX) == -to_normal(0));
    }
}
