// Sums at indices along an axis: out[a][index[a][b][c]][c] += g[a][b][c]. A thread owns EACH lines
// of the output, all [a][..][c], and adds to them for ascending b: no two threads share an element.
//
// The head has THREADS, EACH, LENGTH (of the axis in g), SIZE (of the axis in the output), INNER
// (product of the sizes after the axis), FRESH (whether the output starts from zeros), `index(i)`,
// `add(to, i)`, which adds the elements of g from i on to those of the output, `w0`, f32,
// `usable(index)`, which reports an index that is none, and the grid.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let thread = thread_index(workgroup, local);
    if (thread >= THREADS) {
        return;
    }
    let outer = thread * EACH / INNER;
    let inner = thread * EACH % INNER;
    if (FRESH) {
        for (var at = 0u; at < SIZE; at += 1u) {
            for (var k = 0u; k < EACH; k += 1u) {
                w0[(outer * SIZE + at) * INNER + inner + k] = 0.0;
            }
        }
    }
    for (var b = 0u; b < LENGTH; b += 1u) {
        let i = (outer * LENGTH + b) * INNER + inner;
        let at = index(i);
        if (usable(at)) {
            add((outer * SIZE + u32(at)) * INNER + inner, i);
        }
    }
}
