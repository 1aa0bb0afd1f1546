// Less common functions of one or two numbers, made of those in math.wgsl. All keep NaN.

const HALF_PI: f32 = 1.57079633;

fn nan_() -> f32 {
    return from_bits(0x7fc00000u);
}

// `size` with the sign of x.
fn signed_(size: f32, x: f32) -> f32 {
    return select(size, -size, bitcast<i32>(x) < 0);
}

// ln(1 + x). Near 0 the sum would round x away; elsewhere its rounding is lost in the result's.
fn log1p_(x: f32) -> f32 {
    return select(log_(1.0 + x), x + logarithm_low_(x), x > -0.29 && x < 0.41);
}

// asin of x in 0..=1/2, from x and its square z (Cephes).
fn arc_(x: f32, z: f32) -> f32 {
    var p = fma(4.2163199e-2, z, 2.4181311e-2);
    p = fma(p, z, 4.5470026e-2);
    p = fma(p, z, 7.4953003e-2);
    p = fma(p, z, 1.6666752e-1);
    return fma(p * z, x, x);
}

fn asin_(x: f32) -> f32 {
    let a = abs(x);
    // The root is of no number beyond 1, and of 0 there.
    let rest = 0.5 * (1.0 - min(a, 1.0));
    let far = HALF_PI - 2.0 * arc_(sqrt(rest), rest);
    let y = signed_(select(far, arc_(a, a * a), a <= 0.5), x);
    return select(nan_(), y, a <= 1.0);
}

fn acos_(x: f32) -> f32 {
    let a = abs(x);
    let rest = 0.5 * (1.0 - min(a, 1.0));
    let far = 2.0 * arc_(sqrt(rest), rest);
    let near = HALF_PI - signed_(arc_(a, a * a), x);
    let y = select(select(far, 2.0 * HALF_PI - far, x < 0.0), near, a <= 0.5);
    return select(nan_(), y, a <= 1.0);
}

// atan of x in -0.42..=0.42 (Cephes).
fn short_atan_(x: f32) -> f32 {
    let z = x * x;
    var p = fma(8.0537445e-2, z, -1.3877686e-1);
    p = fma(p, z, 1.9977711e-1);
    p = fma(p, z, -3.333295e-1);
    return fma(p * z, x, x);
}

fn atan_(x: f32) -> f32 {
    let a = abs(x);
    let far = HALF_PI - short_atan_(1.0 / a);
    let middle = 0.5 * HALF_PI + short_atan_((a - 1.0) / (a + 1.0));
    let y = select(select(middle, short_atan_(a), a < 0.41421357), far, a > 2.4142135);
    return signed_(y, x);
}

// Angle of the point (x, y).
fn atan2_(y: f32, x: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    let ratio = min(a, b) / max(a, b);
    // Of two infinities or two zeros.
    let known = select(ratio, select(1.0, 0.0, a == 0.0), a == b);
    let acute = atan_(known);
    let upright = select(acute, HALF_PI - acute, b > a);
    let angle = select(upright, 2.0 * HALF_PI - upright, bitcast<i32>(x) < 0);
    return select(signed_(angle, y), nan_(), is_nan_(x) || is_nan_(y));
}

// e^|x| / 2, which is a float up to where sinh and cosh are.
fn half_exp_(a: f32) -> f32 {
    let root = exp_(0.5 * a);
    return (0.5 * root) * root;
}

fn sinh_(x: f32) -> f32 {
    let a = abs(x);
    let z = a * a;
    var p = fma(2.5052108e-8, z, 2.7557319e-6);
    p = fma(p, z, 1.984127e-4);
    p = fma(p, z, 8.3333333e-3);
    p = fma(p, z, 1.6666667e-1);
    let half = half_exp_(a);
    return signed_(select(half - 0.25 / half, fma(p * z, a, a), a < 1.0), x);
}

fn cosh_(x: f32) -> f32 {
    let half = half_exp_(abs(x));
    return half + 0.25 / half;
}

// From here on asinh x and acosh x are ln(2 x).
const LARGE: f32 = 10000.0;

