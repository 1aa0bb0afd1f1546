//! Layer normalisation over the last axis and its gradients.
//!
//! The gradients recompute each row's mean and deviation from `x` rather than keep them.

use super::WriteMode;
use super::reduce::{sum_by, sum_by2};
use multiversion::multiversion;

/// Rows and columns that [`layer_norm_grad_gamma`] sums at a time.
const TILE: usize = 64;

/// `dst = (x - mean) / sqrt(var + eps) * gamma + beta` per row of `x [rows, n]`, with the biased
/// variance, for `gamma [n]` and `beta [n]` (zero if absent).
#[multiversion(targets = "simd")]
pub fn layer_norm(dst: &mut [f32], x: &[f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32) {
    let n = gamma.len();
    check(dst.len(), &[x], n);
    assert!(beta.is_none_or(|b| b.len() == n), "beta and gamma differ in length");
    for (d, x) in dst.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        let (mean, inverse) = stats(x, eps);
        let affine = d.iter_mut().zip(x).zip(gamma);
        if let Some(beta) = beta {
            for (((d, &x), &g), &b) in affine.zip(beta) {
                *d = (x - mean) * (inverse * g) + b;
            }
        } else {
            for ((d, &x), &g) in affine {
                *d = (x - mean) * (inverse * g);
            }
        }
    }
}

/// The gradient of [`layer_norm`] by `x`, from `x` and the output's gradient `gy`, all `[rows, n]`.
///
/// With `h = (x - mean) r`, `r = 1 / sqrt(var + eps)` and `p = gy gamma`, each row is
/// `dst = r (p - mean(p) - h mean(p h))`.
#[multiversion(targets = "simd")]
pub fn layer_norm_grad_x(dst: &mut [f32], x: &[f32], gamma: &[f32], gy: &[f32], eps: f32) {
    let n = gamma.len();
    check(dst.len(), &[x, gy], n);
    let rows = dst.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(gy.chunks_exact(n));
    for ((d, x), gy) in rows {
        let (mean, inverse) = stats(x, eps);
        for ((d, &g), &gamma) in d.iter_mut().zip(gy).zip(gamma) {
            *d = g * gamma;
        }
        let mean_p = sum_by(d, |p| p) / n as f32;
        let mean_ph = sum_by2(d, x, |p, x| p * ((x - mean) * inverse)) / n as f32;
        for (d, &x) in d.iter_mut().zip(x) {
            let h = (x - mean) * inverse;
            *d = inverse * (*d - mean_p - h * mean_ph);
        }
    }
}

/// The gradient of [`layer_norm`] by `gamma`: `dst[j] = sum over r of gy[r, j] h[r, j]`, `h` as in
/// [`layer_norm_grad_x`], for `x` and `gy [rows, n]` and `dst [n]`.
///
/// The gradient by `beta` is the column sum of `gy`: `sum_axis` with `outer = 1`.
#[multiversion(targets = "simd")]
pub fn layer_norm_grad_gamma(dst: &mut [f32], x: &[f32], gy: &[f32], eps: f32, write: WriteMode) {
    let n = dst.len();
    check(x.len(), &[gy], n);
    if write == WriteMode::Set {
        dst.fill(0.0);
    }
    for (x, gy) in x.chunks(TILE * n).zip(gy.chunks(TILE * n)) {
        let mut row_stats = [(0.0, 0.0); TILE];
        for (s, x) in row_stats.iter_mut().zip(x.chunks_exact(n)) {
            *s = stats(x, eps);
        }
        let (tiles, tail) = dst.as_chunks_mut::<TILE>();
        let whole = tiles.len() * TILE;
        for (tile, start) in tiles.iter_mut().zip((0..whole).step_by(TILE)) {
            add_tile(tile, x, gy, n, start, &row_stats);
        }
        add_tile(tail, x, gy, n, whole, &row_stats);
    }
}

/// Adds the `gamma` gradient of up to `TILE` rows to the columns from `start` on.
#[inline(always)]
fn add_tile(
    dst: &mut [f32],
    x: &[f32],
    gy: &[f32],
    n: usize,
    start: usize,
    row_stats: &[(f32, f32); TILE],
) {
    let at = start..start + dst.len();
    let mut sums = [0.0; TILE];
    for ((x, gy), &(mean, inverse)) in x.chunks_exact(n).zip(gy.chunks_exact(n)).zip(row_stats) {
        let row = sums.iter_mut().zip(&x[at.clone()]).zip(&gy[at.clone()]);
        for ((s, &x), &g) in row {
            *s += g * ((x - mean) * inverse);
        }
    }
    for (d, s) in dst.iter_mut().zip(sums) {
        *d += s;
    }
}

