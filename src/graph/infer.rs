//! Shape and element type of every op's output: the one place where operands are checked.

use super::{Binary, Convolution, DType, Node, Op, Pool, Shape, Unary};
use crate::error::{Error, Result};

/// Output shape and element type of `op` on `operands`.
///
/// # Errors
///
/// Names the op, what it expected and the operands it got.
pub(super) fn output(op: &Op, operands: &[&Node]) -> Result<(Shape, DType)> {
    rule(op, operands).map_err(|expected| {
        let got: Vec<String> = operands.iter().map(|x| format!("{}{}", x.dtype, x.shape)).collect();
        Error::model(format!("expected {expected}, got ({})", got.join(", "))).in_op(op.to_string())
    })
}

type Rule = std::result::Result<(Shape, DType), String>;

fn rule(op: &Op, operands: &[&Node]) -> Rule {
    let counts = op.operand_counts();
    if !counts.contains(&operands.len()) {
        return Err(format!("{} to {} operands", counts.start(), counts.end()));
    }
    match op {
        Op::Input(_) | Op::Parameter(_) | Op::Constant(_) => Err("a leaf to carry its type".into()),
        Op::Unary(_) | Op::Scalar(..) | Op::Binary(_) | Op::Compare(_) | Op::CompareScalar(..) => {
            elementwise(op, operands)
        }
        Op::Where | Op::Fill(_) | Op::Cast(_) | Op::Dropout { .. } | Op::UnaryGradient(_) => {
            elementwise(op, operands)
        }
        Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) => movement(op, operands[0]),
        Op::Slice { .. } | Op::Pad { .. } | Op::Concatenate(_) => ranges(op, operands),
        Op::Sum(axes) => {
            let mut dims = operands[0].shape.0.clone();
            for &axis in axes {
                *dims.get_mut(axis).ok_or("axes of the operand")? = 1;
            }
            Ok((Shape(dims), require(operands[0], DType::F32)?))
        }
        Op::ArgMax(axis) | Op::ArgMin(axis) => {
            require(operands[0], DType::F32)?;
            within(*axis, &operands[0].shape)?;
            Ok((operands[0].shape.reduced(*axis), DType::Int))
        }
        Op::Matmul => matmul(operands[0], operands[1]),
        Op::Gather(_) | Op::ScatterAdd { .. } | Op::Embedding | Op::EmbeddingGradient { .. } => {
            indexing(op, operands)
        }
        Op::Softmax | Op::LogSoftmax | Op::SoftmaxGradient | Op::LogSoftmaxGradient => {
            same_floats(operands)
        }
        Op::LayerNorm(_) | Op::LayerNormGradient(_) | Op::LayerNormGradientGamma(_) => {
            layer_norm(op, operands)
        }
        Op::Conv2d(_) | Op::Conv2dInputGradient { .. } | Op::Conv2dWeightGradient { .. } => {
            convolution(op, operands)
        }
        Op::MaxPool2d(_) | Op::MaxPool2dGradient(_) => pool(op, operands),
        Op::AvgPool2d { .. } | Op::AvgPool2dGradient { .. } => pool(op, operands),
    }
}

fn elementwise(op: &Op, operands: &[&Node]) -> Rule {
    let x = operands[0];
    let same = |dtype| Ok((x.shape.clone(), dtype));
    match op {
        Op::Unary(Unary::Not) => same(require(x, DType::Bool)?),
        Op::Unary(Unary::Neg | Unary::Abs | Unary::Sign) | Op::Scalar(..) => {
            if x.dtype == DType::Bool {
                return Err("numbers".into());
            }
            same(x.dtype)
        }
        Op::Unary(_) | Op::Dropout { .. } => same(require(x, DType::F32)?),
        Op::UnaryGradient(_) => same_floats(operands),
        Op::CompareScalar(..) => same(DType::Bool),
        Op::Cast(dtype) => same(*dtype),
        Op::Binary(binary) => {
            let logical = matches!(binary, Binary::And | Binary::Or);
            if x.dtype != operands[1].dtype || logical != (x.dtype == DType::Bool) {
                return Err("two numbers of one type, or two Bools for and/or".into());
            }
            Ok((broadcast(operands)?, x.dtype))
        }
        Op::Compare(_) => {
            require(operands[1], x.dtype)?;
            Ok((broadcast(operands)?, DType::Bool))
        }
        Op::Where => {
            require(x, DType::Bool)?;
            require(operands[2], operands[1].dtype)?;
            Ok((broadcast(operands)?, operands[1].dtype))
        }
        Op::Fill(_) => {
            require(x, DType::Bool)?;
            Ok((broadcast(operands)?, operands[1].dtype))
        }
        _ => unreachable!("{op} is not elementwise"),
    }
}

