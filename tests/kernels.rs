//! Promise: every WGSL kernel computes what Burn computes on Flex, whatever the shapes and strides.

#[path = "kernels/functions.rs"]
mod functions;
#[path = "kernels/harness.rs"]
mod harness;
#[path = "kernels/window.rs"]
mod window;

use burn::tensor::TensorData;
use harness::{Of, check, decoded, elements, floats, host, positive, shapes, with_context};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use zerobubble::engine::reference;
use zerobubble::engine::wgpu::testing::compute;
use zerobubble::engine::wgpu::{Context, Element, Operand, Target, View, kernel_of};
use zerobubble::graph::{
    Activation, Binary, Comparison, DType, Elementwise, Graph, Indexing, Join, Logical, Movement,
    Op, Reduction, RowWise, Scalar, Shape, Unary,
};

#[test]
fn functions_of_one_tensor_are_burns() {
    let functions = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Floor,
        Unary::Activation(Activation::Relu),
        Unary::Exp,
        Unary::Sin,
        Unary::Cos,
        Unary::Erf,
        Unary::Activation(Activation::Tanh),
    ];
    shapes(6, |shape, seed| {
        for unary in functions {
            check(unary, &[floats(shape)], seed);
        }
        for activation in [Activation::Sigmoid, Activation::Gelu] {
            check(Unary::from(activation), &[floats(shape)], seed);
        }
        for unary in [Unary::Log, Unary::Sqrt, Unary::Reciprocal] {
            check(unary, &[positive(shape)], seed);
        }
        check(Elementwise::Not, &[Of::Bools(shape.to_vec())], seed);
        use Activation::{Gelu, Relu, Sigmoid, Tanh};
        for activation in [Relu, Sigmoid, Tanh, Gelu] {
            let pair = [floats(shape), floats(shape)];
            check(Elementwise::ActivationGradient(activation), &pair, seed);
        }
    });
}

#[test]
fn functions_of_a_tensor_and_a_number_are_burns() {
    shapes(6, |shape, seed| {
        for (scalar, value) in
            [(Scalar::Add, 0.7), (Scalar::Multiply, -1.3), (Scalar::AtLeast, 0.5)]
        {
            check(Elementwise::Scalar(scalar, value), &[floats(shape)], seed);
        }
        check(Elementwise::Scalar(Scalar::AtMost, 0.5), &[floats(shape)], seed);
        for power in [2.0, 3.0, 0.5, -1.0, 0.0] {
            check(Elementwise::Scalar(Scalar::Power, power), &[positive(shape)], seed);
        }
        check(Elementwise::Scalar(Scalar::Power, 1.7), &[positive(shape)], seed);
        for comparison in [Comparison::Greater, Comparison::LessEqual, Comparison::NotEqual] {
            check(Elementwise::CompareScalar(comparison, 0.0), &[floats(shape)], seed);
        }
        check(Elementwise::Cast(DType::Int), &[floats(shape)], seed);
        check(Elementwise::Cast(DType::F32), &[Of::Bools(shape.to_vec())], seed);
        check(Elementwise::Cast(DType::F32), &[Of::Indices(shape.to_vec(), 50)], seed);
        check(Elementwise::Scalar(Scalar::Add, -7.0), &[Of::Indices(shape.to_vec(), 50)], seed);
        let dropout = Elementwise::Dropout { draw: 3, probability: 0.3 };
        check(dropout, &[floats(shape)], seed);
    });
}

