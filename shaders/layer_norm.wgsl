// Layer norm along rows and its gradient for x (Ba et al. 2016, "Layer Normalization"); one thread
// computes one row, from its first column to its last. With h = (x - mean) / deviation:
//
//     layer_norm           h gamma + beta
//     layer_norm_gradient  (g gamma - mean(g gamma) - h mean(h g gamma)) / deviation
//
// The head has ROWS, COLUMNS and EPSILON, `x(i)` and `g(i)`, which load an element, `gamma(c)` and
// `beta(c)`, `w0`, the grid, and `compute(row)`, which calls one of these.

// Mean, and one over the deviation.
fn statistics(row: u32) -> vec2<f32> {
    var sum = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        sum += x(row * COLUMNS + c);
    }
    let mean = sum / f32(COLUMNS);
    var squares = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let d = x(row * COLUMNS + c) - mean;
        squares = fma(d, d, squares);
    }
    return vec2(mean, 1.0 / sqrt(squares / f32(COLUMNS) + EPSILON));
}

fn layer_norm(row: u32) {
    let stats = statistics(row);
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let h = (x(row * COLUMNS + c) - stats.x) * stats.y;
        w0[row * COLUMNS + c] = fma(h, gamma(c), beta(c));
    }
}

fn layer_norm_gradient(row: u32) {
    let stats = statistics(row);
    var plain = 0.0;
    var along = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let h = (x(row * COLUMNS + c) - stats.x) * stats.y;
        let d = g(row * COLUMNS + c) * gamma(c);
        plain += d;
        along = fma(h, d, along);
    }
    plain /= f32(COLUMNS);
    along /= f32(COLUMNS);
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let h = (x(row * COLUMNS + c) - stats.x) * stats.y;
        let d = g(row * COLUMNS + c) * gamma(c);
        w0[row * COLUMNS + c] = (d - plain - h * along) * stats.y;
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = thread_index(workgroup, local);
    if (row < ROWS) {
        compute(row);
    }
}
