// Convolution of images x [n, CHANNELS, HEIGHT, WIDTH] with a weight
// w [WINDOW_CHANNELS, GROUP, KERNEL_Y, KERNEL_X]:
//     y[n][d][r][s] = sum over c, k, l of x[n][b + c][r'][s'] w[d][c][k][l],
// where (r', s') is element (k, l) of window (r, s), and b the first channel of d's group. Each
// gradient is the sum of the products in which its element stands. GROUP and WINDOW_GROUP are the
// channels of a group in x and in y. See window.wgsl.

// Sizes that compilers are not to know: unrolled loops take them longer than they are worth.
fn hidden(size: u32, i: u32) -> u32 {
    return size + (i >> 31u);
}

// The first read is x, the second w.
fn conv2d(i: u32) -> f32 {
    let s = i % COLUMNS;
    let r = i / COLUMNS % ROWS;
    let d = i / (COLUMNS * ROWS) % WINDOW_CHANNELS;
    let n = i / (COLUMNS * ROWS * WINDOW_CHANNELS);
    let channel = n * CHANNELS + d / WINDOW_GROUP * GROUP;
    var total = 0.0;
    for (var c = 0u; c < hidden(GROUP, i); c += 1u) {
        for (var k = 0u; k < hidden(KERNEL_Y, i); k += 1u) {
            let y = r * STRIDE_Y + k * DILATION_Y - BEFORE_Y;
            if (y < HEIGHT) {
                let row = ((channel + c) * HEIGHT + y) * WIDTH;
                let weights = ((d * GROUP + c) * KERNEL_Y + k) * KERNEL_X;
                for (var l = 0u; l < hidden(KERNEL_X, i); l += 1u) {
                    let x = s * STRIDE_X + l * DILATION_X - BEFORE_X;
                    if (x < WIDTH) {
                        total = fma(first(row + x), second(weights + l), total);
                    }
                }
            }
        }
    }
    return total;
}

// The first read is w, the second the gradient of y. Element (k, l) of a window is at (y, x) where
// STRIDE divides y + BEFORE - k DILATION.
fn conv2d_input_gradient(i: u32) -> f32 {
    let x = i % WIDTH;
    let y = i / WIDTH % HEIGHT;
    let channel = i / (WIDTH * HEIGHT) % CHANNELS;
    let n = i / (WIDTH * HEIGHT * CHANNELS);
    let group = channel / GROUP;
    let c = channel % GROUP;
    var total = 0.0;
    for (var e = 0u; e < hidden(WINDOW_GROUP, i); e += 1u) {
        let d = group * WINDOW_GROUP + e;
        for (var k = 0u; k < hidden(KERNEL_Y, i); k += 1u) {
            let down = y + BEFORE_Y - k * DILATION_Y;
            if (down % STRIDE_Y == 0u && down / STRIDE_Y < ROWS) {
                let row = ((n * WINDOW_CHANNELS + d) * ROWS + down / STRIDE_Y) * COLUMNS;
                let weights = ((d * GROUP + c) * KERNEL_Y + k) * KERNEL_X;
                for (var l = 0u; l < hidden(KERNEL_X, i); l += 1u) {
                    let across = x + BEFORE_X - l * DILATION_X;
                    if (across % STRIDE_X == 0u && across / STRIDE_X < COLUMNS) {
                        total = fma(first(weights + l), second(row + across / STRIDE_X), total);
                    }
                }
            }
        }
    }
    return total;
}

// The first read is x, the second the gradient of y.
fn conv2d_weight_gradient(i: u32) -> f32 {
    let l = i % KERNEL_X;
    let k = i / KERNEL_X % KERNEL_Y;
    let c = i / (KERNEL_X * KERNEL_Y) % GROUP;
    let d = i / (KERNEL_X * KERNEL_Y * GROUP);
    let channel = d / WINDOW_GROUP * GROUP + c;
    var total = 0.0;
    for (var n = 0u; n < hidden(BATCH, i); n += 1u) {
        for (var r = 0u; r < hidden(ROWS, i); r += 1u) {
            let y = r * STRIDE_Y + k * DILATION_Y - BEFORE_Y;
            if (y < HEIGHT) {
                let row = ((n * CHANNELS + channel) * HEIGHT + y) * WIDTH;
                let gradients = ((n * WINDOW_CHANNELS + d) * ROWS + r) * COLUMNS;
                for (var s = 0u; s < hidden(COLUMNS, i); s += 1u) {
                    let x = s * STRIDE_X + l * DILATION_X - BEFORE_X;
                    if (x < WIDTH) {
                        total = fma(first(row + x), second(gradients + s), total);
                    }
                }
            }
        }
    }
    return total;
}
