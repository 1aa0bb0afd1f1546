// Mean of a row, and one over its deviation: 1 / sqrt(mean((x - mean)^2) + EPSILON). The mean of
// the squares minus the square of the mean would take one pass, but cancels.
//
// The head has COLUMNS, `quads(row)`, the vectors of a row, EPSILON, `x(row, q)`, which loads a
// vector, and quads.wgsl.

fn statistics(row: u32) -> vec2<f32> {
    var sum = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        sum = add(sum, x(row, q), q);
    }
    let mean = sum / f32(COLUMNS);
    var squares = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        let d = x(row, q) - mean;
        squares = add_products(squares, d, d, q);
    }
    return vec2(mean, 1.0 / sqrt(squares / f32(COLUMNS) + EPSILON));
}
