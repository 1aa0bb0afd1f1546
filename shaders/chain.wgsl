// Elementwise steps: element i of every result from element i of every operand. The head has the
// buffers, ELEMENTS, the grid's WORKGROUP and thread_index, and
// `fn finish(i: u32, product: f32)`, which computes the steps and stores the results.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i < ELEMENTS) {
        finish(i, 0.0);
    }
}
