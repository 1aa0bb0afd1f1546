// Every thread computes its part. The head has THREADS, the grid's WORKGROUP and thread_index, and
// `fn compute(thread: u32)`, which computes the part of a thread and stores it.

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
