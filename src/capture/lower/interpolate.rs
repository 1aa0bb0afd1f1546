//! Images of another size: every mode is a linear function of the rows and one of the columns.

use std::f64::consts::PI;

use burn_ir::{InterpolateModeIr, InterpolateOpIr, ModuleOperationIr};

use super::Lowering;
use crate::error::Result;
use crate::graph::{Constant, Movement, NodeId, Op, Shape, Values};

/// A linear function of the elements of an axis, as a matrix `[to, from]`.
pub(super) struct Resampling {
    from: usize,
    to: usize,
    weights: Vec<f32>,
}

impl Resampling {
    /// From the elements that a number of the output is made of, with their weights.
    pub fn new(from: usize, to: usize, taps: impl Fn(usize) -> Vec<(usize, f64)>) -> Self {
        let mut weights = vec![0.0; from * to];
        for i in 0..to {
            for (j, weight) in taps(i) {
                weights[i * from + j] += weight;
            }
        }
        Self { from, to, weights: weights.into_iter().map(|weight| weight as f32).collect() }
    }

    fn is_identity(&self) -> bool {
        let is_one = |(at, &weight): (usize, &f32)| {
            weight == if at / self.from == at % self.from { 1.0 } else { 0.0 }
        };
        self.from == self.to && self.weights.iter().enumerate().all(is_one)
    }

    fn transposed(&self) -> Vec<f32> {
        let column = |j: usize| self.weights[j..].iter().step_by(self.from);
        (0..self.from).flat_map(column).copied().collect()
    }
}

impl Lowering<'_> {
    pub(super) fn interpolate(&mut self, op: &InterpolateOpIr) -> Result<()> {
        let from = [op.x.shape[2], op.x.shape[3]];
        let to = op.output_size;
        let x = self.node(&op.x)?;
        let corners = op.options.align_corners;
        let function: fn(usize, f64) -> Vec<(usize, f64)> = match op.options.mode {
            InterpolateModeIr::Nearest => {
                let node = self.nearest(x, 2, to[0])?;
                let node = self.nearest(node, 3, to[1])?;
                return self.bind(&op.out, node);
            }
            InterpolateModeIr::Bilinear => linear,
            InterpolateModeIr::Bicubic => cubic,
            InterpolateModeIr::Lanczos3 => lanczos3,
            // Burn's host device does not have it, so nothing could be compared with the module.
            InterpolateModeIr::NearestExact => {
                return self.unknown(&ModuleOperationIr::Interpolate(op.clone()));
            }
        };
        let node = self.resampled(
            x,
            std::array::from_fn(|axis| {
                let (from, to) = (from[axis], to[axis]);
                Resampling::new(from, to, |i| function(from, place(i, from, to, corners)))
            }),
        )?;
        self.bind(&op.out, node)
    }

    /// Every element of the axis as often as it is the nearest one.
    fn nearest(&mut self, x: NodeId, axis: usize, to: usize) -> Result<NodeId> {
        let mut dims = self.graph[x].shape.0.clone();
        let from = dims[axis];
        let ratio = from as f64 / to as f64;
        let at: Vec<usize> =
            (0..to).map(|i| ((i as f64 * ratio).floor() as usize).min(from - 1)).collect();
        let times = to / from;
        if times < 2 || !at.iter().copied().eq((0..to).map(|i| i / times)) {
            return self.pick(x, axis, at);
        }
        // Repeated elements are no reads, and their gradient is a plain sum.
        dims.insert(axis + 1, 1);
        let x = self.reshape(x, Shape(dims.clone()))?;
        dims[axis + 1] = times;
        let x = self.push(Movement::Expand(Shape(dims.clone())), &[x])?;
        dims.remove(axis + 1);
        dims[axis] = to;
        self.reshape(x, Shape(dims))
    }

    /// Images with both axes resampled, by products with constant matrices.
    pub(super) fn resampled(
        &mut self,
        mut x: NodeId,
        [down, across]: [Resampling; 2],
    ) -> Result<NodeId> {
        if !across.is_identity() {
            let shape = Shape(vec![1, 1, across.from, across.to]);
            let values = Values::F32(across.transposed());
            let across = self.graph.push_constant(Constant { shape, values });
            x = self.push(Op::Matmul, &[x, across])?;
        }
        if !down.is_identity() {
            let shape = Shape(vec![1, 1, down.to, down.from]);
            let values = Values::F32(down.weights);
            let down = self.graph.push_constant(Constant { shape, values });
            x = self.push(Op::Matmul, &[down, x])?;
        }
        Ok(x)
    }
}

/// Where element `i` of the output is among those of the input.
fn place(i: usize, from: usize, to: usize, corners: bool) -> f64 {
    if corners {
        i as f64 * ((from as f64 - 1.0) / (to - 1).max(1) as f64)
    } else {
        (i as f64 + 0.5) * (from as f64 / to as f64) - 0.5
    }
}

/// The two neighbours; beyond the first element there is only that.
fn linear(size: usize, place: f64) -> Vec<(usize, f64)> {
    let low = place.floor().max(0.0) as usize;
    let weight = (place - low as f64).max(0.0);
    vec![(low, 1.0 - weight), ((low + 1).min(size - 1), weight)]
}

/// Four neighbours (Keys 1981, "Cubic convolution interpolation", with a = -0.75); the outermost
/// elements go on beyond the ends.
fn cubic(size: usize, place: f64) -> Vec<(usize, f64)> {
    const A: f64 = -0.75;
    let weight = |distance: f64| {
        let t = distance.abs();
        if t < 1.0 {
            ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
        } else if t < 2.0 {
            ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A
        } else {
            0.0
        }
    };
    let base = place.floor();
    let tap = |offset: isize| {
        let at = (base as isize + offset).clamp(0, size as isize - 1);
        (at as usize, weight(place - base - offset as f64))
    };
    (-1..=2).map(tap).collect()
}

/// Six neighbours by `sinc(x) sinc(x / 3)` (Duchon 1979); those that there are share the weight.
fn lanczos3(size: usize, place: f64) -> Vec<(usize, f64)> {
    let weight = |x: f64| match x.abs() {
        0.0 => 1.0,
        distance if distance >= 3.0 => 0.0,
        _ => (PI * x).sin() * (PI * x / 3.0).sin() / (PI * x * (PI * x / 3.0)),
    };
    let base = place.floor();
    let inside = |at: &isize| (0..size as isize).contains(at);
    let taps = (-2..=3).map(|offset| base as isize + offset).filter(inside);
    let mut taps: Vec<(usize, f64)> =
        taps.map(|at| (at as usize, weight(place - at as f64))).collect();
    let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
    if sum != 0.0 {
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    taps
}
