//! Less common functions, of floats and of integers.

use burn::tensor::TensorData;
use zerobubble::engine::reference;
use zerobubble::engine::wgpu::testing::compute;
use zerobubble::engine::wgpu::{Context, Element, Operand, View, kernel_of};
use zerobubble::graph::{
    Binary, Bitwise, Comparison, DType, Elementwise, Graph, Reduction, Scalar, Shape, Unary,
};

use super::harness::{Of, check, decoded, elements, floats, host, positive, shapes, with_context};

fn integers(shape: &[usize]) -> Of {
    Of::Integers(shape.to_vec(), -9, 9)
}

#[test]
fn functions_of_one_number_are_burns() {
    shapes(6, |shape, seed| {
        for unary in [Unary::RoundF16, Unary::RoundBf16] {
            let of = |high: f32| [Of::Floats(shape.to_vec(), -high, high)];
            for high in [1.0, 1e-6, 7e4] {
                check(unary, &of(high), seed);
            }
        }
        for unary in [Unary::Ceil, Unary::Round, Unary::Trunc] {
            check(unary, &[floats(shape)], seed);
        }
        for unary in [Unary::Atan, Unary::Sinh, Unary::Cosh, Unary::Asinh] {
            check(unary, &[floats(shape)], seed);
        }
        let within = |low, high| [Of::Floats(shape.to_vec(), low, high)];
        for unary in [Unary::Asin, Unary::Acos] {
            check(unary, &within(-0.99, 0.99), seed);
        }
        // Burn's own is off by as much towards -1.
        check(Unary::Atanh, &within(-0.9, 0.9), seed);
        check(Unary::Tan, &within(-1.5, 1.5), seed);
        check(Unary::Acosh, &within(1.0, 9.0), seed);
        check(Unary::Log1p, &within(-0.9, 3.0), seed);
    });
}

#[test]
fn functions_of_two_numbers_are_burns_whatever_is_repeated() {
    shapes(6, |shape, seed| {
        let mut repeated = shape.to_vec();
        repeated[seed as usize % shape.len()] = 1;
        let pair = [floats(shape), floats(&repeated)];
        check(Binary::Atan2, &pair, seed);
        check(Binary::Hypot, &pair, seed);
        check(Binary::Remainder, &pair, seed);
        let powers = [positive(shape), floats(&repeated)];
        check(Binary::Power, &powers, seed);
        let whole = [integers(shape), integers(&repeated)];
        for op in [Bitwise::And, Bitwise::Or, Bitwise::Xor] {
            check(op, &whole, seed);
        }
        let divisor = [integers(shape), Of::Integers(repeated.clone(), 1, 5)];
        check(Binary::Divide, &divisor, seed);
        check(Binary::Remainder, &divisor, seed);
        let divisor = [integers(shape), Of::Integers(repeated.clone(), -5, -1)];
        check(Binary::Remainder, &divisor, seed);
        let few = [integers(shape), Of::Integers(repeated, 0, 6)];
        check(Bitwise::ShiftLeft, &few, seed);
        check(Bitwise::ShiftRight, &few, seed);
        check(Binary::Power, &few, seed);
        for (scalar, number) in [(Scalar::AtLeast, -3.0), (Scalar::AtMost, 4.0)] {
            check(Elementwise::Scalar(scalar, number), &[integers(shape)], seed);
        }
    });
}

#[test]
fn products_extremes_and_order_are_burns() {
    shapes(6, |shape, seed| {
        let axis = seed as usize % shape.len();
        let near_one = Of::Floats(shape.to_vec(), 0.8, 1.2);
        check(Reduction::CumulativeProduct(axis), &[near_one], seed);
        for reduction in [
            Reduction::CumulativeMax(axis),
            Reduction::CumulativeMin(axis),
            Reduction::ArgSort { axis, descending: false },
            Reduction::ArgSort { axis, descending: true },
        ] {
            check(reduction, &[floats(shape)], seed);
        }
    });
}

