// Elementwise functions by Cephes-style polynomials, as on CPU devices: the built-in exp, log,
// tanh, sin, cos and pow may be far less exact. All keep NaN.
//
// Shader compilers may regroup sums of floats, cancel what only rounding keeps apart, take NaN for
// impossible, and need not fuse `fma`. What must be exact here is therefore done on integers.

// Bits that are no literal: infinities and NaN. The variable keeps the compiler from folding them.
var<private> no_bits: u32 = 0u;

fn from_bits(bits: u32) -> f32 {
    return bitcast<f32>(bits | no_bits);
}

fn is_nan_(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// High and low words of a product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let middle = a_high * b_low + (low >> 16u);
    let other = a_low * b_high + (middle & 0xffffu);
    return vec2(a_high * b_high + (middle >> 16u) + (other >> 16u), a * b);
}

// x 2^n for n in -252..=254, in two factors: 2^n itself may be no float while the result is one.
fn scaled_(x: f32, n: i32) -> f32 {
    let half = n >> 1u;
    return x * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((n - half + 127) << 23u);
}

// e^x.
fn exp_(x0: f32) -> f32 {
    let x1 = select(x0, 89.0, x0 > 89.0);
    let x = select(x1, -104.0, x1 < -104.0);
    // Not by adding and subtracting 1.5 * 2^23: compilers of shaders take both away.
    let n = i32(floor(fma(x, 1.442695040888963, 0.5)));
    // ln 2 in two parts, the first 355 / 512. Two multiples of one float would be made one.
    let r = fma(f32(n), 2.1219444e-4, fma(f32(n * 355), -0.001953125, x));
    var p = fma(1.9875691e-4, r, 1.3981999e-3);
    p = fma(p, r, 8.333452e-3);
    p = fma(p, r, 4.1665796e-2);
    p = fma(p, r, 1.6666665e-1);
    p = fma(p, r, 0.5);
    p = fma(p, r * r, r) + 1.0;
    return select(scaled_(p, n), x0, is_nan_(x0));
}

// The whole part of log2 x, and ln of the rest, which is in sqrt(1/2)..sqrt(2); for x > 0.
struct Logarithm {
    exponent: i32,
    // Of ln(1 + f): f, and what is missing.
    f: f32,
    low: f32,
}

fn logarithm_(x: f32) -> Logarithm {
    let denormal = bitcast<u32>(x) < 0x00800000u;
    // Drivers may take a denormal for 0: x 2^23 is its bits as a number, times 2^-126.
    let scaled = bitcast<u32>(f32(bitcast<u32>(x))) - (126u << 23u);
    let bits = select(bitcast<u32>(x), scaled, denormal) - 0x3f3504f3u;
    let f = bitcast<f32>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    let exponent = (bitcast<i32>(bits) >> 23u) - select(0, 23, denormal);
    return Logarithm(exponent, f, logarithm_low_(f));
}

// ln(1 + f) - f.
fn logarithm_low_(f: f32) -> f32 {
    let z = f * f;
    var p = fma(7.0376836e-2, f, -1.151461e-1);
    p = fma(p, f, 1.1676999e-1);
    p = fma(p, f, -1.2420141e-1);
    p = fma(p, f, 1.4249323e-1);
    p = fma(p, f, -1.6668057e-1);
    p = fma(p, f, 2.0000715e-1);
    p = fma(p, f, -2.4999994e-1);
    p = fma(p, f, 3.333333e-1);
    return fma(z, -0.5, p * f * z);
}

// ln x; -infinity at 0, NaN below.
fn log_(x: f32) -> f32 {
    let l = logarithm_(x);
    let low = fma(f32(l.exponent), -2.1219444e-4, l.low);
    let y = fma(f32(l.exponent * 355), 0.001953125, l.f + low);
    let bits = bitcast<u32>(x);
    let above = select(y, x, bits == 0x7f800000u);
    let end = select(above, from_bits(0xff800000u), (bits << 1u) == 0u);
    // NaN, and all below zero.
    return select(end, from_bits(0x7fc00000u), bits > 0x7f800000u && bits != 0x80000000u);
}

