// Dropout's numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). The head binds `key`: seed low, seed high, step low, step high, microbatch, and 1
// where nothing is dropped.
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

// The words of elements 4 b to 4 b + 3 of a layer.
fn dropout_block(b: u32, layer: u32) -> vec4<u32> {
    return philox(vec4(b, layer, key[4], key[2]), vec2(key[0], key[1]));
}

fn dropout_word(i: u32, layer: u32) -> u32 {
    return dropout_block(i >> 2u, layer)[i & 3u];
}

// 0 with the probability, else `kept`; 1 where nothing is dropped.
fn dropout_(word: u32, probability: f32, kept: f32) -> f32 {
    let drawn = select(kept, 0.0, f32(word >> 8u) * 5.9604645e-8 < probability);
    return select(drawn, 1.0, key[5] != 0u);
}
