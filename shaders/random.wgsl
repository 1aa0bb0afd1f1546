// Random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). The head binds `key`: seed low, seed high, step low, step high, microbatch, and 1
// in an evaluation.
// `wide_product` is in math.wgsl.

fn philox(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = seed;
    for (var round = 0u; round < 10u; round += 1u) {
        let p = wide_product(0xd2511f53u, c.x);
        let q = wide_product(0xcd9e8d57u, c.z);
        c = vec4(q.x ^ c.y ^ k.x, q.y, p.x ^ c.w ^ k.y, p.y);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// The words of elements 4 b to 4 b + 3 of a draw.
fn random_block(b: u32, draw: u32) -> vec4<u32> {
    return philox(vec4(b, draw, key[4], key[2]), vec2(key[0], key[1]));
}

fn random_word(i: u32, draw: u32) -> u32 {
    return random_block(i >> 2u, draw)[i & 3u];
}

fn evaluates() -> bool {
    return key[5] != 0u;
}

// Uniform in [0, 1): the top 24 bits.
fn unit_(word: u32) -> f32 {
    return f32(word >> 8u) * 5.9604645e-8;
}

// 0 with the probability, else `kept`; 1 in an evaluation.
fn dropout_(word: u32, probability: f32, kept: f32) -> f32 {
    let drawn = select(kept, 0.0, unit_(word) < probability);
    return select(drawn, 1.0, evaluates());
}

// Normal: `to_normal` of engine/kernels/random.rs.
fn normal_value_(word: u32) -> f32 {
    let odd = 2 * i32(word >> 8u) + 1 - (1 << 24u);
    let u = f32(odd) * 5.9604645e-8;
    let w = -log_((1.0 - u) * (1.0 + u));
    let c = w - 2.5;
    var centre = 2.8102264e-8;
    centre = centre * c + 3.4327394e-7;
    centre = centre * c - 3.5233877e-6;
    centre = centre * c - 4.3915065e-6;
    centre = centre * c + 0.00021858087;
    centre = centre * c - 0.001253725;
    centre = centre * c - 0.0041776816;
    centre = centre * c + 0.24664073;
    centre = centre * c + 1.5014094;
    let t = sqrt(w) - 3.0;
    var tail = -0.00020021426;
    tail = tail * t + 0.00010095056;
    tail = tail * t + 0.0013493432;
    tail = tail * t - 0.0036734284;
    tail = tail * t + 0.0057395077;
    tail = tail * t - 0.0076224613;
    tail = tail * t + 0.0094388705;
    tail = tail * t + 1.0016741;
    tail = tail * t + 2.8329768;
    return 1.4142135 * select(tail, centre, w < 5.0) * u;
}
