//! Strided read-only views of a slice: broadcasts, transposes and head splits without a copy.

/// The most axes a [`StridedView`] may have.
pub const MAX_DIMS: usize = 6;

/// A tensor of up to [`MAX_DIMS`] axes inside a slice: element `(i, j, ..)` lies at
/// `i * strides[0] + j * strides[1] + ..`, and stride 0 repeats an element along its axis.
#[derive(Clone, Copy, Debug)]
pub struct StridedView<'a> {
    pub(super) data: &'a [f32],
    rank: usize,
    shape: [usize; MAX_DIMS],
    strides: [usize; MAX_DIMS],
}

impl<'a> StridedView<'a> {
    /// The whole of a row-major slice.
    pub fn contiguous(data: &'a [f32], shape: &[usize]) -> Self {
        Self::broadcast(data, shape, shape)
    }

    /// A row-major slice of shape `from`, repeated to `shape` by numpy's rule: axes align at the
    /// end, and an axis of length 1 or a missing one repeats.
    pub fn broadcast(data: &'a [f32], from: &[usize], shape: &[usize]) -> Self {
        assert!(from.len() <= shape.len(), "cannot broadcast {from:?} to {shape:?}");
        assert_eq!(
            data.len(),
            from.iter().product::<usize>(),
            "slice length does not fit {from:?}"
        );
        let mut strides = [0; MAX_DIMS];
        let mut stride = 1;
        for (&length, axis) in from.iter().rev().zip((0..shape.len()).rev()) {
            assert!(length == shape[axis] || length == 1, "cannot broadcast {from:?} to {shape:?}");
            strides[axis] = if length == 1 { 0 } else { stride };
            stride *= length;
        }
        Self::strided(data, shape, &strides[..shape.len()])
    }

    /// Any strides, as long as every element lies inside the slice.
    pub fn strided(data: &'a [f32], shape: &[usize], strides: &[usize]) -> Self {
        assert!(shape.len() <= MAX_DIMS, "more than {MAX_DIMS} axes: {shape:?}");
        assert_eq!(shape.len(), strides.len(), "one stride per axis");
        let mut view =
            StridedView { data, rank: shape.len(), shape: [1; MAX_DIMS], strides: [0; MAX_DIMS] };
        view.shape[..shape.len()].copy_from_slice(shape);
        view.strides[..shape.len()].copy_from_slice(strides);
        if view.len() > 0 {
            let last: usize = shape.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum();
            assert!(last < data.len(), "shape {shape:?} strides {strides:?} leave the slice");
        }
        view
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    pub(super) fn len(&self) -> usize {
        self.shape().iter().product()
    }

    pub(super) fn strides(&self) -> &[usize] {
        &self.strides[..self.rank]
    }

    /// The strides of a contiguous tensor of this shape; those past the last axis are 1.
    pub(super) fn row_major(&self) -> [usize; MAX_DIMS] {
        let mut strides = [1; MAX_DIMS];
        for axis in (1..self.rank).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        strides
    }
}

/// The axes that `N` views of one shape must be walked over, in row-major order.
///
/// Neighbouring axes that every view steps through evenly are one axis here, and axes of length 1
/// are gone, so that most layouts shrink to one or two axes. There is always a last axis.
#[derive(Debug)]
pub(super) struct Walk<const N: usize> {
    rank: usize,
    shape: [usize; MAX_DIMS],
    strides: [[usize; N]; MAX_DIMS],
}

impl<const N: usize> Walk<N> {
    /// Panics unless there is one stride per axis in each of `strides`.
    pub(super) fn new(shape: &[usize], strides: [&[usize]; N]) -> Self {
        assert!(strides.iter().all(|s| s.len() == shape.len()), "views differ in rank");
        let mut walk = Walk { rank: 0, shape: [1; MAX_DIMS], strides: [[0; N]; MAX_DIMS] };
        for (axis, &length) in shape.iter().enumerate().filter(|&(_, &length)| length != 1) {
            let strides = strides.map(|s| s[axis]);
            if walk.rank > 0 {
                let previous = walk.rank - 1;
                if (0..N).all(|v| walk.strides[previous][v] == strides[v] * length) {
                    walk.shape[previous] *= length;
                    walk.strides[previous] = strides;
                    continue;
                }
            }
            walk.shape[walk.rank] = length;
            walk.strides[walk.rank] = strides;
            walk.rank += 1;
        }
        if walk.rank == 0 {
            walk.rank = 1;
        }
        walk
    }

