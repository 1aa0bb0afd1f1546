// Elements at indices along an axis: out[a][b][c] = x[a][index[a][b][c]][c]. A thread copies one
// element.
//
// The head has OUTPUTS, LENGTH (of the axis in the output), INNER (product of the sizes after the
// axis), SIZE (of the axis in x), `index(i)`, `x(i)`, `w0_put`, `usable(index)`, which reports an
// index that is none, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i >= OUTPUTS) {
        return;
    }
    let at = index(i);
    if (usable(at)) {
        let outer = i / (LENGTH * INNER);
        w0_put(i, x((outer * SIZE + u32(at)) * INNER + i % INNER));
    } else {
        w0_put(i, Element());
    }
}
