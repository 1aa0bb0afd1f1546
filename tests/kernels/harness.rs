//! Operands that lie anywhere in their buffers, and the comparison of a kernel with Burn.

use std::cell::RefCell;

use burn::tensor::{Bool, Int, Tensor, TensorData, f16};
use burn_dispatch::DispatchTensor;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use zerobubble::engine::wgpu::testing::{abilities, compute};
use zerobubble::engine::wgpu::{
    Abilities, Body, Context, Element, Gpu, Kernel, Operand, Tile, View, kernel_of, tiles,
};
use zerobubble::engine::{reference, tolerance};
use zerobubble::graph::{DType, Graph, Indexing, NodeId, Op, Shape};

#[path = "../common/numbers.rs"]
mod drawn;
use drawn::numbers;

thread_local! {
    /// Opening a device takes longer than most kernels.
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

pub fn with_context<T>(work: impl FnOnce(&Context) -> T) -> T {
    CONTEXT.with(|context| {
        let mut context = context.borrow_mut();
        let open = || {
            let gpu = Gpu::at(0).expect("these tests need a GPU or software Vulkan");
            Context::open(gpu, "gpu:0").expect("the device opens")
        };
        work(context.get_or_insert_with(open))
    })
}

/// A tensor that an op gets: sizes, and what its elements are.
#[derive(Debug, Clone)]
pub enum Of {
    /// Floats between two numbers.
    Floats(Vec<usize>, f32, f32),
    /// Integers below a number.
    Indices(Vec<usize>, usize),
    /// Integers from a number to a number.
    Integers(Vec<usize>, i64, i64),
    Bools(Vec<usize>),
}

impl Of {
    fn shape(&self) -> &[usize] {
        match self {
            Of::Floats(shape, ..) | Of::Integers(shape, ..) => shape,
            Of::Indices(shape, _) | Of::Bools(shape) => shape,
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Of::Floats(..) => DType::F32,
            Of::Indices(..) | Of::Integers(..) => DType::Int,
            Of::Bools(_) => DType::Bool,
        }
    }
}

/// How an operand lies in its buffer, so that the kernel has to follow strides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lie {
    Dense,
    /// The last two dimensions are swapped in memory.
    Swapped,
    /// Every row has a gap behind it, and there is an offset.
    Gaps,
}

pub const LIES: [Lie; 3] = [Lie::Dense, Lie::Swapped, Lie::Gaps];

pub fn view(shape: &[usize], lie: Lie) -> (View, usize) {
    let elements: usize = shape.iter().product();
    let rank = shape.len();
    match lie {
        Lie::Swapped if rank >= 2 => {
            let mut swapped = shape.to_vec();
            swapped.swap(rank - 2, rank - 1);
            let mut view = View::dense(&swapped);
            view.shape.swap(rank - 2, rank - 1);
            view.strides.swap(rank - 2, rank - 1);
            (view, elements)
        }
        Lie::Gaps if rank >= 1 => {
            let mut padded = shape.to_vec();
            padded[rank - 1] += 3;
            let mut view = View::dense(&padded);
            view.shape = shape.to_vec();
            view.offset = 5;
            (view, padded.iter().product::<usize>() + 8)
        }
        _ => (View::dense(shape), elements),
    }
}

/// The operand's buffer, what it is to Burn, and its view.
pub fn operand(of: &Of, lie: Lie, seed: u64) -> (Vec<u32>, DispatchTensor, View) {
    let shape = of.shape().to_vec();
    let count: usize = shape.iter().product();
    let (view, elements) = view(&shape, lie);
    let (words, tensor): (Vec<u32>, DispatchTensor) = match of {
        Of::Floats(_, low, high) => {
            let values = numbers(seed, count, *low, *high);
            let words = values.iter().map(|x| x.to_bits()).collect();
            (words, host(TensorData::new(values, shape)))
        }
        Of::Indices(_, below) => {
            let values: Vec<i64> = numbers(seed, count, 0.0, *below as f32)
                .into_iter()
                .map(|x| (x as i64).min(*below as i64 - 1))
                .collect();
            let words = values.iter().map(|&x| x as u32).collect();
            (words, host_int(TensorData::new(values, shape)))
        }
        Of::Integers(_, low, high) => {
            let values: Vec<i64> = numbers(seed, count, *low as f32, *high as f32 + 1.0)
                .into_iter()
                .map(|x| (x.floor() as i64).min(*high))
                .collect();
            let words = values.iter().map(|&x| x as u32).collect();
            (words, host_int(TensorData::new(values, shape)))
        }
        Of::Bools(_) => {
            let values: Vec<bool> =
                numbers(seed, count, 0.0, 1.0).into_iter().map(|x| x < 0.5).collect();
            let words = values.iter().map(|&x| u32::from(x)).collect();
            (words, host_bool(TensorData::new(values, shape)))
        }
    };
    let mut buffer = vec![0x7fc0_0000; elements];
    for (at, word) in words.into_iter().enumerate() {
        buffer[position(&view, at)] = word;
    }
    (buffer, tensor, view)
}

