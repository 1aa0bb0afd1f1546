//! Convolutions, pools and their gradients to WGSL.

use super::Shader;
use super::bindings::{Loads, Neighbours, grid};
use super::matmul::Abilities;
use crate::engine::wgpu::kernel::Kernel;
use crate::graph::{Convolution, Op, Pool};

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
pub(super) fn window(kernel: &Kernel, op: &Op, abilities: &Abilities) -> Shader {
    let of = Window::of(kernel, op);
    let outputs: usize = kernel.writes[0].shape.iter().product();
    let grid = grid(outputs, WORKGROUP);
    let loads = Loads::new(kernel, abilities, &vec![Neighbours::One; kernel.reads.len()]);
    let mut source = loads.head + &grid.wgsl();
    source += &format!("const OUTPUTS: u32 = {outputs}u;\n{}", of.constants());
    if let Op::AvgPool2d { count_padding, .. } | Op::AvgPool2dGradient { count_padding, .. } = op {
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

impl Window {
    fn of(kernel: &Kernel, op: &Op) -> Self {
        let sizes = |of: &[usize]| <[usize; 4]>::try_from(of).expect("the graph was verified");
        let read = |n: usize| sizes(&kernel.reads[n].view.shape);
        let output = sizes(&kernel.writes[0].shape);
        let last = |of: [usize; 4]| [of[2], of[3]];
        let (images, windows) = match op {
            Op::Conv2d(_) | Op::MaxPool2d(_) | Op::AvgPool2d { .. } => (read(0), output),
            Op::Conv2dInputGradient { .. } => (output, read(1)),
            Op::Conv2dWeightGradient { .. } => (read(0), read(1)),
            Op::MaxPool2dGradient(_) => (output, read(1)),
            _ => (output, read(0)),
        };
        match op {
            Op::Conv2d(of) => Self::convolution("conv2d", of, images, windows, last(read(1))),
            Op::Conv2dInputGradient { convolution: of, .. } => {
                Self::convolution("conv2d_input_gradient", of, images, windows, last(read(0)))
            }
            Op::Conv2dWeightGradient { convolution: of, .. } => {
                Self::convolution("conv2d_weight_gradient", of, images, windows, last(output))
            }
            Op::MaxPool2d(of) => Self::pool("max_pool2d", LARGEST, of, images, windows),
            Op::MaxPool2dGradient(of) => {
                Self::pool("max_pool2d_gradient", LARGEST, of, images, windows)
            }
            Op::AvgPool2d { pool: of, .. } => Self::pool("avg_pool2d", MEAN, of, images, windows),
            Op::AvgPool2dGradient { pool: of, .. } => {
                Self::pool("avg_pool2d_gradient", MEAN, of, images, windows)
            }
            op => unreachable!("{op} moves no window"),
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
