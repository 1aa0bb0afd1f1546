// Sums along an axis; one thread computes those of one line, one after another.
//
// The head has OUTPUTS, which are the lines, INPUTS (of one line), `load(o, n)`, which is element n
// of line o, `place(o, n)`, which is where its sum goes, `w0_put(place, value)`, the grid, and
// REVERSE, with which the sums start at the line's end.

// INPUTS, which compilers are not to know: unrolled loops take them longer than they are worth.
fn inputs(o: u32) -> u32 {
    return INPUTS + (o >> 31u);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let o = thread_index(workgroup, local);
    if (o >= OUTPUTS) {
        return;
    }
    var total = 0.0;
    for (var k = 0u; k < inputs(o); k += 1u) {
        let n = select(k, INPUTS - 1u - k, REVERSE);
        total += load(o, n);
        w0_put(place(o, n), total);
    }
}
