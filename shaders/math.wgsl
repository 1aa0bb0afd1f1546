// Elementwise functions by Cephes-style polynomials, as on CPU devices: the built-in exp, log,
// tanh, sin, cos and pow may be far less exact. All keep NaN.

// Bits that are no literal: infinities and NaN. The variable keeps the compiler from folding them.
var<private> no_bits: u32 = 0u;

fn from_bits(bits: u32) -> f32 {
    return bitcast<f32>(bits | no_bits);
}

// e^x.
fn exp_(x0: f32) -> f32 {
    let x1 = select(x0, 89.0, x0 > 89.0);
    let x = select(x1, -104.0, x1 < -104.0);
    // Not by adding and subtracting 1.5 * 2^23: compilers of shaders take both away.
    let n = floor(fma(x, 1.442695040888963, 0.5));
    let e = i32(n);
    let r = fma(n, 2.1219444e-4, fma(n, -0.6933594, x));
    var p = fma(1.9875691e-4, r, 1.3981999e-3);
    p = fma(p, r, 8.333452e-3);
    p = fma(p, r, 4.1665796e-2);
    p = fma(p, r, 1.6666665e-1);
    p = fma(p, r, 0.5);
    p = fma(p, r * r, r) + 1.0;
    let half = e >> 1u;
    let y = p * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((e - half + 127) << 23u);
    return select(y, x0, x0 != x0);
}

// ln x; -infinity at 0, NaN below.
fn log_(x: f32) -> f32 {
    let denormal = x < 1.1754944e-38;
    let scaled = select(x, x * 8388608.0, denormal);
    let bits = bitcast<u32>(scaled) - 0x3f3504f3u;
    let exponent = bitcast<i32>(bits) >> 23u;
    let f = bitcast<f32>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    let e = f32(exponent) - select(0.0, 23.0, denormal);
    let z = f * f;
    var p = fma(7.0376836e-2, f, -1.151461e-1);
    p = fma(p, f, 1.1676999e-1);
    p = fma(p, f, -1.2420141e-1);
    p = fma(p, f, 1.4249323e-1);
    p = fma(p, f, -1.6668057e-1);
    p = fma(p, f, 2.0000715e-1);
    p = fma(p, f, -2.4999994e-1);
    p = fma(p, f, 3.333333e-1);
    let low = fma(z, -0.5, fma(e, -2.1219444e-4, p * f * z));
    let y = fma(e, 0.6933594, f + low);
    let high = bitcast<u32>(x) == 0x7f800000u;
    let end = select(select(y, from_bits(0xff800000u), x == 0.0), x, high);
    return select(end, from_bits(0x7fc00000u), x < 0.0 || x != x);
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

// Sine of x + quadrant * pi / 2: pi / 2 in three parts (Cody and Waite 1980), then polynomials.
fn sine_(x: f32, quadrant: i32) -> f32 {
    let n = floor(fma(x, 0.6366198, 0.5));
    var r = fma(n, -1.5707964, x);
    r = fma(n, 4.371139e-8, r);
    r = fma(n, 1.7151245e-15, r);
    let z = r * r;
    let s = fma(r * z, fma(fma(-1.9515296e-4, z, 8.3321609e-3), z, -1.6666655e-1), r);
    let c = fma(
        z * z,
        fma(fma(2.4433157e-5, z, -1.3887316e-3), z, 4.1666646e-2),
        fma(z, -0.5, 1.0),
    );
    let q = (i32(n) + quadrant) & 3;
    let y = select(s, c, (q & 1) == 1);
    return select(y, -y, q >= 2);
}

// |x|^y with the sign that an integer y gives; NaN for x < 0 and any other y.
fn power_(x: f32, y: f32) -> f32 {
    let size = exp_(y * log_(abs(x)));
    let whole = floor(y) == y;
    let odd = whole && floor(y * 0.5) * 2.0 != y;
    let signed = select(size, -size, odd && x < 0.0);
    return select(signed, from_bits(0x7fc00000u), x < 0.0 && !whole);
}

fn sign_(x: f32) -> f32 {
    let s = select(select(0.0, -1.0, x < 0.0), 1.0, x > 0.0);
    return select(s, x, x != x);
}
