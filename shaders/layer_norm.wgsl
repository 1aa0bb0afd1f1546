// Layer norm along rows and its gradient for x (Ba et al. 2016, "Layer Normalization"); one thread
// computes one row, from its first column to its last. With h = (x - mean) / deviation:
//
//     layer_norm           h gamma + beta
//     layer_norm_gradient  (g gamma - mean(g gamma) - h mean(h g gamma)) / deviation
//
// The head has ROWS, COLUMNS, `quads(row)`, the vectors of a row, `x(row, q)`, `g(row, q)`,
// `gamma(0, q)` and `beta(0, q)`, which load vectors, quads.wgsl, statistics.wgsl, the grid, and
// `compute(row)`, which calls one of these.

fn layer_norm(row: u32) {
    let stats = statistics(row);
    for (var q = 0u; q < quads(row); q += 1u) {
        let h = (x(row, q) - stats.x) * stats.y;
        store(row, q, fma(h, gamma(0u, q), beta(0u, q)));
    }
}

fn layer_norm_gradient(row: u32) {
    let stats = statistics(row);
    var plain = 0.0;
    var along = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        let h = (x(row, q) - stats.x) * stats.y;
        let d = g(row, q) * gamma(0u, q);
        plain = add(plain, d, q);
        along = add_products(along, h, d, q);
    }
    plain /= f32(COLUMNS);
    along /= f32(COLUMNS);
    for (var q = 0u; q < quads(row); q += 1u) {
        let h = (x(row, q) - stats.x) * stats.y;
        let d = g(row, q) * gamma(0u, q);
        store(row, q, (d - plain - h * along) * stats.y);
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
