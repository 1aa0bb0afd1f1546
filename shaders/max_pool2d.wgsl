// The largest element of every window of images [n, c, HEIGHT, WIDTH], and the gradient of that,
// which goes to the element that was the largest: the first of several, or the last that is NaN.
// The first read are the images, the second the gradient of the windows. See window.wgsl.

const NOTHING: u32 = 0xffffffffu;

// A variable, so that compilers do not take minus infinity for a mistake.
var<private> minus_infinity: u32 = 0xff800000u;

fn is_nan_(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Where in its image the largest element of a window is. An image is one channel of one example.
fn largest(image: u32, r: u32, s: u32) -> u32 {
    var at = NOTHING;
    var best = 0.0;
    for (var k = 0u; k < KERNEL_Y + (r >> 31u); k += 1u) {
        let y = r * STRIDE_Y + k * DILATION_Y - BEFORE_Y;
        if (y < HEIGHT) {
            for (var l = 0u; l < KERNEL_X + (s >> 31u); l += 1u) {
                let x = s * STRIDE_X + l * DILATION_X - BEFORE_X;
                if (x < WIDTH) {
                    let value = first((image * HEIGHT + y) * WIDTH + x);
                    let larger = value > best && !is_nan_(best);
                    if (at == NOTHING || larger || is_nan_(value)) {
                        at = y * WIDTH + x;
                        best = value;
                    }
                }
            }
        }
    }
    return at;
}

fn max_pool2d(i: u32) -> f32 {
    let image = i / (COLUMNS * ROWS);
    let at = largest(image, i / COLUMNS % ROWS, i % COLUMNS);
    if (at == NOTHING) {
        return bitcast<f32>(minus_infinity);
    }
    return first(image * HEIGHT * WIDTH + at);
}

// Windows in ascending order are elements of a window in descending order.
fn max_pool2d_gradient(i: u32) -> f32 {
    let x = i % WIDTH;
    let y = i / WIDTH % HEIGHT;
    let image = i / (WIDTH * HEIGHT);
    var total = 0.0;
    for (var k = KERNEL_Y; k > (i >> 31u); k -= 1u) {
        let down = y + BEFORE_Y - (k - 1u) * DILATION_Y;
        let r = down / STRIDE_Y;
        if (down % STRIDE_Y == 0u && r < ROWS) {
            for (var l = KERNEL_X; l > (i >> 31u); l -= 1u) {
                let across = x + BEFORE_X - (l - 1u) * DILATION_X;
                let s = across / STRIDE_X;
                if (across % STRIDE_X == 0u && s < COLUMNS) {
                    if (largest(image, r, s) == y * WIDTH + x) {
                        total += second((image * ROWS + r) * COLUMNS + s);
                    }
                }
            }
        }
    }
    return total;
}
