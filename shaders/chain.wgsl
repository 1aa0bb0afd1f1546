// Elementwise steps: element i of every result from element i of every operand. The head has the
// buffers, THREADS, the grid's WORKGROUP and thread_index, and `fn compute(thread: u32)`, which
// computes the steps for the elements of a thread and stores the results.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let thread = thread_index(workgroup, local);
    if (thread < THREADS) {
        compute(thread);
    }
}
