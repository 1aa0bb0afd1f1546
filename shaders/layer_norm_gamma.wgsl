// Gradient of layer norm for gamma: sum over rows of g (x - mean) / deviation. One thread sums one
// column, rows ascending; a workgroup first shares out the statistics of as many rows as it has
// threads.
//
// The head has ROWS, COLUMNS and EPSILON, `x(i)` and `g(i)`, which load an element, `put(c, sum)`,
// and the grid.

var<workgroup> mean: array<f32, WORKGROUP>;
var<workgroup> scale: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = thread_index(workgroup, local);
    var sum = 0.0;
    for (var block = 0u; block < ROWS; block += WORKGROUP) {
        let row = block + local;
        if (row < ROWS) {
            var total = 0.0;
            for (var c = 0u; c < COLUMNS; c += 1u) {
                total += x(row * COLUMNS + c);
            }
            let middle = total / f32(COLUMNS);
            var squares = 0.0;
            for (var c = 0u; c < COLUMNS; c += 1u) {
                let d = x(row * COLUMNS + c) - middle;
                squares = fma(d, d, squares);
            }
            mean[local] = middle;
            scale[local] = 1.0 / sqrt(squares / f32(COLUMNS) + EPSILON);
        }
        workgroupBarrier();
        if (column < COLUMNS) {
            let rows = min(WORKGROUP, ROWS - block);
            for (var r = 0u; r < rows; r += 1u) {
                let i = (block + r) * COLUMNS + column;
                sum = fma(g(i), (x(i) - mean[r]) * scale[r], sum);
            }
        }
        workgroupBarrier();
    }
    if (column < COLUMNS) {
        put(column, sum);
    }
}
