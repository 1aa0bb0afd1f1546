//! The graph as text, one node a line, fit for a diff.

use std::fmt;

use super::{Binary, Comparison, DType, Graph, Node, NodeId, Op, Scalar, Shape, Unary, Values};

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::Int => "int",
            DType::Bool => "bool",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Input(id) => write!(f, "input {}", id.0),
            Op::Parameter(id) => write!(f, "parameter {}", id.0),
            Op::Constant(id) => write!(f, "constant {}", id.0),
            Op::Unary(unary) => write!(f, "{unary}"),
            Op::Scalar(scalar, value) => write!(f, "{scalar} {value:?}"),
            Op::Binary(binary) => write!(f, "{binary}"),
            Op::Compare(comparison) => write!(f, "{comparison}"),
            Op::CompareScalar(comparison, value) => write!(f, "{comparison} {value:?}"),
            Op::Where => f.write_str("where"),
            Op::Fill(value) => write!(f, "fill {value:?}"),
            Op::Cast(dtype) => write!(f, "cast {dtype}"),
            Op::Matmul => f.write_str("matmul"),
            Op::Sum(axes) => write!(f, "sum {axes:?}"),
            Op::ArgMax(axis) => write!(f, "argmax {axis}"),
            Op::ArgMin(axis) => write!(f, "argmin {axis}"),
            Op::Reshape(shape) => write!(f, "reshape {shape}"),
            Op::Permute(axes) => write!(f, "permute {axes:?}"),
            Op::Expand(shape) => write!(f, "expand {shape}"),
            Op::Slice { axis, start, end } => write!(f, "slice {axis} {start}..{end}"),
            Op::Pad { axis, before, after } => write!(f, "pad {axis} {before} {after}"),
            Op::Concatenate(axis) => write!(f, "concatenate {axis}"),
            Op::Gather(axis) => write!(f, "gather {axis}"),
            Op::ScatterAdd { axis, size } => write!(f, "scatter_add {axis} {size}"),
            Op::Embedding => f.write_str("embedding"),
            Op::EmbeddingGradient { rows } => write!(f, "embedding_gradient {rows}"),
            Op::Softmax => f.write_str("softmax"),
            Op::SoftmaxGradient => f.write_str("softmax_gradient"),
            Op::LogSoftmax => f.write_str("log_softmax"),
            Op::LogSoftmaxGradient => f.write_str("log_softmax_gradient"),
            Op::LayerNorm(epsilon) => write!(f, "layer_norm {epsilon:?}"),
            Op::LayerNormGradient(epsilon) => write!(f, "layer_norm_gradient {epsilon:?}"),
            Op::LayerNormGradientGamma(epsilon) => {
                write!(f, "layer_norm_gradient_gamma {epsilon:?}")
            }
            Op::Conv2d(convolution) => write!(f, "conv2d {convolution}"),
            Op::Conv2dInputGradient { convolution, size } => {
                write!(f, "conv2d_input_gradient {size:?} {convolution}")
            }
            Op::Conv2dWeightGradient { convolution, kernel } => {
                write!(f, "conv2d_weight_gradient {kernel:?} {convolution}")
            }
            Op::MaxPool2d(pool) => write!(f, "max_pool2d {pool}"),
            Op::MaxPool2dGradient(pool) => write!(f, "max_pool2d_gradient {pool}"),
            Op::AvgPool2d { pool, count_padding } => {
                write!(f, "avg_pool2d {pool}{}", counted(*count_padding))
            }
            Op::AvgPool2dGradient { pool, count_padding, size } => {
                write!(f, "avg_pool2d_gradient {size:?} {pool}{}", counted(*count_padding))
            }
            Op::UnaryGradient(unary) => write!(f, "{unary}_gradient"),
            Op::Dropout { layer, probability } => write!(f, "dropout {layer} {probability:?}"),
        }
    }
}

fn counted(padding: bool) -> &'static str {
    if padding { " padding counts" } else { "" }
}

macro_rules! lowercase {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&format!("{self:?}").to_lowercase())
            }
        }
    )*};
}

lowercase!(Unary, Scalar, Binary, Comparison);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} = {}", self.dtype, self.shape, self.op)?;
        let mut separator = " ";
        for input in &self.inputs {
            write!(f, "{separator}{input}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in self.ids() {
            write!(f, "{id}: {}", self[id])?;
            match self[id].op {
                Op::Parameter(parameter) => {
                    let parameter = &self.parameters[parameter.index()];
                    let frozen = if parameter.trained { "" } else { ", frozen" };
                    write!(f, "  # {}{frozen}", parameter.path)?;
                }
                Op::Constant(constant) => {
                    let values = &self.constants[constant.0 as usize].values;
                    write!(f, "  # {:016x}", fingerprint(values))?;
                }
                _ => {}
            }
            if self.boundaries.contains(&id) {
                write!(f, "  # boundary")?;
            }
            writeln!(f)?;
        }
        match self.loss {
            Some(loss) => writeln!(f, "loss {loss}"),
            None => Ok(()),
        }
    }
}

/// Tells constants apart in a printed graph without printing their values.
fn fingerprint(values: &Values) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    match values {
        Values::F32(values) => hasher.update(bytemuck::cast_slice(values)),
        Values::Int(values) => hasher.update(bytemuck::cast_slice(values)),
        Values::Bool(values) => values.iter().for_each(|&value| hasher.update(&[value.into()])),
    }
    hasher.digest()
}