#[test]
fn functions_of_two_tensors_are_burns_whatever_is_repeated() {
    shapes(8, |shape, seed| {
        let mut repeated = shape.to_vec();
        repeated[seed as usize % shape.len()] = 1;
        let pair = [floats(shape), floats(&repeated)];
        for binary in [Binary::Add, Binary::Subtract, Binary::Multiply] {
            check(binary, &pair, seed);
        }
        let quotient = [floats(shape), positive(&repeated)];
        check(Binary::Divide, &quotient, seed);
        check(Elementwise::Compare(Comparison::Less), &pair, seed);
        let bools = [Of::Bools(shape.to_vec()), Of::Bools(repeated.clone())];
        check(Logical::And, &bools, seed);
        check(Logical::Or, &bools, seed);
        let chosen = [Of::Bools(repeated.clone()), floats(shape), floats(&repeated)];
        check(Elementwise::Where, &chosen, seed);
        let filled = [Of::Bools(repeated.clone()), floats(shape)];
        check(Elementwise::Fill(f64::NEG_INFINITY), &filled, seed);
        check(Elementwise::Fill(1.5), &filled, seed);
    });
}

/// WGSL's own functions, in which devices may take the smallest floats for zeros.
const OWN: [Unary; 3] = [Unary::Sqrt, Unary::Floor, Unary::Ceil];

#[test]
fn special_values_are_treated_as_burn_does() {
    let infinity = f32::INFINITY;
    let values: Vec<f32> = [0.0, -0.0, 1e-41, 1e-30, 0.3, 1.0, 9.7, 87.0, 104.0, 7001.3, 3e7, 1e30]
        .into_iter()
        .flat_map(|x| [x, -x])
        .chain([infinity, -infinity, f32::NAN])
        .collect();
    let words: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
    let check = |op: Op| {
        let mut graph = Graph::default();
        let x = graph.push_input(Shape(vec![values.len()]), DType::F32);
        let id = graph.push(op.clone(), &[x]).unwrap();
        let view = View::dense(&[values.len()]);
        let kernel = kernel_of(&graph[id], vec![Operand { node: x, view, element: Element::F32 }]);
        let tensor = host(TensorData::new(values.clone(), [values.len()]));
        let expected = elements(reference(&graph[id], vec![tensor]), graph[id].dtype);
        let buffers = [words.clone()];
        let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
        let found = decoded(&with_context(run).unwrap()[0], graph[id].dtype);
        for ((&of, &found), &expected) in values.iter().zip(&found).zip(&expected) {
            let same = found == expected || (found.is_nan() && expected.is_nan());
            let near = (found - expected).abs() <= 1e-5 * expected.abs() + 1e-38;
            let zero = OWN.map(Op::from).contains(&op) && of.is_subnormal() && found == 0.0;
            assert!(same || near || zero, "{op} of {of} is {found}, Burn's {expected}");
        }
    };
    for unary in [
        Unary::Exp,
        Unary::Log,
        Unary::Activation(Activation::Tanh),
        Unary::Sqrt,
        Unary::Reciprocal,
    ] {
        check(unary.into());
    }
    for unary in [
        Unary::Sin,
        Unary::Cos,
        Unary::Neg,
        Unary::Abs,
        Unary::Floor,
        Unary::Activation(Activation::Relu),
        Unary::Activation(Activation::Sigmoid),
    ] {
        check(unary.into());
    }
    for unary in [
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Acosh,
        Unary::Atanh,
        Unary::Log1p,
    ] {
        check(unary.into());
    }
    for unary in [Unary::Ceil, Unary::Round, Unary::Trunc, Unary::RoundF16, Unary::RoundBf16] {
        check(unary.into());
    }
    for comparison in [Comparison::Equal, Comparison::NotEqual, Comparison::Less] {
        check(Elementwise::CompareScalar(comparison, 1.0).into());
    }
    check(Elementwise::Scalar(Scalar::AtLeast, 0.5).into());
    check(Elementwise::Scalar(Scalar::Add, f64::INFINITY).into());
}

#[test]
fn powers_of_integers_are_exact() {
    let (mut graph, values) = (Graph::default(), [0i64, 1, -1, 2, -3, 7]);
    for exponent in [0.0, 1.0, 2.0, 5.0, 9.0] {
        let x = graph.push_input(Shape(vec![values.len()]), DType::Int);
        let id = graph.push(Elementwise::Scalar(Scalar::Power, exponent), &[x]).unwrap();
        let view = View::dense(&[values.len()]);
        let kernel = kernel_of(&graph[id], vec![Operand { node: x, view, element: Element::Int }]);
        let buffers = [values.iter().map(|&x| x as u32).collect::<Vec<u32>>()];
        let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
        let found = with_context(run).unwrap();
        let expected = values.map(|x| x.pow(exponent as u32) as u32);
        assert_eq!(found[0], expected, "to the power of {exponent}");
    }
}