fn movement(op: &Op, x: &Node) -> Rule {
    let shape = match op {
        Op::Reshape(shape) if shape.elements() == x.shape.elements() => shape.clone(),
        Op::Reshape(shape) => return Err(format!("{} elements", shape.elements())),
        Op::Permute(axes) => {
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            if sorted != (0..x.shape.rank()).collect::<Vec<_>>() {
                return Err(format!("rank {}", axes.len()));
            }
            Shape(axes.iter().map(|&axis| x.shape.0[axis]).collect())
        }
        Op::Expand(shape) => {
            let fits = shape.rank() == x.shape.rank()
                && shape.0.iter().zip(&x.shape.0).all(|(to, from)| to == from || *from == 1);
            if !fits {
                return Err(format!("a shape that expands to {shape}"));
            }
            shape.clone()
        }
        _ => unreachable!("{op} does not only move elements"),
    };
    Ok((shape, x.dtype))
}

fn ranges(op: &Op, operands: &[&Node]) -> Rule {
    let x = operands[0];
    let mut dims = x.shape.0.clone();
    match *op {
        Op::Slice { axis, start, end } => {
            within(axis, &x.shape)?;
            if start >= end || end > dims[axis] {
                return Err(format!("axis {axis} to hold {start}..{end}"));
            }
            dims[axis] = end - start;
        }
        Op::Pad { axis, before, after } => {
            within(axis, &x.shape)?;
            dims[axis] += before + after;
        }
        Op::Concatenate(axis) => {
            within(axis, &x.shape)?;
            for other in &operands[1..] {
                require(other, x.dtype)?;
                if other.shape.rank() != x.shape.rank()
                    || other.shape.reduced(axis) != x.shape.reduced(axis)
                {
                    return Err(format!("shapes that differ in axis {axis} only"));
                }
                dims[axis] += other.shape.0[axis];
            }
        }
        _ => unreachable!("{op} does not cut or join"),
    }
    Ok((Shape(dims), x.dtype))
}

fn matmul(x: &Node, y: &Node) -> Rule {
    require(x, DType::F32)?;
    require(y, DType::F32)?;
    let (rank, fail) = (x.shape.rank(), || Err("[.., m, k] and [.., k, n]".to_string()));
    if rank < 2 || y.shape.rank() != rank {
        return fail();
    }
    let (x_dims, y_dims) = (&x.shape.0, &y.shape.0);
    if x_dims[rank - 1] != y_dims[rank - 2] {
        return fail();
    }
    let mut dims = Vec::with_capacity(rank);
    for (&a, &b) in x_dims[..rank - 2].iter().zip(&y_dims[..rank - 2]) {
        if a != b && a != 1 && b != 1 {
            return fail();
        }
        dims.push(if a == 1 { b } else { a });
    }
    dims.extend([x_dims[rank - 2], y_dims[rank - 1]]);
    Ok((Shape(dims), DType::F32))
}

fn indexing(op: &Op, operands: &[&Node]) -> Rule {
    match *op {
        Op::Gather(axis) => {
            let (x, index) = (operands[0], operands[1]);
            require(index, DType::Int)?;
            within(axis, &x.shape)?;
            if index.shape.rank() != x.shape.rank()
                || index.shape.reduced(axis) != x.shape.reduced(axis)
            {
                return Err(format!("indices that differ from the tensor in axis {axis} only"));
            }
            Ok((index.shape.clone(), x.dtype))
        }
        Op::ScatterAdd { axis, size } => {
            let (index, values) = (operands[0], operands[1]);
            require(index, DType::Int)?;
            require(values, DType::F32)?;
            within(axis, &values.shape)?;
            if index.shape != values.shape {
                return Err("one index for every value".into());
            }
            let mut dims = values.shape.0.clone();
            dims[axis] = size;
            Ok((Shape(dims), DType::F32))
        }
        Op::Embedding => {
            let (table, index) = (operands[0], operands[1]);
            require(table, DType::F32)?;
            require(index, DType::Int)?;
            if table.shape.rank() != 2 {
                return Err("a table [rows, width]".into());
            }
            let mut dims = index.shape.0.clone();
            dims.push(table.shape.0[1]);
            Ok((Shape(dims), DType::F32))
        }
        Op::EmbeddingGradient { rows } => {
            let (index, gradient) = (operands[0], operands[1]);
            require(index, DType::Int)?;
            require(gradient, DType::F32)?;
            match gradient.shape.0.split_last() {
                Some((&width, leading)) if leading == index.shape.0 => {
                    Ok((Shape(vec![rows, width]), DType::F32))
                }
                _ => Err("one row of gradient for every index".into()),
            }
        }
        _ => unreachable!("{op} does not index"),
    }
}

fn layer_norm(op: &Op, operands: &[&Node]) -> Rule {
    let x = operands[0];
    let width = *x.shape.0.last().ok_or("rank 1 or more")?;
    for operand in operands {
        require(operand, DType::F32)?;
    }
    let (scales, gradient) = match op {
        Op::LayerNorm(_) => (&operands[1..], None),
        Op::LayerNormGradient(_) => (&operands[1..2], Some(operands[2])),
        Op::LayerNormGradientGamma(_) => (&operands[..0], Some(operands[1])),
        _ => unreachable!("{op} does not normalise"),
    };
    if scales.iter().any(|scale| scale.shape.0 != [width]) {
        return Err(format!("gamma and beta of shape [{width}]"));
    }
    if gradient.is_some_and(|gradient| gradient.shape != x.shape) {
        return Err("a gradient of the operand's shape".into());
    }
    match op {
        Op::LayerNormGradientGamma(_) => Ok((Shape(vec![width]), DType::F32)),
        _ => Ok((x.shape.clone(), DType::F32)),
    }
}

