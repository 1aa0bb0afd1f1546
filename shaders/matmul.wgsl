// Products of matrices from registers: for every batch
//
//     out[row][column] = sum over k of x[row][k] * y[k][column]
//
// added up for ascending k from 0 with `fma`, one chain per element, so that every tile gives the
// same bits. A workgroup is one subgroup of LANES threads. It computes ROWS rows; a lane computes
// COLUMNS columns of each, whose sums stay in registers. Lanes differ in their columns only.
//
// Bindings: the kernel's, x first, then y, and others only as `finish` needs them. What is small
// enough is a uniform buffer of vec4<f32>: llvmpipe loads an element of one in 3 cycles, but takes
// 25 with a storage buffer, where each thread has a branch of its own. Loads are therefore of whole
// vectors, along k or along what the output keeps; a component that is computed would send the
// vector through memory. From storage buffers, two elements are loaded as one 64-bit integer, and
// two results are stored as one. Halves are loaded as words of two.
//
// The head, which is generated, declares
//
//     M, N, K            sizes: x is [M, K], y is [K, N]
//     ROWS, COLUMNS      of a lane
//     LANES              threads of a workgroup
//     STEP               how many k `step` takes at once
//     K_STEPPED          how many k are taken in steps
//     GROUPS, EXACT      workgroups that have work; whether there are no others
//     GROUPS_M, GROUPS_N workgroups along the rows and columns of one batch
//     workgroup_index    (workgroup: vec3<u32>) -> u32
//     WHOLE              whether no tile reaches beyond the last row or column
//     Sums               array of ROWS * COLUMNS f32
//     all_equal          (value) -> Sums
//     Starts             where a lane's parts of x and y are
//     starts             (batch, row, column, lane) -> Starts, from the tile's first row and column
//     step, rest         (sums, starts, k): adds the products of STEP, of one k
//     ROWS_TOGETHER      rows whose sums are finished together
//     Rows               array of ROWS_TOGETHER * COLUMNS f32
//     sums_of            (sums, r) -> Rows, the sums of the rows from r on
//     finish_rows        (sums, batch, row, column): `finish_inside` for a lane's columns
//     index              (batch, row, column) -> position in the output
//     Product            f32, or vec2<f32> where two neighbours of the output are finished together
//     finish_product     (index, product): computes what follows and writes it

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = workgroup_index(workgroup);
    if (!EXACT && group >= GROUPS) {
        return;
    }
    let batch = group / (GROUPS_M * GROUPS_N);
    let tile = group % (GROUPS_M * GROUPS_N);
    let first_row = tile / GROUPS_N * ROWS;
    let first_column = tile % GROUPS_N * (LANES * COLUMNS);
    let at = starts(batch, first_row, first_column, lane);
    // No dispatch has workgroups along z, which no compiler knows: one that sees a constant zero
    // leaves the first addition out, and with it, where it unrolls, the sign of a zero.
    var sums = all_equal(bitcast<f32>(workgroup.z));
    for (var k = 0u; k < K_STEPPED; k += STEP) {
        step(&sums, at, k);
    }
    if (K_STEPPED < K) {
        for (var k = K_STEPPED; k < K; k += 1u) {
            rest(&sums, at, k);
        }
    }
    // A loop, because the code of `finish` is long.
    let column = first_column + lane * COLUMNS;
    for (var r = 0u; r < ROWS; r += ROWS_TOGETHER) {
        finish_rows(sums_of(&sums, r), batch, first_row + r, column);
    }
}

fn finish_inside(batch: u32, row: u32, column: u32, product: Product) {
    if (WHOLE || (row < M && column < N)) {
        finish_product(index(batch, row, column), product);
    }
}