fn asinh_(x: f32) -> f32 {
    let a = abs(x);
    let s = min(a, LARGE);
    let z = s * s;
    let near = log1p_(s + z / (1.0 + sqrt(z + 1.0)));
    return signed_(select(near, log_(a) + 0.6931472, !(a < LARGE)), x);
}

fn acosh_(x: f32) -> f32 {
    let t = clamp(x, 1.0, LARGE) - 1.0;
    let near = log1p_(t + sqrt(t * (t + 2.0)));
    return select(nan_(), select(near, log_(x) + 0.6931472, x >= LARGE), x >= 1.0);
}

fn atanh_(x: f32) -> f32 {
    let a = abs(x);
    let within = 0.5 * log1p_(2.0 * a / (1.0 - min(a, 0.99999994)));
    let end = select(within, from_bits(0x7f800000u), a == 1.0);
    return select(nan_(), signed_(end, x), a <= 1.0);
}

fn hypot_(x: f32, y: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    let large = max(a, b);
    let ratio = min(a, b) / large;
    let size = large * sqrt(fma(ratio, ratio, 1.0));
    let infinity = from_bits(0x7f800000u);
    let end = select(size, large, large == 0.0 || a == infinity || b == infinity);
    let infinite = select(end, infinity, a == infinity || b == infinity);
    let none = (is_nan_(x) || is_nan_(y)) && !(a == infinity || b == infinity);
    return select(infinite, nan_(), none);
}

// x - floor(x / y) y by long division, bit for bit: the quotient may have more bits than a float.
fn remainder_(x: f32, y: f32) -> f32 {
    let a = bitcast<u32>(x) & 0x7fffffffu;
    let b = bitcast<u32>(y) & 0x7fffffffu;
    if (a >= 0x7f800000u || b > 0x7f800000u || b == 0u) {
        return nan_();
    }
    var rest = abs(x);
    if (a >= b) {
        // Both as m 2^exponent with m below 2^24.
        let x_exponent = max(a >> 23u, 1u);
        let y_exponent = max(b >> 23u, 1u);
        let divisor = (b & 0x007fffffu) | select(0u, 0x00800000u, b >= 0x00800000u);
        var m = (a & 0x007fffffu) | select(0u, 0x00800000u, a >= 0x00800000u);
        m %= divisor;
        for (var n = y_exponent; n < x_exponent; n += 1u) {
            m = (m << 1u) % divisor;
        }
        rest = bits_of_(m, y_exponent);
    }
    let r = signed_(rest, x);
    let other = r != 0.0 && (r < 0.0) != (y < 0.0);
    return select(r, r + y, other);
}

// m 2^(exponent - 150), for m below 2^24 and exponent from 1.
fn bits_of_(m: u32, exponent: u32) -> f32 {
    if (m == 0u) {
        return 0.0;
    }
    let shift = min(countLeadingZeros(m) - 8u, exponent - 1u);
    let moved = m << shift;
    let left = exponent - shift;
    return bitcast<f32>(select(moved, (left << 23u) | (moved & 0x007fffffu), moved >= 0x00800000u));
}

// x - floor(x / y) y.
fn int_remainder_(x: i32, y: i32) -> i32 {
    let r = x % y;
    return select(r, r + y, r != 0 && (r < 0) != (y < 0));
}

// To 11 bits of at least 2^-14, to even. Divisions by powers of two are exact.
fn roundf16_(x: f32) -> f32 {
    let size = abs(x);
    let exponent = max(i32(bitcast<u32>(size) >> 23u) - 127, -14);
    let unit = bitcast<f32>(u32(exponent + 117) << 23u);
    let rounded = signed_(round(size / unit) * unit, x);
    let infinite = signed_(from_bits(0x7f800000u), x);
    let finite = select(infinite, rounded, size < 65520.0);
    return select(finite, x, is_nan_(x));
}

// To 8 bits, to even.
fn roundbf16_(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let rounded = bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
    return select(rounded, x, is_nan_(x));
}
