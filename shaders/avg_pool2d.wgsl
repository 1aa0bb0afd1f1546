// The mean of every window of images [n, c, HEIGHT, WIDTH], and the gradient of that. A window has
// as many elements as it shares with the image or, with COUNT_PADDING, with the padded image. The
// only read are the images, or the gradient of the windows. See window.wgsl.

// Elements of a window along one axis.
fn count(at: u32, size: u32, kernel: u32, before: u32) -> u32 {
    let padding = select(0u, before, COUNT_PADDING);
    let start = max(at, before - padding);
    let end = min(at + kernel, size + before + padding);
    return select(0u, end - start, end > start);
}

fn elements(r: u32, s: u32) -> f32 {
    let down = count(r * STRIDE_Y, HEIGHT, KERNEL_Y, BEFORE_Y);
    let across = count(s * STRIDE_X, WIDTH, KERNEL_X, BEFORE_X);
    return f32(max(down * across, 1u));
}

fn avg_pool2d(i: u32) -> f32 {
    let s = i % COLUMNS;
    let r = i / COLUMNS % ROWS;
    let image = i / (COLUMNS * ROWS);
    var total = 0.0;
    for (var k = 0u; k < KERNEL_Y + (i >> 31u); k += 1u) {
        let y = r * STRIDE_Y + k - BEFORE_Y;
        if (y < HEIGHT) {
            for (var l = 0u; l < KERNEL_X + (i >> 31u); l += 1u) {
                let x = s * STRIDE_X + l - BEFORE_X;
                if (x < WIDTH) {
                    total += first((image * HEIGHT + y) * WIDTH + x);
                }
            }
        }
    }
    return total / elements(r, s);
}

// Windows in ascending order are elements of a window in descending order.
fn avg_pool2d_gradient(i: u32) -> f32 {
    let x = i % WIDTH;
    let y = i / WIDTH % HEIGHT;
    let image = i / (WIDTH * HEIGHT);
    var total = 0.0;
    for (var k = KERNEL_Y; k > (i >> 31u); k -= 1u) {
        let down = y + BEFORE_Y - (k - 1u);
        let r = down / STRIDE_Y;
        if (down % STRIDE_Y == 0u && r < ROWS) {
            for (var l = KERNEL_X; l > (i >> 31u); l -= 1u) {
                let across = x + BEFORE_X - (l - 1u);
                let s = across / STRIDE_X;
                if (across % STRIDE_X == 0u && s < COLUMNS) {
                    total += first((image * ROWS + r) * COLUMNS + s) / elements(r, s);
                }
            }
        }
    }
    return total;
}
