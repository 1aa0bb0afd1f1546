// Dropout's numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). The head binds `key`: seed low, seed high, step low, step high, microbatch.

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

// 0 with the probability, else `kept`, for element `i` of a layer.
fn dropout_(i: u32, layer: u32, probability: f32, kept: f32) -> f32 {
    let block = philox(vec4(i >> 2u, layer, key[4], key[2]), vec2(key[0], key[1]));
    let uniform_number = f32(block[i & 3u] >> 8u) * 5.9604645e-8;
    return select(kept, 0.0, uniform_number < probability);
}
