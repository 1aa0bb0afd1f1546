// Tensors one after another along an axis, or one with zeros around it. A thread makes one element
// of the output.
//
// The head has OUTPUTS, LENGTH (of the axis in the output), INNER (product of the sizes after the
// axis), Element, `part(outer, at, inner)`, which is the element at a position along the axis,
// `w0_put`, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i < OUTPUTS) {
        w0_put(i, part(i / (LENGTH * INNER), (i / INNER) % LENGTH, i % INNER));
    }
}