    /// Length and strides of an axis counted from the last one.
    pub(super) fn axis_from_last(&self, back: usize) -> (usize, [usize; N]) {
        (self.shape[self.rank - 1 - back], self.strides[self.rank - 1 - back])
    }

    /// Moves an axis with these strides to the second place from the end; false if there is none.
    /// The last axis stays where it is, and the order of the walk changes.
    pub(super) fn swap_to_second_last(&mut self, wanted: impl Fn([usize; N]) -> bool) -> bool {
        let outer = self.rank - 1;
        let Some(axis) = self.strides[..outer].iter().position(|&s| wanted(s)) else {
            return false;
        };
        self.shape.swap(axis, outer - 1);
        self.strides.swap(axis, outer - 1);
        true
    }

    /// Calls `f` with the views' offsets at every position of the axes but the last `inner`.
    #[inline(always)]
    pub(super) fn outer(&self, inner: usize, mut f: impl FnMut([usize; N])) {
        let axes = self.rank - inner;
        let count: usize = self.shape[..axes].iter().product();
        let mut index = [0; MAX_DIMS];
        let mut offsets = [0; N];
        for _ in 0..count {
            f(offsets);
            for axis in (0..axes).rev() {
                index[axis] += 1;
                for (offset, stride) in offsets.iter_mut().zip(self.strides[axis]) {
                    *offset += stride;
                }
                if index[axis] < self.shape[axis] {
                    break;
                }
                for (offset, stride) in offsets.iter_mut().zip(self.strides[axis]) {
                    *offset -= stride * self.shape[axis];
                }
                index[axis] = 0;
            }
        }
    }
}

/// The view's elements in row-major order, one index at a time.
#[cfg(test)]
pub(super) fn elements(view: &StridedView) -> Vec<f32> {
    let element = |flat: usize| {
        let mut rest = flat;
        let mut offset = 0;
        for (&length, &stride) in view.shape().iter().zip(view.strides()).rev() {
            offset += rest % length * stride;
            rest /= length;
        }
        view.data[offset]
    };
    (0..view.len()).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_repeats_along_missing_and_unit_axes() {
        let data = [1.0, 2.0, 3.0];
        let row = StridedView::broadcast(&data, &[3], &[2, 3]);
        assert_eq!(elements(&row), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let column = StridedView::broadcast(&data, &[3, 1], &[3, 2]);
        assert_eq!(elements(&column), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn walk_merges_axes_and_keeps_the_order() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(Walk::new(&[2, 1, 3, 4], [&[12, 12, 4, 1]]).axis_from_last(0), (24, [1]));
        let swapped = StridedView::strided(&data, &[3, 2, 4], &[4, 12, 1]);
        let walk = Walk::new(swapped.shape(), [swapped.strides()]);
        assert_eq!(walk.axis_from_last(0), (4, [1]));
        let mut seen = Vec::new();
        walk.outer(1, |[at]| seen.extend_from_slice(&data[at..at + 4]));
        assert_eq!(seen, elements(&swapped));
    }

    #[test]
    #[should_panic(expected = "leave the slice")]
    fn a_view_outside_the_slice_panics() {
        StridedView::strided(&[0.0; 5], &[2, 3], &[3, 1]);
    }

    #[test]
    #[should_panic(expected = "cannot broadcast")]
    fn a_shape_that_does_not_broadcast_panics() {
        StridedView::broadcast(&[0.0; 2], &[2], &[2, 3]);
    }
}
