//! Where the elements of a factor are, and how many of them one load may take.

use crate::engine::wgpu::kernel::View;

/// A factor as the product sees it. Sizes and strides count elements; a dimension of size 1 has
/// stride 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix {
    /// Position of the kernel's read.
    pub read: usize,
    /// The leading dimensions, with the offset.
    pub batch: View,
    /// Size of the dimension that the product keeps: rows of `x`, columns of `y`.
    pub outer: usize,
    /// Stride of that dimension.
    pub outer_stride: usize,
    /// Size of the dimension that is summed over.
    pub inner: usize,
    /// Stride of that dimension.
    pub inner_stride: usize,
    /// Whether the elements are halves.
    pub half: bool,
    /// Whether what follows the product reads it, too: as single elements, then.
    pub plain: bool,
}

/// What one load takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// One element.
    One,
    /// So many neighbours along the summed dimension.
    Inner(usize),
    /// So many neighbours along the kept dimension.
    Outer(usize),
}

impl Matrix {
    /// The first factor: `[.., m, k]`, of f32 that only the product reads.
    pub fn x(view: &View) -> Self {
        let (batch, [outer, inner]) = split(view);
        Self::new(0, batch, outer, inner)
    }

    /// The second factor: `[.., k, n]`, likewise.
    pub fn y(view: &View) -> Self {
        let (batch, [inner, outer]) = split(view);
        Self::new(1, batch, outer, inner)
    }

    fn new(read: usize, batch: View, outer: (usize, usize), inner: (usize, usize)) -> Self {
        let (outer, outer_stride) = outer;
        let (inner, inner_stride) = inner;
        let (half, plain) = (false, false);
        Self { read, batch, outer, outer_stride, inner, inner_stride, half, plain }
    }

    /// Vectors of 16 bytes from the buffer's start to behind the factor's last element.
    pub fn vectors(&self) -> usize {
        let View { shape, strides, offset } = &self.batch;
        let whole = View {
            shape: [&shape[..], &[self.outer, self.inner]].concat(),
            strides: [&strides[..], &[self.outer_stride, self.inner_stride]].concat(),
            offset: *offset,
        };
        let steps = whole.shape.iter().zip(&whole.strides);
        let last = steps.map(|(size, stride)| (size.max(&1) - 1) * stride).sum::<usize>();
        (whole.offset + last + 1).div_ceil(if self.half { 8 } else { 4 })
    }

    /// The longest load of at most `most` neighbours (at most `most_inner` along the summed
    /// dimension) that never leaves the matrix and always starts at a multiple of its length.
    /// Lengths are powers of two.
    pub fn load(&self, most_inner: usize, most_outer: usize) -> Load {
        let inner = self.length(most_inner, self.inner, self.inner_stride, self.outer_stride);
        let outer = self.length(most_outer, self.outer, self.outer_stride, self.inner_stride);
        match (inner, outer) {
            (1, 1) => Load::One,
            (inner, outer) if inner >= outer => Load::Inner(inner),
            (_, outer) => Load::Outer(outer),
        }
    }

    fn length(&self, most: usize, size: usize, stride: usize, other: usize) -> usize {
        let fits = |length: usize| {
            let starts = self.batch.strides.iter().chain([&other, &self.batch.offset]);
            stride == 1
                && size.is_multiple_of(length)
                && starts.into_iter().all(|start| start.is_multiple_of(length))
        };
        [8, 4, 2].into_iter().find(|&length| length <= most && fits(length)).unwrap_or(1)
    }
}

/// The leading dimensions, and size and stride of the last two.
fn split(view: &View) -> (View, [(usize, usize); 2]) {
    let stride = |axis: usize| if view.shape[axis] == 1 { 0 } else { view.strides[axis] };
    let leading = view.shape.len() - 2;
    let batch = View {
        shape: view.shape[..leading].to_vec(),
        strides: (0..leading).map(stride).collect(),
        offset: view.offset,
    };
    (batch, [leading, leading + 1].map(|axis| (view.shape[axis], stride(axis))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_factors_load_along_what_is_contiguous() {
        let x = Matrix::x(&View::dense(&[3, 16, 24]));
        assert_eq!(x.load(8, 8), Load::Inner(8));
        assert_eq!(x.load(4, 8), Load::Inner(4));
        let y = Matrix::y(&View::dense(&[3, 24, 20]));
        assert_eq!(y.load(8, 8), Load::Outer(4));
        assert_eq!(y.load(8, 1), Load::One);
    }

    #[test]
    fn what_is_not_aligned_loads_one_by_one() {
        let offset = View { shape: vec![16, 8], strides: vec![8, 1], offset: 3 };
        assert_eq!(Matrix::x(&offset).load(8, 8), Load::One);
        let batch = View { shape: vec![2, 16, 8], strides: vec![129, 8, 1], offset: 0 };
        assert_eq!(Matrix::x(&batch).load(8, 8), Load::One);
        let repeated = View { shape: vec![2, 16, 8], strides: vec![0, 8, 1], offset: 2 };
        assert_eq!(Matrix::x(&repeated).load(8, 8), Load::Inner(2));
        let odd = View { shape: vec![16, 7], strides: vec![8, 1], offset: 0 };
        assert_eq!(Matrix::x(&odd).load(8, 8), Load::One);
    }

    #[test]
    fn a_transposed_factor_loads_along_the_other_dimension() {
        let view = View { shape: vec![16, 8], strides: vec![1, 16], offset: 0 };
        assert_eq!(Matrix::x(&view).load(8, 8), Load::Outer(8));
        assert_eq!(Matrix::y(&view).load(8, 8), Load::Inner(8));
        assert_eq!(Matrix::y(&view).load(2, 8), Load::Inner(2));
    }

    #[test]
    fn one_row_is_loaded_along_its_elements() {
        let view = View { shape: vec![1, 8], strides: vec![3, 1], offset: 0 };
        assert_eq!(Matrix::x(&view).load(8, 8), Load::Inner(8));
    }
}
