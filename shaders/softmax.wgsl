// Softmax and log-softmax along rows, and their gradients; one thread computes one row, from its
// first column to its last.
//
//     softmax               y = exp(x - max) / sum(exp(x - max))
//     log_softmax           y = x - max - log(sum(exp(x - max)))
//     softmax_gradient      y (g - sum(g y))                       from the output y
//     log_softmax_gradient  g - exp(y) sum(g)                      from the output y
//
// The head has ROWS and COLUMNS, `first(i)` and `second(i)`, which load element i of x and g or of
// y and g, `w0`, the grid, and `compute(row)`, which calls one of these.

fn largest(row: u32) -> f32 {
    var most = first(row * COLUMNS);
    for (var c = 1u; c < COLUMNS; c += 1u) {
        let x = first(row * COLUMNS + c);
        most = select(most, x, x > most);
    }
    return most;
}

fn softmax(row: u32) {
    let most = largest(row);
    var sum = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let e = exp_(first(row * COLUMNS + c) - most);
        w0[row * COLUMNS + c] = e;
        sum += e;
    }
    let scale = 1.0 / sum;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        w0[row * COLUMNS + c] = w0[row * COLUMNS + c] * scale;
    }
}

fn log_softmax(row: u32) {
    let most = largest(row);
    var sum = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        sum += exp_(first(row * COLUMNS + c) - most);
    }
    let shift = log_(sum);
    for (var c = 0u; c < COLUMNS; c += 1u) {
        w0[row * COLUMNS + c] = first(row * COLUMNS + c) - most - shift;
    }
}

fn softmax_gradient(row: u32) {
    var sum = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        sum = fma(first(row * COLUMNS + c), second(row * COLUMNS + c), sum);
    }
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let i = row * COLUMNS + c;
        w0[i] = first(i) * (second(i) - sum);
    }
}

fn log_softmax_gradient(row: u32) {
    var sum = 0.0;
    for (var c = 0u; c < COLUMNS; c += 1u) {
        sum += second(row * COLUMNS + c);
    }
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let i = row * COLUMNS + c;
        w0[i] = fma(-exp_(first(i)), sum, second(i));
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = thread_index(workgroup, local);
    if (row < ROWS) {
        compute(row);
    }
}
