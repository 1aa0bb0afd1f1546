// Rows of a table: output row n is row index(n) of the table. A thread copies one element.
//
// The head has OUTPUTS, WIDTH (of a row), SIZE (rows of the table), `index(n)`, `table(i)`, `w0`,
// `usable(index)`, which reports an index that is none, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(workgroup, local);
    if (i >= OUTPUTS) {
        return;
    }
    let row = index(i / WIDTH);
    if (usable(row)) {
        w0[i] = table(u32(row) * WIDTH + i % WIDTH);
    } else {
        w0[i] = 0.0;
    }
}
