//! Softmax and log-softmax over the last axis, and their gradients.

use super::math;
use super::reduce::{max, sum_by, sum_by2};
use multiversion::multiversion;

/// `dst[r, j] = e^(x[r, j] - m) / sum over k of e^(x[r, k] - m)`, `m` the row's maximum, for
/// `x [rows, n]`.
///
/// A row with a NaN, or with nothing but -infinity, becomes NaN.
#[multiversion(targets = "simd")]
pub fn softmax(dst: &mut [f32], x: &[f32], n: usize) {
    check(dst, &[x], n);
    for (d, x) in dst.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        let m = max(x);
        for (d, &x) in d.iter_mut().zip(x) {
            *d = math::exp(x - m);
        }
        let inverse = 1.0 / sum_by(d, |e| e);
        for d in d {
            *d *= inverse;
        }
    }
}

/// `dst = y (g - sum(y g))` per row: the gradient of [`softmax`] from its output `y` and the
/// output's gradient `g`, all `[rows, n]`.
#[multiversion(targets = "simd")]
pub fn softmax_grad(dst: &mut [f32], y: &[f32], g: &[f32], n: usize) {
    check(dst, &[y, g], n);
    let rows = dst.chunks_exact_mut(n).zip(y.chunks_exact(n)).zip(g.chunks_exact(n));
    for ((d, y), g) in rows {
        let dot = sum_by2(y, g, |y, g| y * g);
        for ((d, &y), &g) in d.iter_mut().zip(y).zip(g) {
            *d = y * (g - dot);
        }
    }
}

/// `dst[r, j] = x[r, j] - m - ln sum over k of e^(x[r, k] - m)`, `m` the row's maximum, for
/// `x [rows, n]`.
#[multiversion(targets = "simd")]
pub fn log_softmax(dst: &mut [f32], x: &[f32], n: usize) {
    check(dst, &[x], n);
    for (d, x) in dst.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        let m = max(x);
        for (d, &x) in d.iter_mut().zip(x) {
            *d = math::exp(x - m);
        }
        let log_sum = math::log(sum_by(d, |e| e));
        for (d, &x) in d.iter_mut().zip(x) {
            *d = (x - m) - log_sum;
        }
    }
}

/// `dst = g - e^y sum(g)` per row: the gradient of [`log_softmax`] from its output `y` and the
/// output's gradient `g`, all `[rows, n]`.
#[multiversion(targets = "simd")]
pub fn log_softmax_grad(dst: &mut [f32], y: &[f32], g: &[f32], n: usize) {
    check(dst, &[y, g], n);
    let rows = dst.chunks_exact_mut(n).zip(y.chunks_exact(n)).zip(g.chunks_exact(n));
    for ((d, y), g) in rows {
        let sum = sum_by(g, |g| g);
        for ((d, &y), &g) in d.iter_mut().zip(y).zip(g) {
            *d = g - math::exp(y) * sum;
        }
    }
}

fn check(dst: &[f32], inputs: &[&[f32]], n: usize) {
    assert!(n > 0 && dst.len().is_multiple_of(n), "output is not whole rows of {n}");
    assert!(inputs.iter().all(|x| x.len() == dst.len()), "slices differ in length");
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, values};
    use super::*;
    use proptest::prelude::*;

    fn softmax_f64(x: &[f32]) -> Vec<f64> {
        let m = x.iter().fold(f64::MIN, |m, &x| m.max(x as f64));
        let sum: f64 = x.iter().map(|&x| (x as f64 - m).exp()).sum();
        x.iter().map(|&x| (x as f64 - m).exp() / sum).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn match_the_definitions(rows in 1usize..5, n in 1usize..150, seed: u64) {
            let (x, g) = (values(rows * n, seed), values(rows * n, !seed));
            let mut y = vec![0.0; rows * n];
            let mut gx = y.clone();
            softmax(&mut y, &x, n);
            softmax_grad(&mut gx, &y, &g, n);
            let (mut log_y, mut log_gx) = (y.clone(), gx.clone());
            log_softmax(&mut log_y, &x, n);
            log_softmax_grad(&mut log_gx, &log_y, &g, n);
            for r in 0..rows {
                let at = r * n..(r + 1) * n;
                let p = softmax_f64(&x[at.clone()]);
                let g: Vec<f64> = g[at.clone()].iter().map(|&g| g as f64).collect();
                assert_close(&y[at.clone()], &p, 1e-6);
                let logs: Vec<f64> = p.iter().map(|p| p.ln()).collect();
                assert_close(&log_y[at.clone()], &logs, 1e-6);
                let dot: f64 = p.iter().zip(&g).map(|(p, g)| p * g).sum();
                let want: Vec<f64> = p.iter().zip(&g).map(|(p, g)| p * (g - dot)).collect();
                assert_close(&gx[at.clone()], &want, 2e-6);
                let sum: f64 = g.iter().sum();
                let want: Vec<f64> = p.iter().zip(&g).map(|(p, g)| g - p * sum).collect();
                assert_close(&log_gx[at], &want, 5e-6);
            }
        }
    }

    #[test]
    fn large_values_masks_and_nan() {
        let mut y = [0.0; 3];
        softmax(&mut y, &[1e30, 1e30, f32::NEG_INFINITY], 3);
        assert_eq!(y, [0.5, 0.5, 0.0]);
        for bad in [[1.0, f32::NAN, 2.0], [f32::NEG_INFINITY; 3]] {
            softmax(&mut y, &bad, 3);
            assert!(y.iter().all(|y| y.is_nan()));
            log_softmax(&mut y, &bad, 3);
            assert!(y.iter().all(|y| y.is_nan()));
        }
    }
}
