//! Parts of tensors along their axes: slices, what is assigned to them, windows, and padding.

use burn::tensor::Slice;
use burn_ir::{PadModeIr, PadOpIr, SliceAssignOpIr, Unfold4dOpIr, UnfoldOpIr};

use super::{Lowering, number};
use crate::error::Result;
use crate::graph::{
    Constant, Convolution, Elementwise, Indexing, Join, Movement, NodeId, Shape, Values, Windowed,
};

/// Windows along an axis.
pub(super) struct Windows {
    pub axis: usize,
    /// How many there are.
    pub count: usize,
    /// Elements of one.
    pub size: usize,
    /// Distance between neighbouring windows.
    pub step: usize,
    /// Distance between neighbouring elements of a window.
    pub dilation: usize,
}

impl Windows {
    /// Where every element of every window is.
    pub fn positions(&self) -> Vec<usize> {
        let element = |window: usize, at: usize| window * self.step + at * self.dilation;
        (0..self.count)
            .flat_map(|window| (0..self.size).map(move |at| element(window, at)))
            .collect()
    }
}

impl Lowering<'_> {
    pub(super) fn slice(&mut self, mut node: NodeId, ranges: &[Slice]) -> Result<NodeId> {
        for (axis, slice) in ranges.iter().enumerate() {
            let size = self.graph[node].shape.0[axis];
            node = self.pick(node, axis, positions(slice, size))?;
        }
        Ok(node)
    }

    /// The elements of `x` at positions of an axis.
    pub(super) fn pick(&mut self, x: NodeId, axis: usize, at: Vec<usize>) -> Result<NodeId> {
        let mut dims = self.graph[x].shape.0.clone();
        let start = at.first().copied().unwrap_or(0);
        let end = start + at.len();
        if at.iter().copied().eq(start..end) {
            let whole = start == 0 && end == dims[axis];
            return if whole {
                Ok(x)
            } else {
                self.push(Movement::Slice { axis, start, end }, &[x])
            };
        }
        dims[axis] = at.len();
        let index = at.into_iter().map(|at| at as i64).collect();
        let index = self.constant_index(axis, &Shape(dims), index)?;
        self.push(Indexing::Gather(axis), &[x, index])
    }

    /// `[.., d, ..]` as `[.., count, size, ..]`.
    pub(super) fn windows(&mut self, x: NodeId, of: &Windows) -> Result<NodeId> {
        let picked = self.pick(x, of.axis, of.positions())?;
        let mut dims = self.graph[picked].shape.0.clone();
        dims[of.axis] = of.count;
        dims.insert(of.axis + 1, of.size);
        self.reshape(picked, Shape(dims))
    }

    pub(super) fn unfold(&mut self, op: &UnfoldOpIr) -> Result<()> {
        let x = self.node(&op.input)?;
        let node = self.unfolded(x, op.dim, op.size, op.step)?;
        self.bind(&op.out, node)
    }

    /// Windows along one dimension, whose elements become the last one.
    fn unfolded(&mut self, x: NodeId, axis: usize, size: usize, step: usize) -> Result<NodeId> {
        let rank = self.graph[x].shape.rank();
        let count = (self.graph[x].shape.0[axis] - size) / step + 1;
        let node = self.windows(x, &Windows { axis, count, size, step, dilation: 1 })?;
        let mut axes: Vec<usize> = (0..=rank).filter(|&at| at != axis + 1).collect();
        axes.push(axis + 1);
        self.push(Movement::Permute(axes), &[node])
    }

    /// Windows of images, `[n, c, h, w]` as `[n, c * i * j, windows]`. The steps are those that
    /// Burn takes where it differentiates them, so that training and inference are one graph.
    pub(super) fn unfold4d(&mut self, op: &Unfold4dOpIr) -> Result<()> {
        let (of, [i, j]) = (&op.options, op.kernel_size);
        let x = self.node(&op.x)?;
        let node = if of.padding == [0, 0] && of.dilation == [1, 1] {
            let rows = self.unfolded(x, 2, i, of.stride[0])?;
            let blocks = self.unfolded(rows, 3, j, of.stride[1])?;
            self.push(Movement::Permute(vec![0, 1, 4, 5, 2, 3]), &[blocks])?
        } else {
            let channels = op.x.shape[1];
            let elements = channels * i * j;
            // Output channel `k` is one element of the window of one channel.
            let one = (0..elements * elements).map(|at| at / elements == at % elements);
            let values = Values::F32(one.map(|one| f32::from(u8::from(one))).collect());
            let shape = Shape(vec![elements, channels, i, j]);
            let weight = self.graph.push_constant(Constant { shape, values });
            let padding = of.padding.map(|padding| (padding, padding));
            let (stride, dilation) = (of.stride, of.dilation);
            let convolution = Convolution { stride, padding, dilation, groups: 1 };
            self.push(Windowed::Conv2d(convolution), &[x, weight])?
        };
        self.bind_reshaped(&op.out, node)
    }

    /// `x` with zeros before and after it on one axis.
    pub(super) fn zeros_around(&mut self, x: NodeId, axis: usize, of: usize) -> Result<NodeId> {
        if of == 0 { Ok(x) } else { self.push(Join::Pad { axis, before: of, after: of }, &[x]) }
    }

    /// The tensor with a range replaced: `Where(inside, spread value, tensor)`.
    pub(super) fn slice_assign(&mut self, op: &SliceAssignOpIr) -> Result<()> {
        let tensor = self.node(&op.tensor)?;
        let mut value = self.node(&op.value)?;
        let sizes = op.tensor.shape.to_vec();
        let mut inside = vec![true];
        for (axis, &size) in sizes.iter().enumerate() {
            let at = match op.ranges.get(axis) {
                Some(slice) => positions(slice, size),
                None => (0..size).collect(),
            };
            // Which element of the value a place gets.
            let mut from = vec![None; size];
            at.iter().enumerate().for_each(|(element, &place)| from[place] = Some(element));
            value = self.spread(value, axis, &at, &from)?;
            let is_inside = |outer: &bool| {
                let outer = *outer;
                from.iter().map(move |from| outer && from.is_some())
            };
            inside = inside.iter().flat_map(is_inside).collect();
        }
        let values = Values::Bool(inside);
        let inside = self.graph.push_constant(Constant { shape: Shape(sizes), values });
        let node = self.push(Elementwise::Where, &[inside, value, tensor])?;
        self.bind(&op.out, node)
    }

    /// The elements of `x` at the places `at` of an axis, where anything may stand between them.
    fn spread(
        &mut self,
        x: NodeId,
        axis: usize,
        at: &[usize],
        from: &[Option<usize>],
    ) -> Result<NodeId> {
        let before = at.first().copied().unwrap_or(0);
        if at.iter().copied().eq(before..before + at.len()) {
            let after = from.len() - before - at.len();
            let whole = before + after == 0;
            return if whole { Ok(x) } else { self.push(Join::Pad { axis, before, after }, &[x]) };
        }
        self.pick(x, axis, from.iter().map(|from| from.unwrap_or(0)).collect())
    }

    /// The tensor with a number, its reflection or its outermost elements around it.
    pub(super) fn pad(&mut self, op: &PadOpIr) -> Result<()> {
        let mut x = self.node(&op.input)?;
        let PadModeIr::Constant(value) = op.mode else {
            for (axis, &margins) in op.padding.iter().enumerate() {
                let reflects = matches!(op.mode, PadModeIr::Reflect);
                let size = self.graph[x].shape.0[axis];
                x = self.pick(x, axis, around(size, margins, reflects))?;
            }
            return self.bind(&op.out, x);
        };
        let shape = self.graph[x].shape.clone();
        let values = Values::Bool(vec![true; shape.elements()]);
        let mut inside = self.graph.push_constant(Constant { shape, values });
        for (axis, &(before, after)) in op.padding.iter().enumerate() {
            let pad = Join::Pad { axis, before, after };
            x = self.push(pad, &[x])?;
            inside = self.push(pad, &[inside])?;
        }
        let outside = self.push(Elementwise::Not, &[inside])?;
        let node = self.push(Elementwise::Fill(number(value)), &[outside, x])?;
        self.bind(&op.out, node)
    }
}

/// Where the elements of a slice are, in the slice's order.
fn positions(slice: &Slice, size: usize) -> Vec<usize> {
    let (range, step) = (slice.to_range(size), slice.step.unsigned_abs());
    if slice.step > 0 { range.step_by(step).collect() } else { range.rev().step_by(step).collect() }
}

/// Where the elements of a padded axis come from.
fn around(size: usize, (before, after): (usize, usize), reflects: bool) -> Vec<usize> {
    let last = size as isize - 1;
    let place = |at: isize| {
        let inside = at.clamp(0, last);
        if reflects { 2 * inside - at } else { inside }
    };
    (-(before as isize)..=last + after as isize).map(|at| place(at) as usize).collect()
}
