//! Images read at places that are computed, which may be between elements.

use burn_ir::{
    DeformConv2dOpIr, FloatOperationIr, GridSample2dOpIr, GridSamplePaddingModeIr as Padding,
    InterpolateModeIr,
};

use super::Lowering;
use crate::error::Result;
use crate::graph::{
    Binary, Comparison, Constant, DType, Elementwise, Indexing, Logical, Movement, NodeId, Op,
    Scalar, Shape, Unary, Values,
};

/// What is read on one axis: the element before a place, or the one after it.
struct Neighbour {
    /// Its position, within the image.
    index: NodeId,
    /// Its share, by its distance from the place.
    weight: NodeId,
    /// Whether it is part of the image.
    inside: NodeId,
}

impl Lowering<'_> {
    /// A grid `[n, rows, columns, 2]` of places x, y, from -1 to 1 over the image. Burn has a
    /// gradient for the bilinear mode only.
    pub(super) fn grid_sample2d(&mut self, op: &GridSample2dOpIr) -> Result<()> {
        if !matches!(op.options.mode, InterpolateModeIr::Bilinear) {
            return self.unknown(&FloatOperationIr::GridSample2d(op.clone()));
        }
        let grid = self.node(&op.grid)?;
        let [n, rows, columns] = [0, 1, 2].map(|axis| op.grid.shape[axis]);
        let mut places = [grid; 2];
        for (axis, place) in places.iter_mut().enumerate() {
            // The grid has the place on the last axis first.
            let of_axis = self.pick(grid, 3, vec![1 - axis])?;
            let of_axis = self.reshape(of_axis, Shape(vec![n, 1, rows * columns]))?;
            *place = self.within(of_axis, op.tensor.shape[2 + axis], op)?;
        }
        let images = self.node(&op.tensor)?;
        let zeros = matches!(op.options.padding_mode, Padding::Zeros);
        let node = self.bilinear(images, places, zeros)?;
        self.bind_reshaped(&op.out, node)
    }

    /// A place from -1 to 1 in elements of an axis, and beyond its ends as the padding has it.
    fn within(&mut self, place: NodeId, size: usize, op: &GridSample2dOpIr) -> Result<NodeId> {
        let (size, corners) = (size as f64, op.options.align_corners);
        let place = self.plus(place, 1.0)?;
        let place = self.scaled(place, if corners { (size - 1.0) / 2.0 } else { size / 2.0 })?;
        let place = if corners { place } else { self.plus(place, -0.5)? };
        match op.options.padding_mode {
            Padding::Zeros => Ok(place),
            Padding::Border => {
                let place = self.push(Elementwise::Scalar(Scalar::AtLeast, 0.0), &[place])?;
                self.push(Elementwise::Scalar(Scalar::AtMost, size - 1.0), &[place])
            }
            Padding::Reflection => {
                let (low, span) = if corners { (0.0, size - 1.0) } else { (-0.5, size) };
                self.reflected(place, low, span)
            }
        }
    }

    /// `low + span - |x mod (2 span) - span|` with `x = |place - low|`.
    fn reflected(&mut self, place: NodeId, low: f64, span: f64) -> Result<NodeId> {
        if span <= 0.0 {
            let nowhere = self.scaled(place, 0.0)?;
            return self.plus(nowhere, low);
        }
        let x = self.plus(place, -low)?;
        let x = self.push(Unary::Abs, &[x])?;
        let periods = self.scaled(x, 1.0 / (2.0 * span))?;
        let periods = self.push(Unary::Floor, &[periods])?;
        let whole = self.scaled(periods, 2.0 * span)?;
        let rest = self.push(Binary::Subtract, &[x, whole])?;
        let from_end = self.plus(rest, -span)?;
        let from_end = self.push(Unary::Abs, &[from_end])?;
        let back = self.push(Unary::Neg, &[from_end])?;
        self.plus(back, span + low)
    }

    /// Images `[n, c, h, w]` at places `[n, 1, k]` of their height and width, as `[n, c, k]`.
    /// Elements beyond the ends are `zeros`, or else the outermost ones.
    fn bilinear(&mut self, images: NodeId, places: [NodeId; 2], zeros: bool) -> Result<NodeId> {
        let dims = self.graph[images].shape.0.clone();
        let flat = self.reshape(images, Shape(vec![dims[0], dims[1], dims[2] * dims[3]]))?;
        let mut to = self.graph[places[0]].shape.clone();
        to.0[1] = dims[1];
        let rows = self.neighbours(places[0], dims[2])?;
        let columns = self.neighbours(places[1], dims[3])?;
        let mut sum = None;
        for column in &columns {
            for row in &rows {
                let index = self.scaled(row.index, dims[3] as f64)?;
                let index = self.push(Binary::Add, &[index, column.index])?;
                let index = self.push(Movement::Expand(to.clone()), &[index])?;
                let mut part = self.push(Indexing::Gather(2), &[flat, index])?;
                if zeros {
                    let inside = self.push(Logical::And, &[row.inside, column.inside])?;
                    let outside = self.push(Elementwise::Not, &[inside])?;
                    part = self.push(Elementwise::Fill(0.0), &[outside, part])?;
                }
                let weight = self.push(Binary::Multiply, &[column.weight, row.weight])?;
                let part = self.push(Binary::Multiply, &[part, weight])?;
                sum = Some(match sum {
                    Some(sum) => self.push(Binary::Add, &[sum, part])?,
                    None => part,
                });
            }
        }
        Ok(sum.expect("every place has neighbours"))
    }

    fn neighbours(&mut self, place: NodeId, size: usize) -> Result<[Neighbour; 2]> {
        let below = self.push(Unary::Floor, &[place])?;
        let above = self.plus(below, 1.0)?;
        let behind = self.push(Binary::Subtract, &[place, below])?;
        let before = self.push(Unary::Neg, &[behind])?;
        let before = self.plus(before, 1.0)?;
        Ok([self.neighbour(below, before, size)?, self.neighbour(above, behind, size)?])
    }

    fn neighbour(&mut self, at: NodeId, weight: NodeId, size: usize) -> Result<Neighbour> {
        let last = (size - 1) as f64;
        let at = self.push(Elementwise::Cast(DType::Int), &[at])?;
        let from = self.push(Elementwise::CompareScalar(Comparison::GreaterEqual, 0.0), &[at])?;
        let until = self.push(Elementwise::CompareScalar(Comparison::LessEqual, last), &[at])?;
        let inside = self.push(Logical::And, &[from, until])?;
        let index = self.push(Elementwise::Scalar(Scalar::AtLeast, 0.0), &[at])?;
        let index = self.push(Elementwise::Scalar(Scalar::AtMost, last), &[index])?;
        Ok(Neighbour { index, weight, inside })
    }

    fn plus(&mut self, node: NodeId, number: f64) -> Result<NodeId> {
        self.push(Elementwise::Scalar(Scalar::Add, number), &[node])
    }

    /// A convolution that reads every element of a window at an offset of its own: the elements
    /// are read first, and then the product with the weight is one for each group.
    pub(super) fn deformable_conv2d(&mut self, op: &DeformConv2dOpIr) -> Result<()> {
        let (of, x_dims) = (&op.options, op.x.shape.to_vec());
        let (n, channels) = (x_dims[0], x_dims[1]);
        let [outputs, part, i, j] = [0, 1, 2, 3].map(|axis| op.weight.shape[axis]);
        let windows = op.out.shape[2] * op.out.shape[3];
        // The groups of offsets are images of their own.
        let images = n * of.offset_groups;
        let x = self.node(&op.x)?;
        let per_image = channels / of.offset_groups;
        let x = self.reshape(x, Shape(vec![images, per_image, x_dims[2], x_dims[3]]))?;
        let places = self.deformed(op, images)?;
        let mut read = self.bilinear(x, places, true)?;
        if let Some(mask) = &op.mask {
            let mask = self.node(mask)?;
            let mask = self.reshape(mask, Shape(vec![images, 1, i * j * windows]))?;
            read = self.push(Binary::Multiply, &[read, mask])?;
        }
        let groups = of.weight_groups;
        let read = self.reshape(read, Shape(vec![n, groups, part * i * j, windows]))?;
        let weight = self.node(&op.weight)?;
        let weight =
            self.reshape(weight, Shape(vec![1, groups, outputs / groups, part * i * j]))?;
        let node = self.push(Op::Matmul, &[weight, read])?;
        let node = self.reshape(node, Shape(op.out.shape.to_vec()))?;
        self.bind_biased(&op.out, node, op.bias.as_ref())
    }

    /// The places `[images, 1, i * j * windows]` on both axes that a deformed window reads.
    fn deformed(&mut self, op: &DeformConv2dOpIr, images: usize) -> Result<[NodeId; 2]> {
        let of = &op.options;
        let kernel = [op.weight.shape[2], op.weight.shape[3]];
        let windows = [op.out.shape[2], op.out.shape[3]];
        let (elements, count) = (kernel[0] * kernel[1], windows[0] * windows[1]);
        let offsets = self.node(&op.offset)?;
        let offsets = self.reshape(offsets, Shape(vec![images, elements, 2, count]))?;
        let mut places = [offsets; 2];
        for (axis, place) in places.iter_mut().enumerate() {
            // Where the element is without its offset.
            let regular = |at: usize| {
                let (element, window) = (at / count, at % count);
                let (element, window) = match axis {
                    0 => (element / kernel[1], window / windows[1]),
                    _ => (element % kernel[1], window % windows[1]),
                };
                let padded = window * of.stride[axis] + element * of.dilation[axis];
                padded as f32 - of.padding[axis] as f32
            };
            let values = Values::F32((0..elements * count).map(regular).collect());
            let shape = Shape(vec![1, 1, elements * count]);
            let regular = self.graph.push_constant(Constant { shape, values });
            let offset = self.pick(offsets, 2, vec![axis])?;
            let offset = self.reshape(offset, Shape(vec![images, 1, elements * count]))?;
            *place = self.push(Binary::Add, &[offset, regular])?;
        }
        Ok(places)
    }
}
