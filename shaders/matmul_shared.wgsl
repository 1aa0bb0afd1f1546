// Products of matrices with tiles of both factors in shared memory: for every batch
//
//     out[row][column] = sum over k of x[row][k] * y[k][column]
//
// added up for ascending k from 0 with `fma`, one chain per element, so that every tile gives the
// same bits. A workgroup of THREADS_M * THREADS_N threads computes a tile of TILE_M * TILE_N; a
// thread computes every THREADS_M-th of its rows and every THREADS_N-th of its columns.
//
// Bindings: the kernel's, x first, then y, and others only as `finish` needs them.
//
// The head, which is generated, declares
//
//     M, N, K              sizes: x is [M, K], y is [K, N]
//     ROWS, COLUMNS        of a thread
//     THREADS_M, THREADS_N threads along the rows and the columns of a tile
//     TILE_K               how many k are in shared memory at once
//     GROUPS, EXACT        workgroups that have work; whether there are no others
//     GROUPS_M, GROUPS_N   workgroups along the rows and columns of one batch
//     X_ALONG_K, Y_ALONG_K whether neighbours along k are neighbours in memory
//     workgroup_index      (workgroup: vec3<u32>) -> u32
//     x_start, y_start     (batch) -> position of the batch's first element
//     x_at                 (start, row, k) -> element of x
//     y_at                 (start, k, column) -> element of y
//     index                (batch, row, column) -> position in the output
//     finish               (index, product): computes what follows and writes it

const THREADS: u32 = THREADS_M * THREADS_N;
const TILE_M: u32 = ROWS * THREADS_M;
const TILE_N: u32 = COLUMNS * THREADS_N;
// One more than the tile has, so that threads that store neighbours along k use other banks.
const X_PITCH: u32 = TILE_M + 1u;
const Y_PITCH: u32 = TILE_N + 1u;

var<workgroup> x_tile: array<f32, TILE_K * X_PITCH>;
var<workgroup> y_tile: array<f32, TILE_K * Y_PITCH>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = workgroup_index(workgroup);
    if (!EXACT && group >= GROUPS) {
        return;
    }
    let batch = group / (GROUPS_M * GROUPS_N);
    let tile = group % (GROUPS_M * GROUPS_N);
    let first_row = tile / GROUPS_N * TILE_M;
    let first_column = tile % GROUPS_N * TILE_N;
    let in_row = thread / THREADS_N;
    let in_column = thread % THREADS_N;
    // No dispatch has workgroups along z, which no compiler knows: one that sees a constant zero
    // leaves the first addition out, and with it, where it unrolls, the sign of a zero.
    let zero = bitcast<f32>(workgroup.z);
    var sums: array<array<f32, COLUMNS>, ROWS>;
    for (var r = 0u; r < ROWS; r += 1u) {
        for (var c = 0u; c < COLUMNS; c += 1u) {
            sums[r][c] = zero;
        }
    }
    for (var k = 0u; k < K; k += TILE_K) {
        load_x(batch, first_row, k, thread);
        load_y(batch, first_column, k, thread);
        workgroupBarrier();
        // Not beyond the last k: to add zeros could change the sign of a zero.
        let count = min(TILE_K, K - k);
        for (var n = 0u; n < count; n += 1u) {
            var b: array<f32, COLUMNS>;
            for (var c = 0u; c < COLUMNS; c += 1u) {
                b[c] = y_tile[n * Y_PITCH + in_column + c * THREADS_N];
            }
            for (var r = 0u; r < ROWS; r += 1u) {
                let a = x_tile[n * X_PITCH + in_row + r * THREADS_M];
                for (var c = 0u; c < COLUMNS; c += 1u) {
                    sums[r][c] = fma(a, b[c], sums[r][c]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < ROWS; r += 1u) {
        for (var c = 0u; c < COLUMNS; c += 1u) {
            let row = first_row + in_row + r * THREADS_M;
            let column = first_column + in_column + c * THREADS_N;
            if (row < M && column < N) {
                finish(index(batch, row, column), sums[r][c]);
            }
        }
    }
}

// What lies beyond the last row, column or k is another element again, which nobody uses.
fn load_x(batch: u32, first_row: u32, first_k: u32, thread: u32) {
    let start = x_start(batch);
    for (var n = thread; n < TILE_M * TILE_K; n += THREADS) {
        let row = select(n % TILE_M, n / TILE_K, X_ALONG_K);
        let k = select(n / TILE_M, n % TILE_K, X_ALONG_K);
        let value = x_at(start, min(first_row + row, M - 1u), min(first_k + k, K - 1u));
        x_tile[k * X_PITCH + row] = value;
    }
}

fn load_y(batch: u32, first_column: u32, first_k: u32, thread: u32) {
    let start = y_start(batch);
    for (var n = thread; n < TILE_N * TILE_K; n += THREADS) {
        let column = select(n % TILE_N, n / TILE_K, Y_ALONG_K);
        let k = select(n / TILE_N, n % TILE_K, Y_ALONG_K);
        let value = y_at(start, min(first_k + k, K - 1u), min(first_column + column, N - 1u));
        y_tile[k * Y_PITCH + column] = value;
    }
}
