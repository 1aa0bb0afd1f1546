//! Branch-free scalar transcendental functions that vectorise when inlined into a loop.
//!
//! Errors are in units in the last place (ulp) of the correctly rounded result, measured by the
//! tests below over the whole `f32` range. All of them return NaN for NaN.

/// `e^x`, at most 1.1 ulp; denormal results included, 0 and infinity where they round so.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these bounds the result is 0 or infinity. Comparisons, unlike `clamp` and `min`,
    // keep NaN and compile to one instruction each.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits: no SSE4 rounding needed.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    // ln 2 in two parts, the first short enough for an exact product.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    // Two factors: 2^exponent itself may be denormal or overflow while the result does not.
    let half = exponent >> 1;
    p * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// `ln x`, at most 1 ulp; -infinity at 0, NaN below.
#[inline(always)]
pub(super) fn log(x: f32) -> f32 {
    let denormal = x < f32::MIN_POSITIVE;
    let scaled = if denormal { x * 8_388_608.0 } else { x };
    // Moves the mantissa to [sqrt(1/2), sqrt(2)) so that the exponent is that of the rounding.
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let bits = scaled.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits as i32) >> 23;
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let e = exponent as f32 - if denormal { 23.0 } else { 0.0 };
    let z = f * f;
    let p = 7.037_683_6e-2f32;
    let p = p.mul_add(f, -1.151_461e-1);
    let p = p.mul_add(f, 1.167_699_9e-1);
    let p = p.mul_add(f, -1.242_014_1e-1);
    let p = p.mul_add(f, 1.424_932_3e-1);
    let p = p.mul_add(f, -1.666_805_7e-1);
    let p = p.mul_add(f, 2.000_071_5e-1);
    let p = p.mul_add(f, -2.499_999_4e-1);
    let p = p.mul_add(f, 3.333_333e-1);
    let low = e.mul_add(-2.121_944_4e-4, p * f * z);
    let low = z.mul_add(-0.5, low);
    let y = e.mul_add(0.693_359_4, f + low);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// `tanh x`, at most 1.5 ulp.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = -5.704_988_7e-3f32;
    let p = p.mul_add(z, 2.063_909e-2);
    let p = p.mul_add(z, -5.373_971_6e-2);
    let p = p.mul_add(z, 1.333_144_2e-1);
    let p = p.mul_add(z, -3.333_328e-1);
    let near = (p * z).mul_add(a, a);
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    let y = if a < 0.625 { near } else { far };
    y.copysign(x)
}

/// `1 / (1 + e^-x)`, at most 2.5 ulp; 0 where `e^-x` overflows (below -88.7).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Density and cumulative probability of the standard normal distribution, absolute errors at most
/// 5e-8 and 2e-7. Unlike `(1 + erf(x / sqrt 2)) / 2`, the latter does not cancel at negative `x`.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let e = exp(-0.5 * x * x);
    // P(X > |x|) = e p(u), with p fitted to 1e-8 over all of x >= 0.
    let u = 1.0 / x.abs().mul_add(0.35, 1.0);
    let p = -2.566_409_5e-2f32;
    let p = p.mul_add(u, 1.276_366_1e-1);
    let p = p.mul_add(u, -2.236_158_7e-1);
    let p = p.mul_add(u, 1.249_55e-1);
    let p = p.mul_add(u, -1.694_361_4e-3);
    let p = p.mul_add(u, 9.756_19e-2);
    let p = p.mul_add(u, 1.215_112_9e-1);
    let p = p.mul_add(u, 1.396_805_5e-1);
    let p = p.mul_add(u, 1.396_289_8e-1);
    let tail = e * (p * u);
    (INV_SQRT_2PI * e, if x < 0.0 { tail } else { 1.0 - tail })
}

/// The larger of two values; NaN if either is.
#[inline(always)]
pub(super) fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// `2^n` for `n` in `-126..=127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all_floats, ulps};
    use super::*;

    fn worst(f: fn(f32) -> f32, reference: fn(f64) -> f64, skip: fn(f32) -> bool) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for x in all_floats().filter(|&x| !skip(x)) {
            let (got, want) = (f(x), reference(x as f64));
            assert_eq!(got.is_nan(), want.is_nan(), "at {x:e}: {got} for {want}");
            let error = ulps(got, want);
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    #[test]
    fn errors_stay_within_the_stated_bounds() {
        let sigmoid_reference = |x: f64| 1.0 / (1.0 + (-x).exp());
        let none: fn(f32) -> bool = |_| false;
        for (name, bound, (error, at)) in [
            ("exp", 1.1, worst(exp, f64::exp, none)),
            ("log", 1.0, worst(log, f64::ln, none)),
            ("tanh", 1.5, worst(tanh, f64::tanh, none)),
            ("sigmoid", 2.5, worst(sigmoid, sigmoid_reference, |x| x < -88.7)),
        ] {
            println!("{name}: {error} ulp at {at:e}");
            assert!(error <= bound, "{name}: {error} ulp at {at:e}");
        }
    }

    #[test]
    fn normal_stays_within_the_stated_bounds() {
        let (mut worst_pdf, mut worst_cdf) = (0.0f64, 0.0f64);
        for x in all_floats().filter(|x| !x.is_nan()) {
            let (pdf, cdf) = normal(x);
            let x = x as f64;
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let probability = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
            worst_pdf = worst_pdf.max((pdf as f64 - density).abs());
            worst_cdf = worst_cdf.max((cdf as f64 - probability).abs());
        }
        println!("pdf {worst_pdf:e}, cdf {worst_cdf:e}");
        assert!(worst_pdf <= 5e-8 && worst_cdf <= 2e-7, "{worst_pdf:e} {worst_cdf:e}");
    }

    #[test]
    fn special_values() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(log(1.0), 0.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(normal(f32::INFINITY), (0.0, 1.0));
        assert_eq!(normal(f32::NEG_INFINITY), (0.0, 0.0));
        assert!(normal(f32::NAN).1.is_nan());
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(sigmoid(-1e30), 0.0);
        assert!(max(f32::NAN, 1.0).is_nan() && max(1.0, f32::NAN).is_nan());
    }
}