/// A row's mean and `1 / sqrt(var + eps)`, by two passes over the cached row.
#[inline(always)]
fn stats(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_by(x, |x| x) / n;
    let variance = sum_by(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

fn check(len: usize, inputs: &[&[f32]], n: usize) {
    assert!(n > 0 && len.is_multiple_of(n), "tensor is not whole rows of {n}");
    assert!(inputs.iter().all(|x| x.len() == len), "slices differ in length");
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, values};
    use super::*;
    use proptest::prelude::*;

    const EPS: f32 = 1e-5;

    /// `(x - mean) / sqrt(var + eps)` and `1 / sqrt(var + eps)` of one row.
    fn normalized(x: &[f32]) -> (Vec<f64>, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| x as f64).sum::<f64>() / n;
        let var = x.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n;
        let inverse = 1.0 / (var + EPS as f64).sqrt();
        (x.iter().map(|&x| (x as f64 - mean) * inverse).collect(), inverse)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn match_the_formulas(rows in 1usize..70, n in 2usize..150) {
            let (x, gy) = (values(rows * n, 1), values(rows * n, 2));
            let (gamma, beta) = (values(n, 3), values(n, 4));
            let mut y = vec![0.0; rows * n];
            let (mut plain, mut gx, mut g_gamma) = (y.clone(), y.clone(), vec![f32::NAN; n]);
            layer_norm(&mut y, &x, &gamma, Some(&beta), EPS);
            layer_norm(&mut plain, &x, &gamma, None, EPS);
            layer_norm_grad_x(&mut gx, &x, &gamma, &gy, EPS);
            layer_norm_grad_gamma(&mut g_gamma, &x, &gy, EPS, WriteMode::Set);
            let mut want_gamma = vec![0.0; n];
            for r in 0..rows {
                let at = r * n..(r + 1) * n;
                let (h, inverse) = normalized(&x[at.clone()]);
                let scaled: Vec<f64> = (0..n).map(|j| h[j] * gamma[j] as f64).collect();
                assert_close(&plain[at.clone()], &scaled, 2e-5);
                let want: Vec<f64> = (0..n).map(|j| scaled[j] + beta[j] as f64).collect();
                assert_close(&y[at.clone()], &want, 2e-5);
                let p: Vec<f64> = (0..n).map(|j| (gy[r * n + j] * gamma[j]) as f64).collect();
                let mean_p = p.iter().sum::<f64>() / n as f64;
                let mean_ph = p.iter().zip(&h).map(|(p, h)| p * h).sum::<f64>() / n as f64;
                let grad = |j: usize| inverse * (p[j] - mean_p - h[j] * mean_ph);
                let scale = inverse.max(1.0) * 16.0;
                let got: Vec<f32> = gx[at].iter().map(|&g| g / scale as f32).collect();
                assert_close(&got, &(0..n).map(|j| grad(j) / scale).collect::<Vec<_>>(), 1e-5);
                for (j, w) in want_gamma.iter_mut().enumerate() {
                    *w += gy[r * n + j] as f64 * h[j];
                }
            }
            assert_close(&g_gamma, &want_gamma, 1e-4);
            layer_norm_grad_gamma(&mut g_gamma, &x, &gy, EPS, WriteMode::Add);
            assert_close(&g_gamma, &want_gamma.iter().map(|w| 2.0 * w).collect::<Vec<_>>(), 2e-4);
        }
    }

    #[test]
    fn a_constant_row_gives_beta_and_a_nan_row_nan() {
        let mut y = [0.0; 6];
        let x = [3.0, 3.0, 3.0, f32::NAN, 1.0, 2.0];
        layer_norm(&mut y, &x, &[2.0; 3], Some(&[1.0, 2.0, 3.0]), EPS);
        assert_eq!(y[..3], [1.0, 2.0, 3.0]);
        assert!(y[3..].iter().all(|y| y.is_nan()));
    }
}
