//! Matrix products of strided views, single or batched, on the calling thread.

use super::WriteMode;
use gemm::Parallelism;

/// A read-only matrix inside a slice: element `(i, j)` lies at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// The row-major matrix at the start of the slice.
    #[cfg(test)]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A matrix with any strides.
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        MatRef { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose, without moving anything.
    #[cfg(test)]
    pub fn t(self) -> Self {
        Self::strided(self.data, self.cols, self.rows, self.col_stride, self.row_stride)
    }
}

/// A writable matrix inside a slice, laid out as [`MatRef`]; its elements must not overlap.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatMut<'a> {
    /// The row-major matrix at the start of the slice.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A matrix with any strides.
    pub fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        MatMut { data, rows, cols, row_stride, col_stride }
    }
}

/// `dst = a b` or `dst += a b`, for `a [m, k]`, `b [k, n]`, `dst [m, n]`.
pub fn matmul(dst: MatMut, a: MatRef, b: MatRef, write: WriteMode) {
    let (m, n, k) = (dst.rows, dst.cols, a.cols);
    assert!(a.rows == m && b.rows == k && b.cols == n, "{m}x{n} is not the shape of the product");
    let fits = extent(m, n, dst.row_stride, dst.col_stride) <= dst.data.len()
        && extent(m, k, a.row_stride, a.col_stride) <= a.data.len()
        && extent(k, n, b.row_stride, b.col_stride) <= b.data.len();
    assert!(fits, "a matrix leaves its slice");
    // SAFETY: the assertion above bounds the last element of every matrix, dst is exclusively
    // borrowed, and gemm touches nothing but the elements of the views.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.data.as_mut_ptr(),
            dst.col_stride as isize,
            dst.row_stride as isize,
            write == WriteMode::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The number of slice elements a matrix spans.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    let last_row = row_stride.saturating_mul(rows - 1);
    last_row.saturating_add(col_stride.saturating_mul(cols - 1)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, values};
    use super::*;
    use proptest::prelude::*;

    fn at(m: &MatRef, i: usize, j: usize) -> f64 {
        m.data[i * m.row_stride + j * m.col_stride] as f64
    }

    fn check([m, n, k]: [usize; 3], at_: bool, bt: bool, write: WriteMode) {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let mut dst = values(m * n, 3);
        let a = if at_ { MatRef::new(&a, k, m).t() } else { MatRef::new(&a, m, k) };
        let b = if bt { MatRef::new(&b, n, k).t() } else { MatRef::new(&b, k, n) };
        let mut want = Vec::new();
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let sum: f64 = (0..k).map(|p| at(&a, i, p) * at(&b, p, j)).sum();
            let old = if write == WriteMode::Add { dst[i * n + j] } else { 0.0 };
            want.push(old as f64 + sum);
        }
        if write == WriteMode::Set {
            dst.fill(f32::NAN);
        }
        matmul(MatMut::new(&mut dst, m, n), a, b, write);
        assert_close(&dst, &want, 1e-4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn matches_the_definition(
            m in 1usize..40, n in 1usize..40, k in 0usize..70, at_: bool, bt: bool, add: bool,
        ) {
            let write = if add { WriteMode::Add } else { WriteMode::Set };
            check([m, n, k], at_, bt, write);
        }
    }

    #[test]
    fn writes_into_a_strided_output_only() {
        let (a, b) = (values(6, 1), values(6, 2));
        let mut dst = [9.0; 12];
        let mut plain = [0.0; 4];
        matmul(
            MatMut::new(&mut plain, 2, 2),
            MatRef::new(&a, 2, 3),
            MatRef::new(&b, 3, 2),
            WriteMode::Set,
        );
        let wide = MatMut::strided(&mut dst, 2, 2, 6, 1);
        matmul(wide, MatRef::new(&a, 2, 3), MatRef::new(&b, 3, 2), WriteMode::Set);
        assert_eq!([dst[0], dst[1], dst[6], dst[7]], plain);
        assert!(dst.iter().filter(|&&x| x == 9.0).count() == 8);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn a_stride_that_overflows_panics() {
        let mut dst = [0.0; 4];
        let a = MatRef::strided(&[0.0; 4], 2, 2, usize::MAX, 1);
        matmul(MatMut::new(&mut dst, 2, 2), a, MatRef::new(&[0.0; 4], 2, 2), WriteMode::Set);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn a_short_slice_panics() {
        let mut dst = [0.0; 4];
        matmul(
            MatMut::new(&mut dst, 2, 2),
            MatRef::new(&[0.0; 5], 2, 3),
            MatRef::new(&[0.0; 6], 3, 2),
            WriteMode::Set,
        );
    }
}
