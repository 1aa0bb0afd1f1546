//! Gradient rules of elementwise ops. `x`, `y` are operands, `o` the output, `g` its gradient.

use super::{Builder, Gradients, Result, one, second_derivative};
use crate::graph::{Binary, Comparison, Elementwise, NodeId, Scalar, Unary};

pub(super) fn gradients(
    b: &mut Builder,
    op: Elementwise,
    o: NodeId,
    g: NodeId,
    wanted: &[bool],
) -> Gradients {
    match op {
        Elementwise::Unary(op) => one(unary(b, op, o, g)),
        Elementwise::Scalar(op, value) => one(scalar(b, op, value, o, g)),
        Elementwise::Binary(op) => binary(b, op, o, g, wanted),
        Elementwise::Where => select(b, o, g, wanted),
        Elementwise::Fill(_) => fill(b, o, g),
        Elementwise::Dropout { .. } => one(b.push(op, &[g])),
        Elementwise::Random { .. } => Ok(vec![None]),
        // Only steps have gradients.
        Elementwise::Mode => Ok(vec![Some(g), None]),
        Elementwise::ActivationGradient(_) => Err(second_derivative(b, o)),
        Elementwise::Cast(_) | Elementwise::CompareScalar(..) | Elementwise::Not => Ok(vec![None]),
        Elementwise::Compare(_) | Elementwise::Logical(_) => Ok(vec![None, None]),
    }
}

fn unary(b: &mut Builder, unary: Unary, o: NodeId, g: NodeId) -> Result<NodeId> {
    let x = b.graph[o].inputs[0];
    let times = |b: &mut Builder, factor: NodeId| b.binary(Binary::Multiply, g, factor);
    match unary {
        Unary::Neg => b.push(Unary::Neg, &[g]),
        Unary::Abs => {
            let sign = b.push(Unary::Sign, &[x])?;
            times(b, sign)
        }
        Unary::Sign | Unary::Floor => b.scalar(Scalar::Multiply, g, 0.0),
        Unary::Exp => times(b, o),
        Unary::Log => b.binary(Binary::Divide, g, x),
        Unary::Sqrt => {
            // d sqrt(x) = 1 / (2 o)
            let twice = b.scalar(Scalar::Multiply, o, 2.0)?;
            b.binary(Binary::Divide, g, twice)
        }
        Unary::Reciprocal => {
            // d (1/x) = -o^2
            let square = b.binary(Binary::Multiply, o, o)?;
            let factor = b.push(Unary::Neg, &[square])?;
            times(b, factor)
        }
        Unary::Sin => {
            let cos = b.push(Unary::Cos, &[x])?;
            times(b, cos)
        }
        Unary::Cos => {
            let sin = b.push(Unary::Sin, &[x])?;
            let factor = b.push(Unary::Neg, &[sin])?;
            times(b, factor)
        }
        Unary::Erf => {
            // d erf(x) = 2 / sqrt(pi) * exp(-x^2)
            let square = b.binary(Binary::Multiply, x, x)?;
            let power = b.push(Unary::Neg, &[square])?;
            let bell = b.push(Unary::Exp, &[power])?;
            let factor = b.scalar(Scalar::Multiply, bell, std::f64::consts::FRAC_2_SQRT_PI)?;
            times(b, factor)
        }
        Unary::Activation(activation) => {
            let of = if activation.from_output() { o } else { x };
            b.push(Elementwise::ActivationGradient(activation), &[of, g])
        }
    }
}

fn scalar(b: &mut Builder, scalar: Scalar, value: f64, o: NodeId, g: NodeId) -> Result<NodeId> {
    let x = b.graph[o].inputs[0];
    // At the limit itself the gradient passes.
    let outside = match scalar {
        Scalar::Add => return Ok(g),
        Scalar::Multiply => return b.scalar(Scalar::Multiply, g, value),
        Scalar::Power => {
            // d x^n = n x^(n-1)
            let power = b.scalar(Scalar::Power, x, value - 1.0)?;
            let factor = b.scalar(Scalar::Multiply, power, value)?;
            return b.binary(Binary::Multiply, g, factor);
        }
        Scalar::AtLeast => Comparison::Less,
        Scalar::AtMost => Comparison::Greater,
    };
    let outside = b.push(Elementwise::CompareScalar(outside, value), &[x])?;
    b.push(Elementwise::Fill(0.0), &[outside, g])
}

fn binary(b: &mut Builder, binary: Binary, o: NodeId, g: NodeId, wanted: &[bool]) -> Gradients {
    let (x, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    let mut gradients = vec![None, None];
    if wanted[0] {
        let full = match binary {
            Binary::Add | Binary::Subtract => g,
            Binary::Multiply => b.binary(Binary::Multiply, g, y)?,
            Binary::Divide => b.binary(Binary::Divide, g, y)?,
        };
        gradients[0] = Some(b.sum_to(full, &b.shape(x))?);
    }
    if wanted[1] {
        let full = match binary {
            Binary::Add => g,
            Binary::Subtract => b.push(Unary::Neg, &[g])?,
            Binary::Multiply => b.binary(Binary::Multiply, g, x)?,
            Binary::Divide => {
                // d (x/y) for y = -o / y
                let ratio = b.binary(Binary::Divide, o, y)?;
                let product = b.binary(Binary::Multiply, g, ratio)?;
                b.push(Unary::Neg, &[product])?
            }
        };
        gradients[1] = Some(b.sum_to(full, &b.shape(y))?);
    }
    Ok(gradients)
}

/// [`Elementwise::Where`]: each side gets the gradient of the elements that came from it.
fn select(b: &mut Builder, o: NodeId, g: NodeId, wanted: &[bool]) -> Gradients {
    let inputs = &b.graph[o].inputs;
    let (mask, y, z) = (inputs[0], inputs[1], inputs[2]);
    let mut gradients = vec![None; 3];
    if wanted[1] {
        let not = b.push(Elementwise::Not, &[mask])?;
        let kept = b.push(Elementwise::Fill(0.0), &[not, g])?;
        gradients[1] = Some(b.sum_to(kept, &b.shape(y))?);
    }
    if wanted[2] {
        let kept = b.push(Elementwise::Fill(0.0), &[mask, g])?;
        gradients[2] = Some(b.sum_to(kept, &b.shape(z))?);
    }
    Ok(gradients)
}

/// [`Elementwise::Fill`]: what was filled in has no gradient.
fn fill(b: &mut Builder, o: NodeId, g: NodeId) -> Gradients {
    let (mask, x) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    let kept = b.push(Elementwise::Fill(0.0), &[mask, g])?;
    Ok(vec![None, Some(b.sum_to(kept, &b.shape(x))?)])
}
