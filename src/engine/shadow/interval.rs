//! What the reference says a value may be: one number for every element, or a range of them.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, f16};
use burn_backend::TensorMetadata;
use burn_dispatch::DispatchTensor;

use crate::batch::move_to;
use crate::engine::burn::{evaluate, same_order, tolerance};
use crate::engine::host_tensor;
use crate::graph::{Node, Op};
use crate::random::RunKey;

/// Differences that devices may make of the smallest floats, which some take for zero.
const SMALLEST: f64 = 4.0 * f32::MIN_POSITIVE as f64;

/// What a kernel may leave out or keep in more digits than a float has, relative to a value that it
/// does not store: it may fuse a product with a sum, and regroup sums and factors.
const UNSTORED: f64 = 4.0 * f32::EPSILON as f64;

/// A value as the reference has it.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    /// Of exact operands.
    pub middle: DispatchTensor,
    /// Its ends, where it is not exact.
    ends: Option<Box<[DispatchTensor; 2]>>,
}

/// The first element that is not what it has to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    /// Its position in row-major order.
    pub at: usize,
    pub found: f64,
    pub expected: f64,
    /// Largest difference that would have been no fault; none where it has to be exact.
    pub tolerance: Option<f64>,
}

impl Interval {
    /// A value that is known to the bit.
    pub fn exact(value: DispatchTensor) -> Self {
        Self { middle: value, ends: None }
    }

    /// A value as a kernel may have it that does not store it.
    pub fn unstored(self, node: &Node) -> Self {
        if node.op.is_movement() || !self.middle.dtype().is_float() {
            return self;
        }
        let middle = numbers(&self.middle);
        let widths = middle.iter().map(|x| UNSTORED * x.abs() + SMALLEST).collect::<Vec<f64>>();
        self.widened(&widths)
    }

    /// What `node` is of operands like these.
    pub fn evaluate(node: &Node, operands: &[Self], key: RunKey) -> Self {
        let middles: Vec<DispatchTensor> = operands.iter().map(|of| of.middle.clone()).collect();
        let middle = evaluate(node, middles.clone(), key);
        let own = tolerance(node, &middles, &middle);
        let mut result = Self { middle, ends: None };
        for corner in corners(node, operands) {
            result.include(&evaluate(node, corner, key));
        }
        // A result of what is not exact is rounded like one that is.
        let rounds = result.ends.is_some() && !node.op.is_movement() && own.is_none();
        if rounds && result.middle.dtype().is_float() {
            result = result.unstored(node);
        }
        match own {
            Some(own) => result.widened(&numbers(&own)),
            None => result,
        }
    }

    /// Values between these and those that are within the widths of them.
    fn widened(self, widths: &[f64]) -> Self {
        let [low, high] = self.ends();
        let pairs = |end: &DispatchTensor| numbers(end).into_iter().zip(widths);
        // Rounded away from the middle: a width may be less than the distance of two floats.
        let least = pairs(&low).map(|(x, width)| x - width).map(|x| match x as f32 {
            above if f64::from(above) > x => above.next_down().into(),
            below => below.into(),
        });
        let most = pairs(&high).map(|(x, width)| x + width).map(|x| match x as f32 {
            below if f64::from(below) < x => below.next_up().into(),
            above => above.into(),
        });
        let ends = Some(Box::new([floats(least, &low), floats(most, &high)]));
        Self { ends, ..self }
    }

    /// Values between these and `other`.
    fn include(&mut self, other: &DispatchTensor) {
        let [low, high] = self.ends();
        let merged = |end: &DispatchTensor, choose: fn(f64, f64) -> f64| {
            let both = numbers(end).into_iter().zip(numbers(other));
            like(both.map(|(x, y)| choose(x, y)), end)
        };
        // NaN of either makes the end NaN, which is no end.
        let least = |x: f64, y: f64| if x < y || x.is_nan() { x } else { y };
        let most = |x: f64, y: f64| if x > y || x.is_nan() { x } else { y };
        self.ends = Some(Box::new([merged(&low, least), merged(&high, most)]));
    }

    fn ends(&self) -> [DispatchTensor; 2] {
        self.ends.as_deref().cloned().unwrap_or_else(|| [self.middle.clone(), self.middle.clone()])
    }

    /// How far elements may be from the middle; 0 where they are exact.
    pub fn widths(&self) -> Vec<f64> {
        let middle = numbers(&self.middle);
        let Some([low, high]) = self.ends.as_deref() else { return vec![0.0; middle.len()] };
        let ends = numbers(low).into_iter().zip(numbers(high));
        ends.zip(middle).map(|((low, high), x)| (high - x).max(x - low)).collect()
    }