/// Where the element with a row-major index is.
pub fn position(view: &View, mut at: usize) -> usize {
    let mut position = view.offset;
    for (&size, &stride) in view.shape.iter().zip(&view.strides).rev() {
        position += at % size * stride;
        at /= size;
    }
    position
}

pub fn host(data: TensorData) -> DispatchTensor {
    reshaped::<3>(data)
}

/// A tensor of any rank: Burn's rank is a type, and what a dispatch tensor holds has none.
fn reshaped<const N: usize>(data: TensorData) -> DispatchTensor {
    let device = burn::tensor::Device::flex();
    match data.shape().len() {
        1 => Tensor::<1>::from_data(data, &device).into_dispatch(),
        2 => Tensor::<2>::from_data(data, &device).into_dispatch(),
        3 => Tensor::<3>::from_data(data, &device).into_dispatch(),
        _ => Tensor::<4>::from_data(data, &device).into_dispatch(),
    }
}

fn host_int(data: TensorData) -> DispatchTensor {
    let device = burn::tensor::Device::flex();
    match data.shape().len() {
        1 => Tensor::<1, Int>::from_data(data, &device).into_dispatch(),
        2 => Tensor::<2, Int>::from_data(data, &device).into_dispatch(),
        3 => Tensor::<3, Int>::from_data(data, &device).into_dispatch(),
        _ => Tensor::<4, Int>::from_data(data, &device).into_dispatch(),
    }
}

fn host_bool(data: TensorData) -> DispatchTensor {
    let device = burn::tensor::Device::flex();
    match data.shape().len() {
        1 => Tensor::<1, Bool>::from_data(data, &device).into_dispatch(),
        2 => Tensor::<2, Bool>::from_data(data, &device).into_dispatch(),
        3 => Tensor::<3, Bool>::from_data(data, &device).into_dispatch(),
        _ => Tensor::<4, Bool>::from_data(data, &device).into_dispatch(),
    }
}

/// Elements of a result of Burn, as floats; integers and truth values are exact in them here.
pub fn elements(tensor: DispatchTensor, dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F32 => Tensor::<1>::from_dispatch(tensor).into_data().iter::<f32>().collect(),
        DType::Int => {
            let data = Tensor::<1, Int>::from_dispatch(tensor).into_data();
            data.iter::<i64>().map(|x| x as f32).collect()
        }
        DType::Bool => {
            let data = Tensor::<1, Bool>::from_dispatch(tensor).into_data();
            data.iter::<bool>().map(|x| f32::from(u8::from(x))).collect()
        }
    }
}

pub fn decoded(words: &[u32], dtype: DType) -> Vec<f32> {
    let decode = |&word: &u32| match dtype {
        DType::F32 => f32::from_bits(word),
        DType::Int => word as i32 as f32,
        DType::Bool => word as f32,
    };
    words.iter().map(decode).collect()
}

/// Compares the op's kernel with Burn, within the op's tolerance, for every way in which the
/// operands can lie, and for one of them with itself on halves.
pub fn check(op: impl Into<Op>, of: &[Of], seed: u64) {
    let op = op.into();
    for lie in LIES {
        let mut graph = Graph::default();
        let inputs: Vec<NodeId> =
            of.iter().map(|x| graph.push_input(Shape(x.shape().to_vec()), x.dtype())).collect();
        let id = graph.push(op.clone(), &inputs).expect("the shapes fit");
        let operands: Vec<_> =
            (0..).zip(of).map(|(n, of)| operand(of, lie, seed.wrapping_add(n))).collect();
        let reads = operands.iter().zip(of).zip(&inputs).map(|(((_, _, view), of), &node)| {
            Operand { node, view: view.clone(), element: of.dtype().into() }
        });
        let kernel = kernel_of(&graph[id], reads.collect());
        let buffers: Vec<Vec<u32>> = operands.iter().map(|(buffer, ..)| buffer.clone()).collect();
        let tensors: Vec<_> = operands.into_iter().map(|(_, tensor, _)| tensor).collect();
        let expected = reference(&graph[id], tensors.clone());
        let widths = tolerance(&graph[id], &tensors, &expected);
        let widths = widths.map(|widths| elements(widths, DType::F32));
        let expected = elements(expected, graph[id].dtype);
        let what = format!("{op} of {of:?}, {lie:?}");
        for tile in tiles_of(&kernel) {
            let found = decoded(&result(&kernel, tile, &buffers), graph[id].dtype);
            let what =
                format!("{what}, {}", tile.map_or_else(String::new, |tile| tile.to_string()));
            close(&found, &expected, widths.as_deref(), &what);
        }
        // Shapes are many, and so are seeds.
        if with_context(Context::has_halves) && lie == LIES[seed as usize % LIES.len()] {
            check_halves(&kernel, &buffers, &what);
        }
    }
}

