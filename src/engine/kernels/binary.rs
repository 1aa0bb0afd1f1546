//! Elementwise operations on two tensors, with broadcasting and in place.

use super::layout::{StridedView, Walk};
use multiversion::multiversion;

/// An operation on two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Subtract,
    /// `a b`.
    Multiply,
    /// `a / b`.
    Divide,
}

/// Expands `$map!(function)` for the chosen operation: one loop per operation, no branch inside.
macro_rules! for_each_binary {
    ($op:expr, $map:ident) => {
        match $op {
            Binary::Add => $map!(std::ops::Add::add),
            Binary::Subtract => $map!(std::ops::Sub::sub),
            Binary::Multiply => $map!(std::ops::Mul::mul),
            Binary::Divide => $map!(std::ops::Div::div),
        }
    };
}

/// `dst = op(a, b)`, elementwise over views of one shape; `dst` is contiguous.
///
/// Runs at full speed where the views, after merging axes, step by 1 or 0 along the last axis:
/// equal shapes, a row `[cols]`, a column `[rows, 1]`, a scalar. Other strides go element by
/// element.
#[multiversion(targets = "simd")]
pub fn binary(op: Binary, dst: &mut [f32], a: StridedView, b: StridedView) {
    assert_eq!(dst.len(), a.len(), "output does not fit the shape");
    assert_eq!(a.shape(), b.shape(), "operands differ in shape");
    let walk = Walk::new(a.shape(), [a.strides(), b.strides()]);
    macro_rules! map {
        ($f:path) => {
            map_rows(dst, a.data, b.data, &walk, |a: f32, b: f32| $f(a, b))
        };
    }
    for_each_binary!(op, map);
}

/// `dst = op(dst, b)`, elementwise; `dst` is contiguous and `b` has its shape.
#[multiversion(targets = "simd")]
pub fn binary_assign(op: Binary, dst: &mut [f32], b: StridedView) {
    assert_eq!(dst.len(), b.len(), "output does not fit the shape");
    let walk = Walk::new(b.shape(), [b.strides()]);
    macro_rules! map {
        ($f:path) => {
            assign_rows(dst, b.data, &walk, |a: f32, b: f32| $f(a, b))
        };
    }
    for_each_binary!(op, map);
}

/// `dst += x`.
#[multiversion(targets = "simd")]
pub fn add_assign(dst: &mut [f32], x: &[f32]) {
    assert_eq!(dst.len(), x.len(), "output and input differ in length");
    for (d, &x) in dst.iter_mut().zip(x) {
        *d += x;
    }
}

/// `dst *= factor`.
#[multiversion(targets = "simd")]
pub fn scale(dst: &mut [f32], factor: f32) {
    for d in dst.iter_mut() {
        *d *= factor;
    }
}

