// Four floats as the halves of two 64-bit integers, which threads on a CPU load faster.

fn unpacked(pair: vec2<u64>) -> vec4<f32> {
    return vec4(
        bitcast<f32>(u32(pair.x)),
        bitcast<f32>(u32(pair.x >> 32u)),
        bitcast<f32>(u32(pair.y)),
        bitcast<f32>(u32(pair.y >> 32u)),
    );
}

fn packed(four: vec4<f32>) -> vec2<u64> {
    let bits = bitcast<vec4<u32>>(four);
    return vec2(u64(bits.x) | (u64(bits.y) << 32u), u64(bits.z) | (u64(bits.w) << 32u));
}
