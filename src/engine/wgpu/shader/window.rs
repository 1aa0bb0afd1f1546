//! Convolutions, pools and their gradients to WGSL.

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid};
use crate::engine::wgpu::kernel::Kernel;
use crate::graph::{Convolution, Pool, Windowed};

/// Threads of a workgroup: few, as a thread has much to do and outputs may be few.
const WORKGROUP: usize = 16;

/// What moves, and over what.
struct Window {
    name: &'static str,
    body: &'static str,
    /// Sizes of the images and of what has an element for every window, `[n, c, h, w]`.
    images: [usize; 4],
    windows: [usize; 4],
    kernel: [usize; 2],
    stride: [usize; 2],
    before: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

const CONVOLUTION: &str = include_str!("../../../../shaders/conv2d.wgsl");
const LARGEST: &str = include_str!("../../../../shaders/max_pool2d.wgsl");
const MEAN: &str = include_str!("../../../../shaders/avg_pool2d.wgsl");

/// The shader of a kernel whose body is a window's.
pub(super) fn window(kernel: &Kernel, op: Windowed, abilities: &Abilities) -> Shader {
    let of = Window::of(kernel, op);
    let outputs: usize = kernel.writes[0].shape.iter().product();
    let grid = grid(outputs, WORKGROUP);
    let loads = Loads::new(kernel, abilities, &vec![Neighbours::One; kernel.reads.len()]);
    let mut source = loads.head + &grid.wgsl();
    source += &format!("const OUTPUTS: u32 = {outputs}u;\n{}", of.constants());
    if let Windowed::AvgPool2d { count_padding, .. }
    | Windowed::AvgPool2dGradient { count_padding, .. } = op
    {
        source += &format!("const COUNT_PADDING: bool = {count_padding};\n");
    }
    source += "fn first(i: u32) -> f32 { return r0_one(i); }\n";
    source += match kernel.reads.len() {
        // The body names it, but what is computed does not use it.
        1 => "fn second(i: u32) -> f32 { return 0.0; }\n",
        _ => "fn second(i: u32) -> f32 { return r1_one(i); }\n",
    };
    source += of.body;
    source += include_str!("../../../../shaders/window.wgsl");
    source += &format!("fn compute(i: u32) {{ w0_put(i, {}(i)); }}\n", of.name);
    let label = format!("{} of {:?} by {:?}", of.name, of.images, of.windows);
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// About how often a thread goes round its nested loops, at most. Software Vulkan ends a loop in a
/// round of its own, in which every loop within makes one too.
pub(super) fn rounds(kernel: &Kernel, op: Windowed) -> usize {
    let of_read = |read: usize| sizes(&kernel.reads[read].view.shape);
    let nested = |sizes: &[usize]| {
        let ascending = (1..).zip(sizes.iter().rev());
        ascending.fold(0, |inner, (loops, size)| size * (1 + inner) + loops)
    };
    match op {
        Windowed::Conv2d(_) => nested(&of_read(1)[1..]),
        Windowed::Conv2dInputGradient { convolution, .. } => {
            let [channels, _, k, l] = of_read(0);
            nested(&[channels / convolution.groups, k, l])
        }
        Windowed::Conv2dWeightGradient { .. } => {
            let [batch, _, rows, columns] = of_read(1);
            nested(&[batch, rows, columns])
        }
        // Every window that an element is in is searched.
        Windowed::MaxPool2dGradient(pool) => nested(&[pool.kernel, pool.kernel].concat()),
        Windowed::MaxPool2d(pool) => nested(&pool.kernel),
        Windowed::AvgPool2d { pool, .. } | Windowed::AvgPool2dGradient { pool, .. } => {
            nested(&pool.kernel)
        }
    }
}

/// Sizes of images, of a weight or of windows.
fn sizes(of: &[usize]) -> [usize; 4] {
    of.try_into().expect("the graph was verified")
}

impl Window {
    fn of(kernel: &Kernel, op: Windowed) -> Self {
        let read = |n: usize| sizes(&kernel.reads[n].view.shape);
        let output = sizes(&kernel.writes[0].shape);
        let last = |of: [usize; 4]| [of[2], of[3]];
        let (images, windows) = match &op {
            Windowed::Conv2d(_) | Windowed::MaxPool2d(_) | Windowed::AvgPool2d { .. } => {
                (read(0), output)
            }
            Windowed::Conv2dInputGradient { .. } => (output, read(1)),
            Windowed::Conv2dWeightGradient { .. } => (read(0), read(1)),
            Windowed::MaxPool2dGradient(_) => (output, read(1)),
            Windowed::AvgPool2dGradient { .. } => (output, read(0)),
        };
        match &op {
            Windowed::Conv2d(of) => Self::convolution("conv2d", of, images, windows, last(read(1))),
            Windowed::Conv2dInputGradient { convolution: of, .. } => {
                Self::convolution("conv2d_input_gradient", of, images, windows, last(read(0)))
            }
            Windowed::Conv2dWeightGradient { convolution: of, .. } => {
                Self::convolution("conv2d_weight_gradient", of, images, windows, last(output))
            }
            Windowed::MaxPool2d(of) => Self::pool("max_pool2d", LARGEST, of, images, windows),
            Windowed::MaxPool2dGradient(of) => {
                Self::pool("max_pool2d_gradient", LARGEST, of, images, windows)
            }
            Windowed::AvgPool2d { pool: of, .. } => {
                Self::pool("avg_pool2d", MEAN, of, images, windows)
            }
            Windowed::AvgPool2dGradient { pool: of, .. } => {
                Self::pool("avg_pool2d_gradient", MEAN, of, images, windows)
            }
        }
    }

    fn convolution(
        name: &'static str,
        of: &Convolution,
        images: [usize; 4],
        windows: [usize; 4],
        kernel: [usize; 2],
    ) -> Self {
        let &Convolution { stride, padding, dilation, groups } = of;
        let before = padding.map(|(before, _)| before);
        let body = CONVOLUTION;
        Self { name, body, images, windows, kernel, stride, before, dilation, groups }
    }

    fn pool(
        name: &'static str,
        body: &'static str,
        of: &Pool,
        images: [usize; 4],
        windows: [usize; 4],
    ) -> Self {
        let &Pool { kernel, stride, padding: before, dilation, .. } = of;
        Self { name, body, images, windows, kernel, stride, before, dilation, groups: 1 }
    }

    /// The sizes as WGSL.
    fn constants(&self) -> String {
        let [batch, channels, height, width] = self.images;
        let [_, window_channels, rows, columns] = self.windows;
        let mut text = String::new();
        for (name, value) in [
            ("BATCH", batch),
            ("CHANNELS", channels),
            ("HEIGHT", height),
            ("WIDTH", width),
            ("WINDOW_CHANNELS", window_channels),
            ("ROWS", rows),
            ("COLUMNS", columns),
            ("GROUP", channels / self.groups),
            ("WINDOW_GROUP", window_channels / self.groups),
        ] {
            text += &format!("const {name}: u32 = {value}u;\n");
        }
        for (name, [y, x]) in [
            ("KERNEL", self.kernel),
            ("STRIDE", self.stride),
            ("BEFORE", self.before),
            ("DILATION", self.dilation),
        ] {
            text += &format!("const {name}_Y: u32 = {y}u;\nconst {name}_X: u32 = {x}u;\n");
        }
        text
    }
}