fn same_floats(operands: &[&Node]) -> Rule {
    let x = operands[0];
    for operand in operands {
        require(operand, DType::F32)?;
        if operand.shape != x.shape || x.shape.rank() == 0 {
            return Err("equal shapes of rank 1 or more".into());
        }
    }
    Ok((x.shape.clone(), DType::F32))
}

fn convolution(op: &Op, operands: &[&Node]) -> Rule {
    let ([n, a, h, w], [m, b, i, j]) = (images(operands[0])?, images(operands[1])?);
    let windows = |of: &Convolution, size, kernel| {
        of.windows(size, kernel).ok_or("a window that fits into the padded image")
    };
    let per_group = |of: &Convolution, channels: usize| {
        let parts = channels.checked_div(of.groups).filter(|parts| parts * of.groups == channels);
        parts.ok_or("channels in equal groups")
    };
    let dims = match *op {
        Op::Conv2d(of) => {
            per_group(&of, m)?;
            if per_group(&of, a)? != b {
                return Err("a weight [d, channels / groups, i, j]".into());
            }
            let [height, width] = windows(&of, [h, w], [i, j])?;
            [n, m, height, width]
        }
        // The first operand is the weight, the second the gradient.
        Op::Conv2dInputGradient { convolution: of, size } => {
            per_group(&of, n)?;
            if b != n || windows(&of, size, [h, w])? != [i, j] {
                return Err("a gradient [batch, d, windows] for a weight [d, ..]".into());
            }
            [m, a * of.groups, size[0], size[1]]
        }
        // The first operand are the images, the second is the gradient.
        Op::Conv2dWeightGradient { convolution: of, kernel } => {
            per_group(&of, b)?;
            if m != n || windows(&of, [h, w], kernel)? != [i, j] {
                return Err("a gradient [batch, d, windows] for images [batch, ..]".into());
            }
            [b, per_group(&of, a)?, kernel[0], kernel[1]]
        }
        _ => unreachable!("{op} is no convolution"),
    };
    Ok((Shape(dims.to_vec()), DType::F32))
}

fn pool(op: &Op, operands: &[&Node]) -> Rule {
    let [n, c, h, w] = images(operands[0])?;
    let windows = |of: &Pool, size| {
        of.windows(size).ok_or("a window that fits into the padded image".to_string())
    };
    let undilated = |of: &Pool| {
        if of.dilation == [1, 1] { Ok(()) } else { Err("a dilation of 1".to_string()) }
    };
    let [height, width] = match op {
        Op::MaxPool2d(of) => windows(of, [h, w])?,
        Op::MaxPool2dGradient(of) => {
            let [height, width] = windows(of, [h, w])?;
            if images(operands[1])? != [n, c, height, width] {
                return Err("a gradient for every window".into());
            }
            [h, w]
        }
        Op::AvgPool2d { pool: of, .. } => {
            undilated(of)?;
            windows(of, [h, w])?
        }
        Op::AvgPool2dGradient { pool: of, size, .. } => {
            undilated(of)?;
            if windows(of, *size)? != [h, w] {
                return Err("a gradient for every window".into());
            }
            *size
        }
        _ => unreachable!("{op} is no pool"),
    };
    Ok((Shape(vec![n, c, height, width]), DType::F32))
}

/// The sizes of images `[batch, channels, height, width]`, or of a convolution's weight.
fn images(operand: &Node) -> std::result::Result<[usize; 4], String> {
    require(operand, DType::F32)?;
    let dims = operand.shape.0.as_slice();
    dims.try_into().map_err(|_| "images [batch, channels, height, width]".to_string())
}

fn require(operand: &Node, dtype: DType) -> std::result::Result<DType, String> {
    if operand.dtype == dtype { Ok(dtype) } else { Err(format!("{dtype} elements")) }
}

fn within(axis: usize, shape: &Shape) -> std::result::Result<(), String> {
    if axis < shape.rank() { Ok(()) } else { Err(format!("an axis below {}", shape.rank())) }
}

/// The shape to which all operands repeat their dimensions of size 1.
fn broadcast(operands: &[&Node]) -> std::result::Result<Shape, String> {
    let mut dims = operands[0].shape.0.clone();
    for operand in &operands[1..] {
        if operand.shape.rank() != dims.len() {
            return Err("operands of one rank".into());
        }
        for (dim, &size) in dims.iter_mut().zip(&operand.shape.0) {
            match (*dim, size) {
                (a, b) if a == b => {}
                (1, b) => *dim = b,
                (_, 1) => {}
                _ => return Err("dimensions that are equal or 1".into()),
            }
        }
    }
    Ok(Shape(dims))
}
