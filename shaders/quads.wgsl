// Rows in vectors of four neighbouring columns; the last vector of a row may hang over its end.
//
// The head has COLUMNS and QUADS, the vectors of a row, and `w0_put`.

fn is_column(q: u32) -> vec4<bool> {
    return vec4(4u * q) + vec4(0u, 1u, 2u, 3u) < vec4(COLUMNS);
}

// The vector with another one's components beyond the end of the row.
fn padded(v: vec4<f32>, other: vec4<f32>, q: u32) -> vec4<f32> {
    if (COLUMNS % 4u == 0u) {
        return v;
    }
    return select(other, v, is_column(q));
}

// The sum and the vector's elements, one after another: zeros never change a sum that began with 0.
fn add(sum: f32, v: vec4<f32>, q: u32) -> f32 {
    let p = padded(v, vec4(0.0), q);
    return sum + p.x + p.y + p.z + p.w;
}

// The sum and the products of two vectors' elements, one after another.
fn add_products(sum: f32, v: vec4<f32>, w: vec4<f32>, q: u32) -> f32 {
    let a = padded(v, vec4(0.0), q);
    let b = padded(w, vec4(0.0), q);
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn store(row: u32, q: u32, v: vec4<f32>) {
    let i = row * COLUMNS + 4u * q;
    w0_put(i, v.x);
    if (COLUMNS % 4u == 0u || 4u * q + 1u < COLUMNS) {
        w0_put(i + 1u, v.y);
    }
    if (COLUMNS % 4u == 0u || 4u * q + 2u < COLUMNS) {
        w0_put(i + 2u, v.z);
    }
    if (COLUMNS % 4u == 0u || 4u * q + 3u < COLUMNS) {
        w0_put(i + 3u, v.w);
    }
}
