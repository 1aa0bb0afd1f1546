//! Functions of the windows of images.

use std::fmt;

use super::rule::{Output, images};
use crate::graph::{Convolution, DType, Node, Pool, Shape};

/// Computes from the windows of images `[batch, channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windowed {
    /// Cross-correlation of images `x: [n, c, h, w]` with the weight `y: [d, c / groups, i, j]`,
    /// giving `[n, d, windows]`: the sum of `x * y` over every window.
    Conv2d(Convolution),
    /// Gradient of [`Windowed::Conv2d`] for `x`, from the weight and `g`. It is the transposed
    /// convolution of `g`.
    Conv2dInputGradient {
        /// How the windows move.
        convolution: Convolution,
        /// Height and width of `x`.
        size: [usize; 2],
    },
    /// Gradient of [`Windowed::Conv2d`] for the weight, from `x` and `g`.
    Conv2dWeightGradient {
        /// How the windows move.
        convolution: Convolution,
        /// Height and width of the weight.
        kernel: [usize; 2],
    },
    /// The largest element of every window of `x: [n, c, h, w]`, minus infinity if there is none.
    MaxPool2d(Pool),
    /// Gradient of [`Windowed::MaxPool2d`] for `x`, from `x` and `g`: it goes to the first largest
    /// element of the window in row-major order, or to the last that is NaN.
    MaxPool2dGradient(Pool),
    /// The mean of every window of `x: [n, c, h, w]`.
    AvgPool2d {
        /// How the windows move; their dilation is 1.
        pool: Pool,
        /// Whether padding counts as elements that are zero.
        count_padding: bool,
    },
    /// Gradient of [`Windowed::AvgPool2d`] for `x`, from `g`.
    AvgPool2dGradient {
        /// How the windows move; their dilation is 1.
        pool: Pool,
        /// Whether padding counts as elements that are zero.
        count_padding: bool,
        /// Height and width of `x`.
        size: [usize; 2],
    },
}

impl Windowed {
    /// Whether the op multiplies images or gradients by a weight or by each other.
    pub fn is_convolution(&self) -> bool {
        match self {
            Windowed::Conv2d(_) | Windowed::Conv2dInputGradient { .. } => true,
            Windowed::Conv2dWeightGradient { .. } => true,
            Windowed::MaxPool2d(_) | Windowed::MaxPool2dGradient(_) => false,
            Windowed::AvgPool2d { .. } | Windowed::AvgPool2dGradient { .. } => false,
        }
    }

    pub(super) fn operands(&self) -> usize {
        match self {
            Windowed::Conv2d(_) | Windowed::Conv2dInputGradient { .. } => 2,
            Windowed::Conv2dWeightGradient { .. } | Windowed::MaxPool2dGradient(_) => 2,
            Windowed::MaxPool2d(_) | Windowed::AvgPool2d { .. } => 1,
            Windowed::AvgPool2dGradient { .. } => 1,
        }
    }

    pub(super) fn output(&self, operands: &[&Node]) -> Output {
        let dims = match *self {
            Windowed::Conv2d(of) => conv2d(of, images(operands[0])?, images(operands[1])?)?,
            Windowed::Conv2dInputGradient { convolution, size } => {
                input_gradient(convolution, size, images(operands[0])?, images(operands[1])?)?
            }
            Windowed::Conv2dWeightGradient { convolution, kernel } => {
                weight_gradient(convolution, kernel, images(operands[0])?, images(operands[1])?)?
            }
            Windowed::MaxPool2d(of) => pooled(of, images(operands[0])?)?,
            Windowed::MaxPool2dGradient(of) => {
                let x = images(operands[0])?;
                if images(operands[1])? != pooled(of, x)? {
                    return Err("a gradient for every window".into());
                }
                x
            }
            Windowed::AvgPool2d { pool: of, .. } => {
                undilated(of)?;
                pooled(of, images(operands[0])?)?
            }
            Windowed::AvgPool2dGradient { pool: of, size, .. } => {
                undilated(of)?;
                let g @ [n, c, ..] = images(operands[0])?;
                let x = [n, c, size[0], size[1]];
                if pooled(of, x)? != g {
                    return Err("a gradient for every window".into());
                }
                x
            }
        };
        Ok((Shape(dims.to_vec()), DType::F32))
    }
}

type Dims = Result<[usize; 4], String>;

fn conv2d(of: Convolution, [n, channels, h, w]: [usize; 4], weight: [usize; 4]) -> Dims {
    let [d, part, i, j] = weight;
    per_group(of, d)?;
    if per_group(of, channels)? != part {
        return Err("a weight [d, channels / groups, i, j]".into());
    }
    let [rows, columns] = windows(of, [h, w], [i, j])?;
    Ok([n, d, rows, columns])
}

fn input_gradient(of: Convolution, size: [usize; 2], weight: [usize; 4], g: [usize; 4]) -> Dims {
    let [d, part, i, j] = weight;
    let [n, of_windows, rows, columns] = g;
    per_group(of, d)?;
    if of_windows != d || windows(of, size, [i, j])? != [rows, columns] {
        return Err("a gradient [batch, d, windows] for a weight [d, ..]".into());
    }
    Ok([n, part * of.groups, size[0], size[1]])
}

fn weight_gradient(of: Convolution, kernel: [usize; 2], x: [usize; 4], g: [usize; 4]) -> Dims {
    let [n, channels, h, w] = x;
    let [of_batch, d, rows, columns] = g;
    per_group(of, d)?;
    if of_batch != n || windows(of, [h, w], kernel)? != [rows, columns] {
        return Err("a gradient [batch, d, windows] for images [batch, ..]".into());
    }
    Ok([d, per_group(of, channels)?, kernel[0], kernel[1]])
}

fn windows(
    of: Convolution,
    size: [usize; 2],
    kernel: [usize; 2],
) -> Result<[usize; 2], &'static str> {
    of.windows(size, kernel).ok_or("a window that fits into the padded image")
}

fn per_group(of: Convolution, channels: usize) -> Result<usize, &'static str> {
    let parts = channels.checked_div(of.groups).filter(|parts| parts * of.groups == channels);
    parts.ok_or("channels in equal groups")
}

fn pooled(of: Pool, [n, c, h, w]: [usize; 4]) -> Dims {
    let [rows, columns] = of.windows([h, w]).ok_or("a window that fits into the padded image")?;
    Ok([n, c, rows, columns])
}

fn undilated(of: Pool) -> Result<(), &'static str> {
    if of.dilation == [1, 1] { Ok(()) } else { Err("a dilation of 1") }
}

impl fmt::Display for Windowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Windowed::Conv2d(convolution) => write!(f, "conv2d {convolution}"),
            Windowed::Conv2dInputGradient { convolution, size } => {
                write!(f, "conv2d_input_gradient {size:?} {convolution}")
            }
            Windowed::Conv2dWeightGradient { convolution, kernel } => {
                write!(f, "conv2d_weight_gradient {kernel:?} {convolution}")
            }
            Windowed::MaxPool2d(pool) => write!(f, "max_pool2d {pool}"),
            Windowed::MaxPool2dGradient(pool) => write!(f, "max_pool2d_gradient {pool}"),
            Windowed::AvgPool2d { pool, count_padding } => {
                write!(f, "avg_pool2d {pool}{}", counted(*count_padding))
            }
            Windowed::AvgPool2dGradient { pool, count_padding, size } => {
                write!(f, "avg_pool2d_gradient {size:?} {pool}{}", counted(*count_padding))
            }
        }
    }
}

fn counted(padding: bool) -> &'static str {
    if padding { " padding counts" } else { "" }
}
