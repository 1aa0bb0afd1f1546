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
        Elementwise::Compare(_) | Elementwise::Logical(_) | Elementwise::Bitwise(_) => {
            Ok(vec![None, None])
        }
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
        Unary::RoundF16 | Unary::RoundBf16 => b.push(unary, &[g]),
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => {
            b.scalar(Scalar::Multiply, g, 0.0)
        }
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
        Unary::Sinh => {
            let cosh = b.push(Unary::Cosh, &[x])?;
            times(b, cosh)
        }
        Unary::Cosh => {
            let sinh = b.push(Unary::Sinh, &[x])?;
            times(b, sinh)
        }
        Unary::Tan => {
            // d tan(x) = 1 + o^2
            let factor = square_plus(b, o, 1.0, 1.0)?;
            times(b, factor)
        }
        Unary::Log1p => {
            let above = b.scalar(Scalar::Add, x, 1.0)?;
            b.binary(Binary::Divide, g, above)
        }
        Unary::Asin | Unary::Acos | Unary::Atan => inverse(b, unary, x, g),
        Unary::Asinh | Unary::Acosh | Unary::Atanh => inverse(b, unary, x, g),
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

/// Of inverse functions: `1 / (1 + x^2)` and the like, and their roots.
fn inverse(b: &mut Builder, unary: Unary, x: NodeId, g: NodeId) -> Result<NodeId> {
    let (factor, number) = match unary {
        Unary::Asin | Unary::Acos | Unary::Atanh => (-1.0, 1.0),
        Unary::Acosh => (1.0, -1.0),
        _ => (1.0, 1.0),
    };
    let mut below = square_plus(b, x, factor, number)?;
    if !matches!(unary, Unary::Atan | Unary::Atanh) {
        below = b.push(Unary::Sqrt, &[below])?;
    }
    let gradient = b.binary(Binary::Divide, g, below)?;
    if unary == Unary::Acos { b.push(Unary::Neg, &[gradient]) } else { Ok(gradient) }
}

/// `factor x^2 + number`.
fn square_plus(b: &mut Builder, x: NodeId, factor: f64, number: f64) -> Result<NodeId> {
    let mut square = b.binary(Binary::Multiply, x, x)?;
    if factor != 1.0 {
        square = b.scalar(Scalar::Multiply, square, factor)?;
    }
    b.scalar(Scalar::Add, square, number)
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
        let full = of_first(b, binary, o, g)?;
        gradients[0] = Some(b.sum_to(full, &b.shape(x))?);
    }
    if wanted[1] {
        let full = of_second(b, binary, o, g)?;
        gradients[1] = Some(b.sum_to(full, &b.shape(y))?);
    }
    Ok(gradients)
}

/// Gradient of `x`, in the shape of the output.
fn of_first(b: &mut Builder, binary: Binary, o: NodeId, g: NodeId) -> Result<NodeId> {
    let (x, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    match binary {
        Binary::Add | Binary::Subtract | Binary::Remainder => Ok(g),
        Binary::Multiply => b.binary(Binary::Multiply, g, y),
        Binary::Divide => b.binary(Binary::Divide, g, y),
        Binary::Power => {
            // d x^y = y x^(y-1)
            let exponent = b.scalar(Scalar::Add, y, -1.0)?;
            let power = b.binary(Binary::Power, x, exponent)?;
            let factor = b.binary(Binary::Multiply, power, y)?;
            b.binary(Binary::Multiply, g, factor)
        }
        Binary::Atan2 => by_distance(b, y, x, y, g),
        Binary::Hypot => {
            let factor = b.binary(Binary::Divide, x, o)?;
            b.binary(Binary::Multiply, g, factor)
        }
    }
}

/// Gradient of `y`, in the shape of the output.
fn of_second(b: &mut Builder, binary: Binary, o: NodeId, g: NodeId) -> Result<NodeId> {
    let (x, y) = (b.graph[o].inputs[0], b.graph[o].inputs[1]);
    match binary {
        Binary::Add => Ok(g),
        Binary::Subtract => b.push(Unary::Neg, &[g]),
        Binary::Multiply => b.binary(Binary::Multiply, g, x),
        Binary::Divide => {
            // d (x/y) for y = -o / y
            let ratio = b.binary(Binary::Divide, o, y)?;
            let product = b.binary(Binary::Multiply, g, ratio)?;
            b.push(Unary::Neg, &[product])
        }
        Binary::Remainder => {
            // d (x - floor(x/y) y) for y = -floor(x/y)
            let ratio = b.binary(Binary::Divide, x, y)?;
            let times = b.push(Unary::Floor, &[ratio])?;
            let product = b.binary(Binary::Multiply, g, times)?;
            b.push(Unary::Neg, &[product])
        }
        Binary::Power => {
            // d x^y for y = x^y log(x)
            let log = b.push(Unary::Log, &[x])?;
            let factor = b.binary(Binary::Multiply, o, log)?;
            b.binary(Binary::Multiply, g, factor)
        }
        Binary::Atan2 => {
            let along = by_distance(b, x, x, y, g)?;
            b.push(Unary::Neg, &[along])
        }
        Binary::Hypot => {
            let factor = b.binary(Binary::Divide, y, o)?;
            b.binary(Binary::Multiply, g, factor)
        }
    }
}

/// `g of / (x^2 + y^2)`.
fn by_distance(b: &mut Builder, of: NodeId, x: NodeId, y: NodeId, g: NodeId) -> Result<NodeId> {
    let first = b.binary(Binary::Multiply, x, x)?;
    let second = b.binary(Binary::Multiply, y, y)?;
    let square = b.binary(Binary::Add, first, second)?;
    let factor = b.binary(Binary::Divide, of, square)?;
    b.binary(Binary::Multiply, g, factor)
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
