//! Elementwise functions of one tensor and their gradients.

use super::math;
use multiversion::multiversion;

/// A function applied to every element; NaN stays NaN in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `e^x`, 1.1 ulp.
    Exp,
    /// `ln x`, 1 ulp.
    Log,
    /// `tanh x`, 1.5 ulp.
    Tanh,
    /// `1 / (1 + e^-x)`, 2.5 ulp, 0 below -88.7.
    Sigmoid,
    /// `x (1 + erf(x / sqrt 2)) / 2`, absolute error `1.5e-7 max(1, |x|)`; NaN at -infinity, as in
    /// Burn.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `-x`.
    Neg,
    /// The square root, correctly rounded.
    Sqrt,
    /// `1 / x`, correctly rounded.
    Reciprocal,
    /// `|x|`.
    Abs,
}

/// The gradient of a [`Unary`], given what the forward pass kept and the output's gradient `g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryGrad {
    /// Of [`Unary::Gelu`] from its input: `g (cdf(x) + x pdf(x))` of the standard normal
    /// distribution, absolute error `2.5e-7 |g|`.
    Gelu,
    /// Of [`Unary::Relu`] from its input or output: `g` where it is above 0 or NaN, else 0.
    Relu,
    /// Of [`Unary::Sigmoid`] from its output: `g y (1 - y)`.
    Sigmoid,
    /// Of [`Unary::Tanh`] from its output: `g (1 - y y)`.
    Tanh,
}

/// `dst = op(x)`, elementwise.
#[multiversion(targets = "simd")]
pub fn unary(op: Unary, dst: &mut [f32], x: &[f32]) {
    assert_eq!(dst.len(), x.len(), "output and input differ in length");
    macro_rules! map {
        ($f:expr) => {
            for (d, &x) in dst.iter_mut().zip(x) {
                *d = $f(x);
            }
        };
    }
    for_each_unary!(op, map);
}

/// `dst = op(dst)`, elementwise.
#[multiversion(targets = "simd")]
pub fn unary_assign(op: Unary, dst: &mut [f32]) {
    macro_rules! map {
        ($f:expr) => {
            for d in dst.iter_mut() {
                *d = $f(*d);
            }
        };
    }
    for_each_unary!(op, map);
}

/// `dst = op'(kept) g`, elementwise; [`UnaryGrad`] says what `kept` is.
#[multiversion(targets = "simd")]
pub fn unary_grad(op: UnaryGrad, dst: &mut [f32], kept: &[f32], g: &[f32]) {
    assert!(dst.len() == kept.len() && dst.len() == g.len(), "slices differ in length");
    macro_rules! map {
        ($f:expr) => {
            for ((d, &k), &g) in dst.iter_mut().zip(kept).zip(g) {
                *d = $f(k, g);
            }
        };
    }
    match op {
        UnaryGrad::Gelu => map!(gelu_grad),
        UnaryGrad::Relu => map!(relu_grad),
        UnaryGrad::Sigmoid => map!(sigmoid_grad),
        UnaryGrad::Tanh => map!(tanh_grad),
    }
}

/// Expands `$map!(function)` for the chosen operation: one loop per operation, no branch inside.
macro_rules! for_each_unary {
    ($op:expr, $map:ident) => {
        match $op {
            Unary::Exp => $map!(math::exp),
            Unary::Log => $map!(math::log),
            Unary::Tanh => $map!(math::tanh),
            Unary::Sigmoid => $map!(math::sigmoid),
            Unary::Gelu => $map!(gelu),
            Unary::Relu => $map!(relu),
            Unary::Neg => $map!(std::ops::Neg::neg),
            Unary::Sqrt => $map!(f32::sqrt),
            Unary::Reciprocal => $map!(f32::recip),
            Unary::Abs => $map!(f32::abs),
        }
    };
}
use for_each_unary;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * math::normal(x).1
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn gelu_grad(x: f32, g: f32) -> f32 {
    let (pdf, cdf) = math::normal(x);
    g * (cdf + x * pdf)
}

#[inline(always)]
fn relu_grad(x: f32, g: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { g }
}

#[inline(always)]
fn sigmoid_grad(y: f32, g: f32) -> f32 {
    g * y * (1.0 - y)
}

