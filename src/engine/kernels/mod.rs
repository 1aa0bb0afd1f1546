//! CPU kernels: single-threaded functions on `f32` slices that the caller allocates.
//!
//! Unless a kernel says otherwise, slices are contiguous and row-major, the output comes first,
//! and a slice whose length does not fit the stated shape panics. Every sum runs in a fixed order
//! that depends on the shape alone, so the same inputs give the same bits on every run. Outside
//! `matmul` that also holds across instruction sets: lanes are counted in elements, not registers,
//! and only explicit `mul_add`s fuse.
//!
//! The crate is built for the baseline target, so every loop sits in a `multiversion` function,
//! compiled once per instruction set and chosen at run time. Only what is inlined into it benefits,
//! hence `#[inline(always)]` on every helper, and `for` loops rather than closures: a large closure
//! left out costs a factor of 40. Without fused multiply-add (x86 before 2013), the same bits come
//! from the slow library `fmaf`.

mod binary;
mod embedding;
mod layout;
mod math;
mod matmul;
mod norm;
mod optim;
mod permute;
mod random;
mod reduce;
mod softmax;
mod unary;

pub use binary::{Binary, add_assign, binary, binary_assign, scale};
pub use embedding::{gather_rows, scatter_add_rows};
pub use layout::{MAX_DIMS, StridedView};
pub use matmul::{MatMut, MatRef, matmul};
pub use norm::{layer_norm, layer_norm_grad_gamma, layer_norm_grad_x};
pub use optim::{AdamW, Momentum, Sgd, Step, adamw, sgd, sgd_momentum};
pub use permute::copy;
pub use random::{bernoulli, dropout_mask, normal, uniform};
pub use reduce::{sum_axis, sum_of_squares};
pub use softmax::{log_softmax, log_softmax_grad, softmax, softmax_grad};
pub use unary::{Unary, UnaryGrad, unary, unary_assign, unary_grad};

/// What a kernel does with the value already in its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Replaces it; the old value is never read.
    Set,
    /// Adds to it.
    Add,
}

#[cfg(test)]
mod testing {
    //! Reproducible inputs and comparisons for the kernels' tests.

    /// `n` values in `[-4, 4)` from a linear congruential generator.
    pub fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 21) as f32 - 4.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Panics unless every element is within `tol * (1 + |want|)` of the reference.
    #[track_caller]
    pub fn assert_close(got: &[f32], want: &[f64], tol: f64) {
        assert_eq!(got.len(), want.len());
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (g as f64 - w).abs();
            assert!(error <= tol * (1.0 + w.abs()), "element {i}: got {g}, want {w}");
        }
    }

    /// Distance of `got` from `want` in units of the last place of `want` as `f32`.
    pub fn ulps(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && rounded.is_nan()) {
            return 0.0;
        }
        let exponent = (want.abs().max(f32::MIN_POSITIVE as f64)).log2().floor();
        (got as f64 - want).abs() / (exponent - 23.0).exp2()
    }

    /// One in 3989 of all bit patterns: every exponent, both signs, NaNs, and the special values.
    pub fn all_floats() -> impl Iterator<Item = f32> {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-45, -1e-45];
        (0..=u32::MAX).step_by(3989).map(f32::from_bits).chain(special)
    }
}