#[test]
fn moves_and_joins_are_burns() {
    shapes(8, |shape, seed| {
        let (rank, axis) = (shape.len(), seed as usize % shape.len());
        for of in [floats(shape), Of::Indices(shape.to_vec(), 9), Of::Bools(shape.to_vec())] {
            let of = [of];
            check(Movement::Permute((0..rank).rev().collect()), &of, seed);
            check(Movement::Reshape(Shape(vec![shape.iter().product()])), &of, seed);
            check(Movement::Slice { axis, start: 0, end: shape[axis].div_ceil(2) }, &of, seed);
        }
        check(Join::Pad { axis, before: 2, after: 1 }, &[floats(shape)], seed);
        let mut other = shape.to_vec();
        other[axis] = 3;
        let parts = [floats(shape), floats(&other), floats(shape)];
        check(Join::Concatenate(axis), &parts, seed);
    });
}

#[test]
fn sums_and_extremes_are_burns() {
    shapes(8, |shape, seed| {
        let axis = seed as usize % shape.len();
        check(Reduction::Sum(vec![axis]), &[floats(shape)], seed);
        check(Reduction::Sum((0..shape.len()).collect()), &[floats(shape)], seed);
        for reverse in [false, true] {
            let sums = Reduction::CumulativeSum { axis, reverse };
            check(sums, &[floats(shape)], seed);
        }
        check(Reduction::ArgMax(axis), &[floats(shape)], seed);
        check(Reduction::ArgMin(axis), &[floats(shape)], seed);
    });
    check(Reduction::Sum(vec![0]), &[floats(&[3000, 3])], 1);
}

#[test]
fn softmax_and_layer_norm_are_burns() {
    shapes(8, |shape, seed| {
        let (x, width) = (floats(shape), shape[shape.len() - 1]);
        let row = |low| Of::Floats(vec![width], low, 2.0);
        check(RowWise::Softmax, std::slice::from_ref(&x), seed);
        check(RowWise::LogSoftmax, std::slice::from_ref(&x), seed);
        let of_output = [Of::Floats(shape.to_vec(), 0.0, 0.3), x.clone()];
        check(RowWise::SoftmaxGradient, &of_output, seed);
        let of_output = [Of::Floats(shape.to_vec(), -5.0, 0.0), x.clone()];
        check(RowWise::LogSoftmaxGradient, &of_output, seed);
        // A row of one element has no deviation: its gradient is divided by root epsilon.
        let epsilon = 1e-2;
        let parts = [x.clone(), row(0.5), row(-2.0)];
        check(RowWise::LayerNorm(epsilon), &parts, seed);
        check(RowWise::LayerNorm(epsilon), &parts[..2], seed);
        let parts = [x.clone(), row(0.5), x.clone()];
        check(RowWise::LayerNormGradient(epsilon), &parts, seed);
        check(RowWise::LayerNormGradientGamma(epsilon), &[x.clone(), x], seed);
    });
}

#[test]
fn rows_of_more_than_a_uniform_buffer_are_burns() {
    for (seed, shape) in [(1, [300, 64]), (2, [300, 68]), (3, [70, 301])] {
        let (x, row) = (floats(&shape), Of::Floats(vec![shape[1]], 0.5, 2.0));
        check(RowWise::Softmax, std::slice::from_ref(&x), seed);
        let of_output = [Of::Floats(shape.to_vec(), 0.0, 0.3), x.clone()];
        check(RowWise::SoftmaxGradient, &of_output, seed);
        check(RowWise::LayerNorm(1e-5), &[x.clone(), row.clone()], seed);
        let parts = [x.clone(), row, x.clone()];
        check(RowWise::LayerNormGradient(1e-5), &parts, seed);
        check(RowWise::LayerNormGradientGamma(1e-5), &[x.clone(), x.clone()], seed);
        check(Reduction::Sum(vec![0]), std::slice::from_ref(&x), seed);
        check(Unary::Activation(Activation::Gelu), &[x], seed);
    }
}