/// Compares a kernel with the same one on halves. It widens what it reads, computes the same in the
/// same order, and rounds what it writes: that is exact.
fn check_halves(kernel: &Kernel, buffers: &[Vec<u32>], what: &str) {
    let mut on_halves = kernel.clone();
    let mut buffers: Vec<Vec<u32>> = buffers.to_vec();
    let mut halves = buffers.clone();
    for (n, read) in on_halves.reads.iter_mut().enumerate() {
        if read.element == Element::F32 {
            read.element = Element::F16;
            halves[n] = narrowed(&buffers[n]);
            buffers[n] = widened(&halves[n], buffers[n].len());
        }
    }
    // These add to what they wrote.
    let grows = matches!(
        kernel.body,
        Body::Indexing(Indexing::ScatterAdd { .. } | Indexing::EmbeddingGradient { .. })
    );
    let rounds = kernel.writes[0].element == Element::F32 && !grows;
    if rounds {
        on_halves.writes[0].element = Element::F16;
    }
    for tile in some_tiles_of(kernel) {
        let mut expected = result(kernel, tile, &buffers);
        let mut found = result(&on_halves, tile, &halves);
        if rounds {
            let count = expected.len();
            expected = widened(&narrowed(&expected), count);
            found = widened(&found, count);
        }
        let is_nan = |word: &u32| rounds && f32::from_bits(*word).is_nan();
        for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
            let same = x == y || (is_nan(x) && is_nan(y));
            assert!(same, "{what}, {tile:?}: element {at} on halves is {x:#x}, not {y:#x}");
        }
        assert_eq!(found.len(), expected.len(), "{what}");
    }
}

/// Floats, rounded to halves, two in a word.
fn narrowed(words: &[u32]) -> Vec<u32> {
    let half = |word: &u32| u32::from(f16::from_f32(f32::from_bits(*word)).to_bits());
    let word = |pair: &[u32]| half(&pair[0]) | pair.get(1).map_or(0, half) << 16;
    words.chunks(2).map(word).collect()
}

/// The first `count` of some halves as floats.
fn widened(words: &[u32], count: usize) -> Vec<u32> {
    let halves = words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]);
    halves.take(count).map(|half| f16::from_bits(half).to_f32().to_bits()).collect()
}

/// Tiles with which a kernel is tried: none if it is no product.
fn tiles_of(kernel: &Kernel) -> Vec<Option<Tile>> {
    if !matches!(kernel.body, Body::Matmul(_)) {
        return vec![None];
    }
    let mut all = tiles_for(kernel, false, false);
    // Large tiles for CPUs are compiled for seconds: the smaller ones have the same code.
    all.extend(tiles_for(kernel, true, false).into_iter().take(2));
    all.extend(tiles_for(kernel, true, true).into_iter().take(1));
    all.into_iter().map(Some).collect()
}

/// A tile for every way in which factors are loaded.
fn some_tiles_of(kernel: &Kernel) -> Vec<Option<Tile>> {
    if !matches!(kernel.body, Body::Matmul(_)) {
        return vec![None];
    }
    let kinds = [(false, false), (true, false), (true, true)];
    let first = |(cpu, wide)| tiles_for(kernel, cpu, wide).into_iter().next();
    kinds.into_iter().filter_map(first).map(Some).collect()
}

/// Tiles for an adapter; none that are `wide` where the one at hand may have no 64-bit integers.
fn tiles_for(kernel: &Kernel, cpu: bool, wide: bool) -> Vec<Tile> {
    if wide && !with_context(abilities).wide {
        return Vec::new();
    }
    let uniform_bytes = if wide { 1 << 14 } else { 0 };
    tiles(kernel, &Abilities { cpu, subgroup: None, wide, uniform_bytes })
}

/// What a kernel computes.
fn result(kernel: &Kernel, tile: Option<Tile>, buffers: &[Vec<u32>]) -> Vec<u32> {
    let run = |context: &Context| compute(context, kernel, tile.as_ref(), buffers, [0; 8]);
    with_context(run).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// Every element is Burn's, or no further from it than its width.
pub fn close(found: &[f32], expected: &[f32], widths: Option<&[f32]>, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan());
        let near = widths.is_some_and(|widths| (x - y).abs() <= widths[at]);
        assert!(same || near, "{what}: element {at} is {x}, Burn's {y}, within {widths:?}");
    }
}

/// Runs `check` on a few drawn shapes of up to three dimensions.
pub fn shapes(cases: u32, check: impl Fn(&[usize], u64)) {
    let sizes = prop::collection::vec(prop_oneof![Just(1usize), 2..9usize, 30..40usize], 1..4);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(sizes, any::<u64>()), |(shape, seed)| {
            check(&shape, seed);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

pub fn floats(shape: &[usize]) -> Of {
    Of::Floats(shape.to_vec(), -3.0, 3.0)
}

pub fn positive(shape: &[usize]) -> Of {
    Of::Floats(shape.to_vec(), 0.1, 4.0)
}
