// Softmax and log-softmax along rows, and their gradients; one thread computes one row, from its
// first column to its last.
//
//     softmax               y = exp(x - max) / sum(exp(x - max))
//     log_softmax           y = x - max - log(sum(exp(x - max)))
//     softmax_gradient      y (g - sum(g y))                       from the output y
//     log_softmax_gradient  g - exp(y) sum(g)                      from the output y
//
// The head has ROWS, `quads(row)`, the vectors of a row, `first(row, q)` and `second(row, q)`,
// which are vectors of x, or of y and g, after `begin(row)`, math.wgsl, quads.wgsl, the grid, and
// `compute(row)`, which calls one of these.

fn exps(v: vec4<f32>) -> vec4<f32> {
    return vec4(exp_(v.x), exp_(v.y), exp_(v.z), exp_(v.w));
}

fn larger(a: f32, b: f32) -> f32 {
    return select(a, b, b > a);
}

fn largest(row: u32) -> f32 {
    var most = first(row, 0u).x;
    for (var q = 0u; q < quads(row); q += 1u) {
        let v = first(row, q);
        let x = padded(v, v.xxxx, q);
        most = larger(larger(larger(larger(most, x.x), x.y), x.z), x.w);
    }
    return most;
}

// Sum of exp(x - most). Exponentials are computed again for the output: a CPU takes longer to load
// what was stored.
fn total(row: u32, most: f32) -> f32 {
    var sum = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        sum = add(sum, exps(first(row, q) - most), q);
    }
    return sum;
}

fn softmax(row: u32) {
    begin(row);
    let most = largest(row);
    let scale = 1.0 / total(row, most);
    for (var q = 0u; q < quads(row); q += 1u) {
        store(row, q, exps(first(row, q) - most) * scale);
    }
}

fn log_softmax(row: u32) {
    begin(row);
    let most = largest(row);
    let shift = log_(total(row, most));
    for (var q = 0u; q < quads(row); q += 1u) {
        store(row, q, first(row, q) - most - shift);
    }
}

fn softmax_gradient(row: u32) {
    begin(row);
    var sum = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        sum = add_products(sum, first(row, q), second(row, q), q);
    }
    for (var q = 0u; q < quads(row); q += 1u) {
        store(row, q, first(row, q) * (second(row, q) - sum));
    }
}

fn log_softmax_gradient(row: u32) {
    begin(row);
    var sum = 0.0;
    for (var q = 0u; q < quads(row); q += 1u) {
        sum = add(sum, second(row, q), q);
    }
    for (var q = 0u; q < quads(row); q += 1u) {
        store(row, q, fma(-exps(first(row, q)), vec4(sum), second(row, q)));
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
