// Position of the first extreme along an axis; one thread computes one output. A NaN is extreme.
//
// The head has OUTPUTS, INPUTS (of one output), `load(o, n)`, which is input n of output o, `w0`,
// `beats(a, b)`, which is the comparison, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let o = thread_index(workgroup, local);
    if (o >= OUTPUTS) {
        return;
    }
    var best = load(o, 0u);
    var at = 0u;
    for (var n = 1u; n < INPUTS; n += 1u) {
        let x = load(o, n);
        if (beats(x, best) || (!(x == x) && best == best)) {
            best = x;
            at = n;
        }
    }
    w0[o] = i32(at);
}