fn tanh_(x: f32) -> f32 {
    let a = abs(x);
    let z = x * x;
    var p = fma(-5.7049887e-3, z, 2.063909e-2);
    p = fma(p, z, -5.3739716e-2);
    p = fma(p, z, 1.3331442e-1);
    p = fma(p, z, -3.333328e-1);
    let near = fma(p * z, a, a);
    let far = 1.0 - 2.0 / (exp_(2.0 * a) + 1.0);
    let y = select(far, near, a < 0.625);
    return select(y, -y, bitcast<i32>(x) < 0);
}

fn sigmoid_(x: f32) -> f32 {
    return 1.0 / (1.0 + exp_(-x));
}

// Density and cumulative probability of the standard normal distribution.
fn normal_(x: f32) -> vec2<f32> {
    let e = exp_(-0.5 * x * x);
    let u = 1.0 / fma(abs(x), 0.35, 1.0);
    var p = fma(-2.5664095e-2, u, 1.2763661e-1);
    p = fma(p, u, -2.2361587e-1);
    p = fma(p, u, 1.24955e-1);
    p = fma(p, u, -1.6943614e-3);
    p = fma(p, u, 9.75619e-2);
    p = fma(p, u, 1.2151129e-1);
    p = fma(p, u, 1.3968055e-1);
    p = fma(p, u, 1.3962898e-1);
    let tail = e * (p * u);
    return vec2(0.3989423 * e, select(1.0 - tail, tail, x < 0.0));
}

fn erf_(x: f32) -> f32 {
    // 2 P(Z < x sqrt 2) - 1 cancels near 0, where the series (Abramowitz and Stegun 7.1.5) is used.
    let z = x * x;
    var p = fma(-7.5757576e-4, z, 4.6296296e-3);
    p = fma(p, z, -2.3809524e-2);
    p = fma(p, z, 0.1);
    p = fma(p, z, -0.33333334);
    p = fma(p, z, 1.0);
    let near = 1.1283792 * x * p;
    let far = fma(2.0, normal_(x * 1.4142135).y, -1.0);
    return select(far, near, abs(x) < 0.5);
}

fn gelu_(x: f32) -> f32 {
    return x * normal_(x).y;
}

fn gelu_gradient_(x: f32, g: f32) -> f32 {
    let n = normal_(x);
    return g * (n.y + x * n.x);
}

// Eight words of 2 / pi, behind one of zeros.
const TWO_OVER_PI = array<u32, 9>(
    0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu,
    0xdebbc561u,
);