#[test]
fn kernels_that_take_indices_are_burns() {
    shapes(8, |shape, seed| {
        let (axis, rows) = (seed as usize % shape.len(), 7);
        let mut table = shape.to_vec();
        table[axis] = rows;
        let indices = Of::Indices(shape.to_vec(), rows);
        check(Indexing::Gather(axis), &[floats(&table), indices.clone()], seed);
        let scatter = Indexing::ScatterAdd { axis, size: rows };
        check(scatter, &[indices.clone(), floats(shape)], seed);
        check(Indexing::Embedding, &[floats(&[rows, 33]), indices.clone()], seed);
        let mut wide = shape.to_vec();
        wide.push(33);
        if wide.len() <= 4 {
            let pair = [indices, floats(&wide)];
            check(Indexing::EmbeddingGradient { rows }, &pair, seed);
        }
    });
}

#[test]
fn an_index_out_of_range_is_an_error() {
    let mut graph = Graph::default();
    let table = graph.push_input(Shape(vec![4, 3]), DType::F32);
    let index = graph.push_input(Shape(vec![2]), DType::Int);
    let id = graph.push(Indexing::Embedding, &[table, index]).unwrap();
    let read = |node, shape: &[usize], element| Operand { node, view: View::dense(shape), element };
    let reads = vec![read(table, &[4, 3], Element::F32), read(index, &[2], Element::Int)];
    let kernel = kernel_of(&graph[id], reads);
    for (index, expected) in [(4, "index 4 is out of range"), (-1i32, "an index is negative")] {
        let buffers = [vec![0; 12], vec![1, index as u32]];
        let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
        let error = with_context(run).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn products_are_burns_with_every_tile() {
    let sizes = prop_oneof![Just(1usize), 2..9usize, 30..70usize];
    let config = ProptestConfig { cases: 4, failure_persistence: None, ..Default::default() };
    TestRunner::new(config)
        .run(&(1..4usize, sizes.clone(), sizes.clone(), sizes, any::<u64>()), |(b, m, k, n, s)| {
            let pair = [floats(&[b, m, k]), floats(&[b, k, n])];
            check(Op::Matmul, &pair, s);
            check(Op::Matmul, &[floats(&[b, m, k]), floats(&[1, k, n])], s);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn results_that_are_added_to_keep_what_was_there() {
    let mut graph = Graph::default();
    let x = graph.push_input(Shape(vec![5, 6]), DType::F32);
    let id = graph.push(Reduction::Sum(vec![0]), &[x]).unwrap();
    let view = View::dense(&[5, 6]);
    let mut kernel = kernel_of(&graph[id], vec![Operand { node: x, view, element: Element::F32 }]);
    kernel.writes[0].target = Target::Sum(0);
    let buffers = [vec![2f32.to_bits(); 30]];
    let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
    let found = with_context(run).unwrap();
    assert_eq!(decoded(&found[0], DType::F32), [11.0; 6]);
}

#[test]
fn a_grid_of_more_workgroups_than_one_dimension_has_reaches_every_element() {
    let elements = 65_535 * 64 + 100;
    let op = Elementwise::Scalar(Scalar::Add, 1.0);
    let mut graph = Graph::default();
    let x = graph.push_input(Shape(vec![elements]), DType::F32);
    let id = graph.push(op, &[x]).unwrap();
    let view = View::dense(&[elements]);
    let kernel = kernel_of(&graph[id], vec![Operand { node: x, view, element: Element::F32 }]);
    let buffers = [vec![1f32.to_bits(); elements]];
    let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
    let found = with_context(run).unwrap();
    assert!(found[0].iter().all(|&word| word == 2f32.to_bits()));
}