#[inline(always)]
fn map_rows(
    dst: &mut [f32],
    a: &[f32],
    b: &[f32],
    walk: &Walk<2>,
    f: impl Fn(f32, f32) -> f32 + Copy,
) {
    let (n, [sa, sb]) = walk.axis_from_last(0);
    if dst.is_empty() {
        return;
    }
    let mut rows = dst.chunks_exact_mut(n);
    walk.outer(
        1,
        #[inline(always)]
        |[at_a, at_b]| {
            let Some(row) = rows.next() else { return };
            let (a, b) = (&a[at_a..], &b[at_b..]);
            match (sa, sb) {
                (1, 1) => {
                    for ((d, &a), &b) in row.iter_mut().zip(a).zip(b) {
                        *d = f(a, b);
                    }
                }
                (1, 0) => {
                    let b = b[0];
                    for (d, &a) in row.iter_mut().zip(a) {
                        *d = f(a, b);
                    }
                }
                (0, 1) => {
                    let a = a[0];
                    for (d, &b) in row.iter_mut().zip(b) {
                        *d = f(a, b);
                    }
                }
                _ => {
                    for (i, d) in row.iter_mut().enumerate() {
                        *d = f(a[i * sa], b[i * sb]);
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn assign_rows(dst: &mut [f32], b: &[f32], walk: &Walk<1>, f: impl Fn(f32, f32) -> f32 + Copy) {
    let (n, [stride]) = walk.axis_from_last(0);
    if dst.is_empty() {
        return;
    }
    let mut rows = dst.chunks_exact_mut(n);
    walk.outer(
        1,
        #[inline(always)]
        |[at]| {
            let Some(row) = rows.next() else { return };
            let b = &b[at..];
            match stride {
                1 => {
                    for (d, &b) in row.iter_mut().zip(b) {
                        *d = f(*d, b);
                    }
                }
                0 => {
                    let b = b[0];
                    for d in row {
                        *d = f(*d, b);
                    }
                }
                _ => {
                    for (i, d) in row.iter_mut().enumerate() {
                        *d = f(*d, b[i * stride]);
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::layout::elements;
    use super::super::testing::{assert_close, values};
    use super::*;
    use proptest::prelude::*;

    const ALL: [Binary; 4] = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide];

    fn scalar(op: Binary, a: f32, b: f32) -> f32 {
        match op {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
        }
    }

    fn check(a: StridedView, b: StridedView) {
        let (xs, ys) = (elements(&a), elements(&b));
        for op in ALL {
            let want: Vec<f32> = xs.iter().zip(&ys).map(|(&x, &y)| scalar(op, x, y)).collect();
            let mut dst = vec![f32::NAN; want.len()];
            binary(op, &mut dst, a, b);
            assert_eq!(dst, want, "{op:?}");
            let mut dst = xs.clone();
            binary_assign(op, &mut dst, b);
            assert_eq!(dst, want, "{op:?} in place");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn broadcasts_match_a_scalar_loop(
            axes in prop::collection::vec((1usize..9, any::<bool>(), any::<bool>()), 0..6),
            last in 1usize..70,
        ) {
            let mut shape: Vec<usize> = axes.iter().map(|axis| axis.0.min(4)).collect();
            shape.push(last);
            let unit = |keep: fn(&(usize, bool, bool)) -> bool| -> Vec<usize> {
                let kept = axes.iter().map(|axis| if keep(axis) { axis.0.min(4) } else { 1 });
                kept.chain([last]).collect()
            };
            let (from_a, from_b) = (unit(|axis| axis.1), unit(|axis| axis.2));
            let a = values(from_a.iter().product(), 1);
            let b = values(from_b.iter().product(), 2);
            let a = StridedView::broadcast(&a, &from_a, &shape);
            check(a, StridedView::broadcast(&b, &from_b, &shape));
        }

        #[test]
        fn in_place_forms_match_a_scalar_loop(rows in 0usize..4, n in 1usize..70) {
            let (d, x) = (values(rows * n, 1), values(rows * n, 2));
            let run = |f: &dyn Fn(&mut [f32])| {
                let mut out = d.clone();
                f(&mut out);
                out
            };
            let reference = |f: &dyn Fn(usize) -> f64| (0..rows * n).map(f).collect::<Vec<_>>();
            let want = reference(&|i| d[i] as f64 + x[i] as f64);
            assert_close(&run(&|out| add_assign(out, &x)), &want, 1e-7);
            let want = reference(&|i| d[i] as f64 * 0.3f32 as f64);
            assert_close(&run(&|out| scale(out, 0.3)), &want, 1e-7);
        }
    }

    #[test]
    fn rows_columns_scalars_transposes_and_empty_shapes() {
        let (x, y) = (values(35, 1), values(35, 2));
        let plain = StridedView::contiguous(&x, &[5, 7]);
        check(plain, StridedView::contiguous(&y, &[5, 7]));
        check(plain, StridedView::broadcast(&y[..7], &[7], &[5, 7]));
        check(plain, StridedView::broadcast(&y[..5], &[5, 1], &[5, 7]));
        check(plain, StridedView::broadcast(&y[..1], &[], &[5, 7]));
        check(plain, StridedView::strided(&y, &[5, 7], &[1, 5]));
        check(
            StridedView::broadcast(&x[..5], &[5, 1], &[5, 7]),
            StridedView::contiguous(&y, &[5, 7]),
        );
        check(
            StridedView::contiguous(&[], &[0, 7]),
            StridedView::broadcast(&y[..7], &[7], &[0, 7]),
        );
        check(
            StridedView::contiguous(&[], &[5, 0]),
            StridedView::broadcast(&y[..5], &[5, 1], &[5, 0]),
        );
    }
}