// Sine of x + quadrant * pi / 2, for quadrant 0 or 1: x is reduced by as many digits of 2 / pi as
// it takes (Payne and Hanek 1983), then polynomials.
fn sine_(x: f32, quadrant: i32) -> f32 {
    let bits = bitcast<u32>(x) & 0x7fffffffu;
    // |x| is m 2^(exponent - 150). Digits of 2 / pi that add whole turns are passed over.
    let exponent = bits >> 23u;
    let m = (bits & 0x007fffffu) | 0x00800000u;
    let start = max(exponent, 120u) - 120u;
    let word = min(start >> 5u, 4u);
    let shift = start & 31u;
    var digits = TWO_OVER_PI;
    var window: array<u32, 3>;
    for (var k = 0u; k < 3u; k += 1u) {
        let next = select(digits[word + k + 1u] >> (32u - max(shift, 1u)), 0u, shift == 0u);
        window[k] = (digits[word + k] << shift) | next;
    }
    let low = wide_product(m, window[2]);
    let middle = wide_product(m, window[1]);
    let second = middle.y + low.x;
    let first = m * window[0] + middle.x + select(0u, 1u, second < low.x);
    // Quadrants are the first two bits; what follows is between -1/2 and 1/2 of one.
    let above = (first >> 29u) & 1u;
    let fraction = vec2((first << 2u) | (second >> 30u), second << 2u) ^ vec2(0u - above);
    let zeros = min(countLeadingZeros(fraction.x), 31u);
    let follows = select(fraction.y >> (32u - max(zeros, 1u)), 0u, zeros == 0u);
    // Times pi / 2.
    let size = wide_product((fraction.x << zeros) | follows, 0xc90fdaa2u).x;
    let distance = f32(size) * bitcast<f32>((96u - zeros) << 23u);
    let near = bits < 0x3f490fdbu;
    let r = select(select(distance, -distance, above == 1u), bitcast<f32>(bits), near);
    let q = select(i32((first >> 30u) + above), 0, near) + quadrant;
    let z = r * r;
    let s = fma(r * z, fma(fma(-1.9515296e-4, z, 8.3321609e-3), z, -1.6666655e-1), r);
    let c = fma(
        z * z,
        fma(fma(2.4433157e-5, z, -1.3887316e-3), z, 4.1666646e-2),
        fma(z, -0.5, 1.0),
    );
    let y = select(s, c, (q & 1) == 1);
    let odd = quadrant == 0 && bitcast<u32>(x) != bits;
    let signed = select(y, -y, ((q & 2) == 2) != odd);
    return select(signed, from_bits(0x7fc00000u), bits >= 0x7f800000u);
}

// |x|^y with the sign that an integer y gives; NaN for x < 0 and any other y. The error is about
// 1 + |y| / 2 units in the last place.
fn power_(x: f32, y0: f32) -> f32 {
    // An infinite exponent does what the largest does.
    let y = clamp(y0, -1e38, 1e38);
    let l = logarithm_(abs(x));
    // y exponent + y log2 of the rest. The first product is exact for the first bits of y; the
    // others are of thrice the exponent, lest the two be made one.
    let y_high = bitcast<f32>(bitcast<u32>(y) & 0xfffff000u);
    let high = f32(l.exponent) * y_high;
    let rest = f32(l.exponent * 3) * ((y - y_high) * 0.33333334);
    let low = fma(y, (l.f + l.low) * 1.4426950, rest);
    let sum = high + low;
    let n = floor(clamp(sum, -200.0, 200.0) + 0.5);
    let part = select((high - n) + low, 0.0, abs(sum) > 190.0);
    let size = scaled_(exp_(part * 0.6931472), i32(n));
    let bits = bitcast<u32>(x) & 0x7fffffffu;
    let end = bits == 0u || bits == 0x7f800000u;
    let large = (bits == 0u) == (y < 0.0);
    let whole_size = select(size, select(0.0, from_bits(0x7f800000u), large), end);
    let whole = floor(y) == y;
    let odd = whole && floor(y * 0.5) * 2.0 != y;
    let below = bitcast<i32>(x) < 0;
    let signed = select(whole_size, -whole_size, odd && below);
    let none = (below && !whole && !end) || is_nan_(x) || is_nan_(y0);
    return select(select(signed, from_bits(0x7fc00000u), none), 1.0, x == 1.0 || y0 == 0.0);
}

// x^n by squaring, without the bits that an i32 does not hold.
fn int_power_(x: i32, n: u32) -> i32 {
    var power = 1;
    var square = x;
    for (var rest = n; rest > 0u; rest >>= 1u) {
        power *= select(1, square, (rest & 1u) == 1u);
        square *= square;
    }
    return power;
}

// Without the fraction, as near as an i32 comes; 0 for NaN.
fn int_(x: f32) -> i32 {
    let y = select(x, -2147483648.0, x < -2147483648.0);
    let near = i32(select(y, 0.0, y >= 2147483648.0 || is_nan_(y)));
    return select(near, 2147483647, x >= 2147483648.0);
}

// 0 for NaN.
fn sign_(x: f32) -> f32 {
    return select(select(0.0, -1.0, x < 0.0), 1.0, x > 0.0);
}
