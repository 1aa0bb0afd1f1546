// Sums at indices along an axis: out[a][index[a][b][c]][c] += g[a][b][c]. A thread owns one line
// of the output, all [a][..][c], and adds to it for ascending b: no two threads share an element.
//
// The head has LINES, LENGTH (of the axis in g), SIZE (of the axis in the output), INNER (product
// of the sizes after the axis), FRESH (whether the output starts from zeros), `index(i)`, `g(i)`,
// `w0`, `usable(index)`, which reports an index that is none, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let line = thread_index(workgroup, local);
    if (line >= LINES) {
        return;
    }
    let outer = line / INNER;
    let inner = line % INNER;
    if (FRESH) {
        for (var at = 0u; at < SIZE; at += 1u) {
            w0[(outer * SIZE + at) * INNER + inner] = 0.0;
        }
    }
    for (var b = 0u; b < LENGTH; b += 1u) {
        let i = (outer * LENGTH + b) * INNER + inner;
        let at = index(i);
        if (usable(at)) {
            let to = (outer * SIZE + u32(at)) * INNER + inner;
            w0[to] = w0[to] + g(i);
        }
    }
}
