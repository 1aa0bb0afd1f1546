//! Convolutions, pools and their gradients, on shapes that do not divide evenly.

use burn::tensor::TensorData;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use zerobubble::engine::reference;
use zerobubble::engine::wgpu::testing::compute;
use zerobubble::engine::wgpu::{Context, Element, Operand, View, kernel_of};
use zerobubble::graph::{Convolution, DType, Graph, Pool, Shape, Windowed};

use super::harness::{Of, check, close, decoded, elements, floats, host, with_context};

fn pairs(sizes: std::ops::Range<usize>) -> impl Strategy<Value = [usize; 2]> {
    prop::array::uniform2(sizes)
}

/// Runs `check` on drawn values.
fn run<S: Strategy>(cases: u32, strategy: S, check: impl Fn(S::Value)) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let run = |value| {
        check(value);
        Ok(())
    };
    TestRunner::new(config).run(&strategy, run).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn convolutions_and_their_gradients_are_burns() {
    let channels = (1..3usize, 1..4usize, 1..4usize, 1..4usize);
    let windows = (pairs(1..4), pairs(1..4), prop::array::uniform2((0..3usize, 0..3usize)));
    let strategy = (channels, windows, pairs(1..3), pairs(1..10), any::<u64>());
    run(8, strategy, |(channels, (kernel, stride, padding), dilation, size, seed)| {
        let (n, groups, into, out) = channels;
        let convolution = Convolution { stride, padding, dilation, groups };
        let Some(windows) = convolution.windows(size, kernel) else { return };
        let images = [n, groups * into, size[0], size[1]];
        let weight = [groups * out, into, kernel[0], kernel[1]];
        let gradient = floats(&[n, groups * out, windows[0], windows[1]]);
        let forward = [floats(&images), floats(&weight)];
        check(Windowed::Conv2d(convolution), &forward, seed);
        let of_weight = [floats(&weight), gradient.clone()];
        let op = Windowed::Conv2dInputGradient { convolution, size };
        check(op, &of_weight, seed);
        let op = Windowed::Conv2dWeightGradient { convolution, kernel };
        check(op, &[floats(&images), gradient], seed);
    });
}

/// Nearly as many rounds as software Vulkan lets all loops of a thread make together.
#[test]
fn long_sums_of_a_weights_gradient_are_complete() {
    let convolution =
        Convolution { stride: [1, 1], padding: [(0, 0); 2], dilation: [1, 1], groups: 1 };
    let op = Windowed::Conv2dWeightGradient { convolution, kernel: [1, 1] };
    for shape in [[1, 1, 250, 250], [10_900, 1, 1, 1]] {
        check(op, &[floats(&shape), floats(&shape)], 1);
    }
}

/// Images, and a pool of which every window has an element.
fn pools(dilations: std::ops::Range<usize>) -> impl Strategy<Value = ([usize; 4], Pool, u64)> {
    let attributes = (pairs(1..4), pairs(1..4), pairs(0..2), pairs(dilations), any::<bool>());
    let images = (1..3usize, 1..4usize, pairs(2..10));
    (images, attributes, any::<u64>()).prop_filter_map(
        "no window fits",
        |((n, c, size), (kernel, stride, padding, dilation, ceil), seed)| {
            let padding = [0, 1].map(|axis| padding[axis].min(kernel[axis] / 2));
            let pool = Pool { kernel, stride, padding, dilation, ceil };
            pool.windows(size).map(|_| ([n, c, size[0], size[1]], pool, seed))
        },
    )
}

fn gradient([n, c, h, w]: [usize; 4], pool: &Pool) -> Of {
    let [rows, columns] = pool.windows([h, w]).expect("a window fits");
    floats(&[n, c, rows, columns])
}

#[test]
fn max_pools_and_their_gradients_are_burns() {
    run(8, pools(1..3), |(images, pool, seed)| {
        check(Windowed::MaxPool2d(pool), &[floats(&images)], seed);
        let parts = [floats(&images), gradient(images, &pool)];
        // The same windows in the same order: the same sums.
        check(Windowed::MaxPool2dGradient(pool), &parts, seed);
        // The first of elements that are all the same.
        let ties = [Of::Floats(images.to_vec(), 0.5, 0.5), gradient(images, &pool)];
        check(Windowed::MaxPool2dGradient(pool), &ties, seed);
    });
}

/// NaN is larger than everything, the last one above all; a window of minus infinities has a first.
#[test]
fn max_pools_of_special_values_are_burns() {
    let (n, i) = (f32::NAN, f32::INFINITY);
    let images = [
        [n, 1.0, -i, -i, 2.0, n],
        [3.0, n, -i, -i, i, 1.0],
        [-i, 0.0, -0.0, 0.0, 7.0, 7.0],
        [0.0, -i, 0.0, -0.0, i, i],
    ];
    let pool = |stride| {
        let (kernel, padding, dilation) = ([2, 2], [0, 1], [1, 1]);
        Pool { kernel, stride, padding, dilation, ceil: false }
    };
    for pool in [pool([2, 2]), pool([1, 1])] {
        let mut graph = Graph::default();
        let x = graph.push_input(Shape(vec![1, 1, 4, 6]), DType::F32);
        let y = graph.push(Windowed::MaxPool2d(pool), &[x]).unwrap();
        let shape = graph[y].shape.0.clone();
        let g = graph.push_input(graph[y].shape.clone(), DType::F32);
        let gradient = graph.push(Windowed::MaxPool2dGradient(pool), &[x, g]).unwrap();
        let gradients: Vec<f32> = (1..).map(|at| at as f32).take(shape.iter().product()).collect();
        let values = [(vec![1, 1, 4, 6], images.concat()), (shape, gradients)];
        for (node, count) in [(y, 1), (gradient, 2)] {
            let operands = values[..count]
                .iter()
                .map(|(shape, values)| host(TensorData::new(values.clone(), shape.clone())));
            let expected = elements(reference(&graph[node], operands.collect()), DType::F32);
            let reads = values[..count].iter().zip([x, g]).map(|((shape, _), node)| Operand {
                node,
                view: View::dense(shape),
                element: Element::F32,
            });
            let kernel = kernel_of(&graph[node], reads.collect());
            let words = |(_, values): &(_, Vec<f32>)| values.iter().map(|x| x.to_bits()).collect();
            let buffers: Vec<Vec<u32>> = values[..count].iter().map(words).collect();
            let run = |context: &Context| compute(context, &kernel, None, &buffers, [0; 8]);
            let found = decoded(&with_context(run).unwrap()[0], DType::F32);
            close(&found, &expected, None, &graph[node].to_string());
        }
    }
}

#[test]
fn average_pools_and_their_gradients_are_burns() {
    run(8, (pools(1..2), any::<bool>()), |((images, pool, seed), count_padding)| {
        check(Windowed::AvgPool2d { pool, count_padding }, &[floats(&images)], seed);
        let size = [images[2], images[3]];
        let op = Windowed::AvgPool2dGradient { pool, count_padding, size };
        check(op, &[gradient(images, &pool)], seed);
    });
}
