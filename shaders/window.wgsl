// What convolutions, pools and their gradients have in common: images [n, c, HEIGHT, WIDTH], and
// ROWS x COLUMNS windows of KERNEL_Y x KERNEL_X elements over each. Element (k, l) of window (r, s)
// is the image's (r STRIDE_Y + k DILATION_Y - BEFORE_Y, s STRIDE_X + l DILATION_X - BEFORE_X), or
// padding. Positions that would be negative wrap around, and are then larger than every size.
//
// A thread computes one output, as a sum over ascending indices. The head has these sizes, OUTPUTS,
// `first(i)` and `second(i)`, which are the element i of the first and the second read, `w0_put`,
// the grid, and `compute(i)`, which stores output i.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i < OUTPUTS) {
        compute(i);
    }
}
