//! Copies of strided views into contiguous slices: permutes, transposes, broadcasts.

use super::layout::{StridedView, Walk};
use multiversion::multiversion;

/// Rows and columns transposed at a time: a cache line each way.
const TILE: usize = 16;

/// `dst = src`, row-major.
///
/// Whole runs move at once where the last axis is contiguous in `src`. Otherwise, if some other
/// axis is, the two are transposed tile by tile; if none is, elements move one by one.
#[multiversion(targets = "simd")]
pub fn copy(dst: &mut [f32], src: StridedView) {
    assert_eq!(dst.len(), src.len(), "output does not fit the shape");
    if dst.is_empty() {
        return;
    }
    let rank = src.shape().len();
    let mut walk = Walk::new(src.shape(), [src.strides(), &src.row_major()[..rank]]);
    let (n, [stride, _]) = walk.axis_from_last(0);
    let src = src.data;
    match stride {
        1 => walk.outer(1, |[from, to]| dst[to..to + n].copy_from_slice(&src[from..from + n])),
        0 => walk.outer(1, |[from, to]| dst[to..to + n].fill(src[from])),
        _ if walk.swap_to_second_last(|[from, _]| from == 1) => {
            let (m, [_, dst_stride]) = walk.axis_from_last(1);
            walk.outer(
                2,
                #[inline(always)]
                |[from, to]| transpose(&mut dst[to..], dst_stride, &src[from..], stride, [m, n]),
            )
        }
        _ => walk.outer(1, |[from, to]| {
            let row = src[from..].iter().step_by(stride);
            dst[to..to + n].iter_mut().zip(row).for_each(|(d, &s)| *d = s);
        }),
    }
}

/// `dst[i * dst_stride + j] = src[j * src_stride + i]` for `i < m`, `j < n`.
#[inline(always)]
fn transpose(
    dst: &mut [f32],
    dst_stride: usize,
    src: &[f32],
    src_stride: usize,
    [m, n]: [usize; 2],
) {
    for i in (0..m).step_by(TILE) {
        for j in (0..n).step_by(TILE) {
            let dst = &mut dst[i * dst_stride + j..];
            let src = &src[j * src_stride + i..];
            if i + TILE <= m && j + TILE <= n {
                transpose_tile(dst, dst_stride, src, src_stride);
                continue;
            }
            for i in 0..TILE.min(m - i) {
                for j in 0..TILE.min(n - j) {
                    dst[i * dst_stride + j] = src[j * src_stride + i];
                }
            }
        }
    }
}

/// [`transpose`] of one whole tile.
///
/// Reads every row before writing any: rows a power of two apart evict one another.
#[inline(always)]
fn transpose_tile(dst: &mut [f32], dst_stride: usize, src: &[f32], src_stride: usize) {
    let mut tile = [[0.0; TILE]; TILE];
    for (j, row) in tile.iter_mut().enumerate() {
        row.copy_from_slice(&src[j * src_stride..][..TILE]);
    }
    for i in 0..TILE {
        let row: [f32; TILE] = std::array::from_fn(|j| tile[j][i]);
        dst[i * dst_stride..][..TILE].copy_from_slice(&row);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::elements;
    use super::super::testing::values;
    use super::*;
    use proptest::prelude::*;

    /// A row-major tensor of a random shape seen with its axes in a random order.
    fn permuted() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
        prop::collection::vec(1usize..20, 0..4).prop_flat_map(|shape| {
            let axes: Vec<usize> = (0..shape.len()).collect();
            (Just(shape), Just(axes).prop_shuffle())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn permutes_match_indexing((shape, axes) in permuted()) {
            let data = values(shape.iter().product(), 1);
            let strides = StridedView::contiguous(&data, &shape).row_major();
            let shape: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
            let strides: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
            let view = StridedView::strided(&data, &shape, &strides);
            let mut dst = vec![f32::NAN; data.len()];
            copy(&mut dst, view);
            assert_eq!(dst, elements(&view));
        }
    }

    #[test]
    fn broadcasts_gaps_and_large_transposes_match_indexing() {
        let data = values(80 * 70, 2);
        for view in [
            StridedView::broadcast(&data[..7], &[7, 1], &[3, 7, 5]),
            StridedView::strided(&data, &[5, 4], &[3, 20]),
            StridedView::strided(&data, &[70, 80], &[1, 70]),
            StridedView::strided(&data, &[33, 2, 35], &[1, 70, 140]),
            StridedView::strided(&data, &[0, 3], &[3, 1]),
        ] {
            let mut dst = vec![f32::NAN; view.len()];
            copy(&mut dst, view);
            assert_eq!(dst, elements(&view));
        }
    }
}
