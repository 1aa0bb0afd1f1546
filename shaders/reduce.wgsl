// Sums, and positions of extremes, over some axes; one thread computes one output, inputs
// ascending.
//
// The head has OUTPUTS, INPUTS (of one output), `load(o, n)`, which is input n of output o, `w0`,
// `put(o, value)`, the grid, and `compute(o)`, which calls one of these.

fn sum(o: u32) {
    var total = 0.0;
    for (var n = 0u; n < INPUTS; n += 1u) {
        total += load(o, n);
    }
    put(o, total);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let o = thread_index(workgroup, local);
    if (o < OUTPUTS) {
        compute(o);
    }
}