#[inline(always)]
fn tanh_grad(y: f32, g: f32) -> f32 {
    g * (1.0 - y * y)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all_floats, assert_close, values};
    use super::*;
    use proptest::prelude::*;

    const ALL: [Unary; 10] = [
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Gelu,
        Unary::Relu,
        Unary::Neg,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Abs,
    ];

    const GRADS: [UnaryGrad; 4] =
        [UnaryGrad::Gelu, UnaryGrad::Relu, UnaryGrad::Sigmoid, UnaryGrad::Tanh];

    fn cdf(x: f64) -> f64 {
        0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
    }

    fn reference(op: Unary, x: f64) -> f64 {
        match op {
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Gelu => x * cdf(x),
            Unary::Relu => {
                if x > 0.0 {
                    x
                } else {
                    0.0
                }
            }
            Unary::Neg => -x,
            Unary::Sqrt => x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Abs => x.abs(),
        }
    }

    fn grad_reference(op: UnaryGrad, kept: f64, g: f64) -> f64 {
        let pdf = (-0.5 * kept * kept).exp() / (2.0 * std::f64::consts::PI).sqrt();
        match op {
            UnaryGrad::Gelu => g * (cdf(kept) + kept * pdf),
            UnaryGrad::Relu => {
                if kept > 0.0 {
                    g
                } else {
                    0.0
                }
            }
            UnaryGrad::Sigmoid => g * kept * (1.0 - kept),
            UnaryGrad::Tanh => g * (1.0 - kept * kept),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn match_the_formulas_at_every_length(n in 0usize..100, seed: u64) {
            let (x, g) = (values(n, seed), values(n, !seed));
            let mut dst = vec![0.0; n];
            for op in ALL {
                // Log and sqrt are for positive numbers.
                let positive = matches!(op, Unary::Log | Unary::Sqrt);
                let x = x.iter().map(|&x| if positive { x.abs() } else { x });
                let x: Vec<f32> = x.collect();
                let want: Vec<f64> = x.iter().map(|&x| reference(op, x as f64)).collect();
                unary(op, &mut dst, &x);
                assert_close(&dst, &want, 3e-7);
                let mut same = x.clone();
                unary_assign(op, &mut same);
                assert_eq!(same, dst, "{op:?} in place");
            }
            for op in GRADS {
                let pairs = x.iter().zip(&g);
                let want = pairs.map(|(&x, &g)| grad_reference(op, x as f64, g as f64));
                let want: Vec<f64> = want.collect();
                unary_grad(op, &mut dst, &x, &g);
                assert_close(&dst, &want, 1.5e-6);
            }
        }
    }

    #[test]
    fn gelu_and_its_gradient_stay_within_the_stated_bounds() {
        let x: Vec<f32> = all_floats().filter(|x| x.is_finite() && x.abs() < 1e18).collect();
        let (mut y, mut gx) = (x.clone(), x.clone());
        unary(Unary::Gelu, &mut y, &x);
        unary_grad(UnaryGrad::Gelu, &mut gx, &x, &vec![1.0; x.len()]);
        let (mut worst, mut worst_grad) = (0.0f64, 0.0f64);
        for i in 0..x.len() {
            let exact = x[i] as f64;
            let error = (y[i] as f64 - reference(Unary::Gelu, exact)).abs();
            worst = worst.max(error / exact.abs().max(1.0));
            let error = (gx[i] as f64 - grad_reference(UnaryGrad::Gelu, exact, 1.0)).abs();
            worst_grad = worst_grad.max(error);
        }
        println!("gelu {worst:e}, gradient {worst_grad:e}");
        assert!(worst <= 1.5e-7 && worst_grad <= 2.5e-7, "{worst:e} {worst_grad:e}");
    }

    #[test]
    fn vector_code_gives_the_bits_of_baseline_code() {
        let x: Vec<f32> = all_floats().collect();
        let mut y = x.clone();
        let functions = [
            (Unary::Exp, math::exp as fn(f32) -> f32),
            (Unary::Log, math::log),
            (Unary::Tanh, math::tanh),
            (Unary::Sigmoid, math::sigmoid),
            (Unary::Gelu, gelu),
        ];
        for (op, f) in functions {
            unary(op, &mut y, &x);
            for (&x, &y) in x.iter().zip(&y) {
                let want = f(x);
                assert!(y.to_bits() == want.to_bits() || y.is_nan() && want.is_nan(), "{op:?} {x}");
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        for op in ALL {
            let mut dst = [f32::NAN; 9];
            unary_assign(op, &mut dst);
            assert!(dst.iter().all(|x| x.is_nan()), "{op:?}");
        }
        for op in GRADS {
            let mut dst = [0.0; 9];
            unary_grad(op, &mut dst, &[1.0; 9], &[f32::NAN; 9]);
            assert!(dst.iter().all(|x| x.is_nan()), "{op:?}");
        }
    }
}