    /// The first element of `found` that it may not have; `halves` says that it was rounded to 16
    /// bits.
    pub fn difference(&self, found: &DispatchTensor, halves: bool) -> Option<Difference> {
        let exact = self.ends.is_none() && !halves;
        let (middle, found) = (numbers(&self.middle), numbers(found));
        let ends = self.ends.as_deref().map(|ends| ends.each_ref().map(numbers));
        assert_eq!(found.len(), middle.len(), "a shown value has the shape of its node");
        for (at, (&found, &expected)) in found.iter().zip(&middle).enumerate() {
            if found == expected || (found.is_nan() && expected.is_nan()) {
                continue;
            }
            let (mut low, mut high) =
                ends.as_ref().map_or((expected, expected), |[low, high]| (low[at], high[at]));
            if halves {
                (low, high) = halved(low, high);
            }
            // A bound that is no number is none.
            let outside = found.is_nan() || found < low - SMALLEST || found > high + SMALLEST;
            if outside && !low.is_nan() && !high.is_nan() {
                let tolerance = (!exact).then(|| (high - expected).max(expected - low));
                return Some(Difference { at, found, expected, tolerance });
            }
        }
        None
    }

    /// The same for `node`, of whose operands the last is `x`: elements that are equal may come in
    /// any order.
    pub fn difference_of(
        &self,
        node: &Node,
        operands: &[Self],
        found: &DispatchTensor,
        halves: bool,
    ) -> Option<Difference> {
        let difference = self.difference(found, halves)?;
        let orders = [found.clone(), self.middle.clone()];
        let same = operands.first().is_some_and(|x| same_order(node, &x.middle, orders));
        (!same).then_some(difference)
    }
}

/// Operands at their ends: all combinations for an elementwise op, else all low and all high.
fn corners(node: &Node, operands: &[Interval]) -> Vec<Vec<DispatchTensor>> {
    let open: Vec<usize> = (0..operands.len()).filter(|&at| operands[at].ends.is_some()).collect();
    if open.is_empty() {
        return Vec::new();
    }
    let all = 1usize << open.len().min(usize::BITS as usize - 1);
    let picks: Vec<usize> = match node.op {
        Op::Elementwise(_) => (0..all).collect(),
        _ => vec![0, all - 1],
    };
    let corner = |pick: usize| {
        let of = |(at, operand): (usize, &Interval)| match open.iter().position(|of| *of == at) {
            Some(bit) => operand.ends()[pick >> bit & 1].clone(),
            None => operand.middle.clone(),
        };
        operands.iter().enumerate().map(of).collect()
    };
    picks.into_iter().map(corner).collect()
}

/// What halves between two numbers may be, with one unit for how they are rounded.
fn halved(low: f64, high: f64) -> (f64, f64) {
    let unit = |x: f64| x.abs() * f64::from(f16::EPSILON) + 6e-8;
    let (low, high) = (low - unit(low), high + unit(high));
    let largest = f64::from(f16::MAX);
    let low = if low < -largest { f64::NEG_INFINITY } else { low };
    (low, if high > largest { f64::INFINITY } else { high })
}

/// A tensor on the device of the reference.
pub(super) fn on_host(tensor: &DispatchTensor) -> DispatchTensor {
    move_to(tensor.clone(), &Device::flex())
}

/// The elements of a tensor of any kind, truths as 0 and 1.
pub(super) fn numbers(tensor: &DispatchTensor) -> Vec<f64> {
    let (dtype, tensor) = (tensor.dtype(), tensor.clone());
    if dtype.is_float() {
        return Tensor::<1>::from_dispatch(tensor).into_data().iter::<f64>().collect();
    }
    if dtype.is_bool() {
        let data = Tensor::<1, Bool>::from_dispatch(tensor).into_data();
        return data.iter::<bool>().map(|truth| f64::from(u8::from(truth))).collect();
    }
    let data = Tensor::<1, Int>::from_dispatch(tensor).into_data();
    data.iter::<i64>().map(|x| x as f64).collect()
}

/// Floats in the shape of another tensor.
pub(super) fn floats(
    values: impl Iterator<Item = f64>,
    shape_of: &DispatchTensor,
) -> DispatchTensor {
    let values: Vec<f32> = values.map(|x| x as f32).collect();
    host_tensor(TensorData::new(values, shape_of.shape()))
}

/// A tensor of the kind and shape of another.
fn like(values: impl Iterator<Item = f64>, of: &DispatchTensor) -> DispatchTensor {
    if of.dtype().is_float() {
        return floats(values, of);
    }
    if of.dtype().is_bool() {
        let truths: Vec<bool> = values.map(|x| x != 0.0).collect();
        return host_tensor(TensorData::new(truths, of.shape()));
    }
    let integers: Vec<i64> = values.map(|x| x as i64).collect();
    host_tensor(TensorData::new(integers, of.shape()))
}
