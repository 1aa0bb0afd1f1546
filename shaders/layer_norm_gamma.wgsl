// Gradient of layer norm for gamma: sum over rows of g (x - mean) / deviation. One thread sums four
// columns, rows ascending; a workgroup first shares out the statistics of the next BLOCK rows.
//
// The head has ROWS, COLUMNS, QUADS and BLOCK, `x(row, q)` and `g(row, q)`, which load four
// elements, quads.wgsl, statistics.wgsl, `w0_put(c, sum)`, and the grid.

var<workgroup> shared_statistics: array<vec2<f32>, BLOCK>;

fn put_columns(q: u32, sum: vec4<f32>) {
    let count = min(4u, COLUMNS - 4u * q);
    w0_put(4u * q, sum.x);
    if (count > 1u) {
        w0_put(4u * q + 1u, sum.y);
    }
    if (count > 2u) {
        w0_put(4u * q + 2u, sum.z);
    }
    if (count > 3u) {
        w0_put(4u * q + 3u, sum.w);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let q = thread_index(workgroup, local);
    var sum = vec4(0.0);
    for (var block = 0u; block < ROWS; block += BLOCK) {
        let rows = min(BLOCK, ROWS - block);
        for (var r = local; r < rows; r += WORKGROUP) {
            shared_statistics[r] = statistics(block + r);
        }
        workgroupBarrier();
        if (q < QUADS) {
            for (var r = 0u; r < rows; r += 1u) {
                let stats = shared_statistics[r];
                sum = fma(g(block + r, q), (x(block + r, q) - stats.x) * stats.y, sum);
            }
        }
        workgroupBarrier();
    }
    if (q < QUADS) {
        put_columns(q, sum);
    }
}
