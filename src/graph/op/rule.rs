//! What the rules of the groups have in common: the output's shape and element type, or what an op
//! expects of its operands.

use crate::graph::{DType, Node, Shape};

pub(super) type Output = Result<(Shape, DType), String>;

pub(super) fn matmul(x: &Node, y: &Node) -> Output {
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

/// Floats of one shape of rank 1 or more, which is the output's.
pub(super) fn same_floats(operands: &[&Node]) -> Output {
    let x = operands[0];
    for operand in operands {
        require(operand, DType::F32)?;
        if operand.shape != x.shape || x.shape.rank() == 0 {
            return Err("equal shapes of rank 1 or more".into());
        }
    }
    Ok((x.shape.clone(), DType::F32))
}

/// The sizes of images `[batch, channels, height, width]`, or of a convolution's weight.
pub(super) fn images(operand: &Node) -> Result<[usize; 4], String> {
    require(operand, DType::F32)?;
    let dims = operand.shape.0.as_slice();
    dims.try_into().map_err(|_| "images [batch, channels, height, width]".to_string())
}

pub(super) fn require(operand: &Node, dtype: DType) -> Result<DType, String> {
    if operand.dtype == dtype { Ok(dtype) } else { Err(format!("{dtype} elements")) }
}

pub(super) fn within(axis: usize, shape: &Shape) -> Result<(), String> {
    if axis < shape.rank() { Ok(()) } else { Err(format!("an axis below {}", shape.rank())) }
}

/// The shape to which all operands repeat their dimensions of size 1.
pub(super) fn broadcast(operands: &[&Node]) -> Result<Shape, String> {
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
