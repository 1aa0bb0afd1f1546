//! Sums along an axis and maxima of a row, in a fixed order.

use super::{WriteMode, math};
use multiversion::multiversion;

/// Elements summed side by side: a multiple of every register width, so that all instruction sets
/// give the same bits. With more, the compiler keeps the lanes in memory.
const LANES: usize = 16;

/// Elements per block: `f32` lanes within a block, `f64` across blocks.
const BLOCK: usize = 4096;

/// Columns summed in registers at a time, and rows per partial sum.
const TILE_COLS: usize = 64;
const TILE_ROWS: usize = 64;

/// `dst[o, i] = sum over j of x[o, j, i]`, for `x [outer, n, inner]` and `dst [outer, inner]`.
///
/// `inner = 1` sums the last axis and `outer = 1` the leading ones (a bias gradient). The error
/// stays below about `n / 16` (`inner = 1`, at most 256) or 64 + `n / 64` roundings of the sum of
/// absolute values.
#[multiversion(targets = "simd")]
pub fn sum_axis(dst: &mut [f32], x: &[f32], [outer, n, inner]: [usize; 3], write: WriteMode) {
    assert_eq!(dst.len(), outer * inner, "output does not fit the shape");
    assert_eq!(x.len(), outer * n * inner, "input does not fit the shape");
    if n * inner == 0 {
        if write == WriteMode::Set {
            dst.fill(0.0);
        }
        return;
    }
    if inner == 1 {
        for (d, row) in dst.iter_mut().zip(x.chunks_exact(n)) {
            store(d, sum_by(row, |x| x), write);
        }
    } else {
        for (d, x) in dst.chunks_exact_mut(inner).zip(x.chunks_exact(n * inner)) {
            sum_columns(d, x, write);
        }
    }
}

/// The square of the norm of a slice: squares and sums of up to 4096 of them in `f32`, sums of
/// those in `f64`.
#[multiversion(targets = "simd")]
pub fn sum_of_squares(x: &[f32]) -> f64 {
    wide_sum_by2(x, x, |x, y| x * y)
}

/// The maximum of a slice, -infinity if it is empty, NaN if it has one.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = math::max(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane = math::max(*lane, x);
    }
    fold(lanes, math::max)
}

/// The sum of `f(x)` over a slice.
#[inline(always)]
pub(super) fn sum_by(x: &[f32], f: impl Fn(f32) -> f32 + Copy) -> f32 {
    sum_by2(x, x, |x, _| f(x))
}

/// The sum of `f(x, y)` over two slices of one length.
#[inline(always)]
pub(super) fn sum_by2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    wide_sum_by2(x, y, f) as f32
}

#[inline(always)]
fn wide_sum_by2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Copy) -> f64 {
    let mut total = 0.0f64;
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        let mut lanes = [0.0; LANES];
        let (x_chunks, x_tail) = x.as_chunks::<LANES>();
        let (y_chunks, y_tail) = y.as_chunks::<LANES>();
        for (x, y) in x_chunks.iter().zip(y_chunks) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += f(x, y);
            }
        }
        for ((lane, &x), &y) in lanes.iter_mut().zip(x_tail).zip(y_tail) {
            *lane += f(x, y);
        }
        total += fold(lanes, |a, b| a + b) as f64;
    }
    total
}

/// Adds to or replaces one output element.
#[inline(always)]
fn store(dst: &mut f32, value: f32, write: WriteMode) {
    *dst = if write == WriteMode::Add { *dst + value } else { value };
}

/// Halves the lanes until one is left.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Column sums of `x [n, dst.len()]`.
#[inline(always)]
fn sum_columns(dst: &mut [f32], x: &[f32], write: WriteMode) {
    let cols = dst.len();
    let (tiles, tail) = dst.as_chunks_mut::<TILE_COLS>();
    let whole = tiles.len() * TILE_COLS;
    for (tile, start) in tiles.iter_mut().zip((0..whole).step_by(TILE_COLS)) {
        sum_tile(tile, x, cols, start, write);
    }
    sum_tile(tail, x, cols, whole, write);
}

/// Column sums of the `dst.len() <= TILE_COLS` columns from `start` on.
#[inline(always)]
fn sum_tile(dst: &mut [f32], x: &[f32], cols: usize, start: usize, write: WriteMode) {
    let width = dst.len();
    let mut total = [0.0; TILE_COLS];
    for block in x.chunks(TILE_ROWS * cols) {
        let mut partial = [0.0; TILE_COLS];
        for row in block.chunks_exact(cols) {
            for (p, &x) in partial.iter_mut().zip(&row[start..start + width]) {
                *p += x;
            }
        }
        for (t, p) in total.iter_mut().zip(partial) {
            *t += p;
        }
    }
    for (d, t) in dst.iter_mut().zip(total) {
        store(d, t, write);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, values};
    use super::*;
    use proptest::prelude::*;

    fn sums(x: &[f32], [outer, n, inner]: [usize; 3]) -> Vec<f64> {
        let sum = |o: usize, i: usize| (0..n).map(|j| x[(o * n + j) * inner + i] as f64).sum();
        (0..outer * inner).map(|at| sum(at / inner, at % inner)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sums_match_a_scalar_loop(
            outer in 0usize..4, n in 1usize..150, inner in 1usize..140, last: bool,
        ) {
            let shape = [outer, n, if last { 1 } else { inner }];
            let x = values(shape.iter().product(), 1);
            let want = sums(&x, shape);
            let mut dst = vec![f32::NAN; want.len()];
            sum_axis(&mut dst, &x, shape, WriteMode::Set);
            assert_close(&dst, &want, 1e-4);
            sum_axis(&mut dst, &x, shape, WriteMode::Add);
            assert_close(&dst, &want.iter().map(|w| 2.0 * w).collect::<Vec<_>>(), 2e-4);
        }
    }

    #[test]
    fn a_long_sum_is_accurate() {
        let n = 1_000_003;
        let x: Vec<f32> = values(n, 1).iter().map(|x| x.abs()).collect();
        let want = x.iter().map(|&x| x as f64).sum::<f64>();
        let mut dst = [0.0];
        sum_axis(&mut dst, &x, [1, n, 1], WriteMode::Set);
        assert!((dst[0] as f64 / want - 1.0).abs() < 2e-7);
        let mut dst = [0.0; 3];
        sum_axis(&mut dst, &x[..999_999], [1, 333_333, 3], WriteMode::Set);
        let total = dst.iter().map(|&x| x as f64).sum::<f64>();
        let want = x[..999_999].iter().map(|&x| x as f64).sum::<f64>();
        assert!((total / want - 1.0).abs() < 2e-5);
    }

    #[test]
    fn the_sum_of_nothing_is_zero() {
        let mut dst = [5.0; 2];
        sum_axis(&mut dst, &[], [2, 0, 1], WriteMode::Add);
        assert_eq!(dst, [5.0; 2]);
        sum_axis(&mut dst, &[], [2, 0, 1], WriteMode::Set);
        assert_eq!(dst, [0.0; 2]);
    }

    #[test]
    fn a_nan_anywhere_is_the_maximum() {
        for at in [0, 40, 65] {
            let mut x = vec![1.0; 66];
            x[at] = f32::NAN;
            assert!(max(&x).is_nan());
        }
    }
}
