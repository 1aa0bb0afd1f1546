// Rows of a table: output row n is row index(n) of the table. A thread copies EACH elements of a
// row.
//
// The head has THREADS, EACH, WIDTH (of a row), SIZE (rows of the table), `index(n)`,
// `copy(i, at)`, which copies the table's elements from `at` on to the output's from i on,
// `w0_put`, `usable(index)`, which reports an index that is none, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let thread = thread_index(workgroup, local);
    if (thread >= THREADS) {
        return;
    }
    let i = thread * EACH;
    let row = index(i / WIDTH);
    if (usable(row)) {
        copy(i, u32(row) * WIDTH + i % WIDTH);
    } else {
        for (var k = 0u; k < EACH; k += 1u) {
            w0_put(i + k, 0.0);
        }
    }
}