#[test]
fn reductions_of_integers_are_burns() {
    shapes(6, |shape, seed| {
        let axis = seed as usize % shape.len();
        for reduction in [
            Reduction::Sum(vec![axis]),
            Reduction::Sum((0..shape.len()).collect()),
            Reduction::CumulativeSum { axis, reverse: false },
            Reduction::CumulativeSum { axis, reverse: true },
            Reduction::CumulativeMax(axis),
            Reduction::CumulativeMin(axis),
            Reduction::ArgMax(axis),
            Reduction::ArgMin(axis),
        ] {
            check(reduction, &[integers(shape)], seed);
        }
        let signs = [Of::Integers(shape.to_vec(), -1, 1)];
        check(Reduction::CumulativeProduct(axis), &signs, seed);
    });
    // So few that Burn's sort keeps equal ones in order too.
    for (seed, shape) in [(1, [3, 17]), (2, [19, 4])] {
        for descending in [false, true] {
            let order = Reduction::ArgSort { axis: seed as usize % 2, descending };
            check(order, &[integers(&shape)], seed);
        }
    }
    check(Reduction::Sum(vec![0]), &[integers(&[3000, 3])], 1);
}

/// What is rare, with either sign.
const RARE: [f32; 16] = [
    0.0,
    1e-41,
    1e-30,
    0.3,
    0.5,
    1.0,
    1.5,
    2.5,
    9.7,
    88.9,
    104.0,
    7001.3,
    3e7,
    1e30,
    f32::INFINITY,
    f32::NAN,
];

#[test]
fn order_of_special_values_is_burns() {
    let values: Vec<f32> = RARE.into_iter().flat_map(|x| [x, -x]).take(20).collect();
    for descending in [false, true] {
        let (found, expected) = both(Reduction::ArgSort { axis: 0, descending }, &[&values]);
        assert_eq!(found, expected);
    }
}

#[test]
fn special_values_of_two_numbers_are_treated_as_burn_does() {
    let rare: Vec<f32> = RARE.into_iter().flat_map(|x| [x, -x]).collect();
    let pairs = rare.iter().flat_map(|&x| rare.iter().map(move |&y| (x, y)));
    let (first, second): (Vec<f32>, Vec<f32>) = pairs.unzip();
    for binary in [Binary::Power, Binary::Atan2, Binary::Hypot, Binary::Remainder] {
        let (found, expected) = both(binary, &[&first, &second]);
        let pairs = first.iter().zip(&second);
        for (((x, y), &found), &expected) in pairs.zip(&found).zip(&expected) {
            // Devices may take the smallest floats for zeros.
            let tiny = |x: f32| x != 0.0 && x.abs() < f32::MIN_POSITIVE;
            if tiny(*x) || tiny(*y) || tiny(expected) {
                continue;
            }
            let same = found == expected || (found.is_nan() && expected.is_nan());
            let near = (found - expected).abs() <= 1e-5 * expected.abs();
            assert!(same || near, "{binary} of {x} and {y} is {found}, Burn's {expected}");
        }
    }
}

#[test]
fn nan_is_no_number_and_infinities_are() {
    for comparison in [Comparison::LessEqual, Comparison::Equal] {
        let op = Elementwise::CompareScalar(comparison, f64::INFINITY);
        let (found, expected) = both(op, &[&RARE]);
        assert_eq!(found, expected);
    }
}

/// What the kernel and what Burn computes of tensors of one dimension.
fn both(op: impl Into<zerobubble::graph::Op>, of: &[&[f32]]) -> (Vec<f32>, Vec<f32>) {
    let (mut graph, count) = (Graph::default(), of[0].len());
    let inputs: Vec<_> =
        of.iter().map(|_| graph.push_input(Shape(vec![count]), DType::F32)).collect();
    let id = graph.push(op, &inputs).unwrap();
    let view = || View::dense(&[count]);
    let read = |&node| Operand { node, view: view(), element: Element::F32 };
    let kernel = kernel_of(&graph[id], inputs.iter().map(read).collect());
    let tensors = of.iter().map(|x| host(TensorData::new(x.to_vec(), [count])));
    let expected = elements(reference(&graph[id], tensors.collect()), graph[id].dtype);
    let words = |x: &&[f32]| x.iter().map(|x| x.to_bits()).collect();
    let buffers: Vec<Vec<u32>> = of.iter().map(words).collect();
    let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
    (decoded(&with_context(run).unwrap()[0], graph[id].dtype), expected)
}
