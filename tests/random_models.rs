//! Promise: whatever a model is put together from, it trains as Burn trains it, with the same bits
//! on every schedule and number of devices.
//!
//! Where nothing is said, every run draws the same models. With `ZEROBUBBLE_RANDOM_MODELS=1000` it
//! draws a thousand that nobody has seen; a failure names the seed of its model, and what has ever
//! failed stays as a row of [`FOUND`]. Some train under a shadow; with `ZEROBUBBLE_SHADOW=1` all
//! do, half of them on a GPU.

#[path = "common/families.rs"]
mod families;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, PaddingConfig1d,
};
use burn::tensor::{Device, Tensor, TensorData, activation};
use families::families;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use zerobubble::plan::{Family, ONE_F_ONE_B};
use zerobubble::{Sgd, Trainer, gradients};

/// Seeds of models that once failed.
const FOUND: [u64; 11] = [
    1795974133864642784,
    1795964929293905135,
    1795964891171162576,
    1795963194428757161,
    1795962530980476621,
    1795961218280016879,
    1795961218280016882,
    1795961218280016903,
    1795961218280016922,
    1795961218280016924,
    1795962369659915789,
];
/// How many more a run draws where nothing else is said.
const COUNT: u64 = 120;
/// Of how many models one trains under a shadow.
const SHADOWS: u64 = 16;
const ROWS: usize = 2;
const TOKENS: usize = 4;
const WIDTH: usize = 8;
const MICROBATCHES: u32 = 3;

/// The layers that a model may use.
#[derive(Module, Debug)]
struct Layers {
    linears: Vec<Linear>,
    norms: Vec<LayerNorm>,
    batch_norms: Vec<BatchNorm>,
    convolutions: Vec<Conv1d>,
    attentions: Vec<MultiHeadAttention>,
    dropouts: Vec<Dropout>,
}

/// What a value `[rows, TOKENS, WIDTH]` is made of: earlier values, by position.
#[derive(Debug, Clone, Copy)]
enum Node {
    Linear(usize, usize),
    Norm(usize, usize),
    BatchNorm(usize, usize),
    Convolution(usize, usize),
    Attention(usize, usize),
    Dropout(usize, usize),
    Function(usize, u8),
    Add(usize, usize),
    Multiply(usize, usize),
    /// The mean over tokens, or over the width, for every one of them.
    Mean(usize, usize),
    /// The largest over tokens, for every one of them.
    Largest(usize),
    /// Tokens in another order, by slices.
    Rotate(usize, usize),
    /// The first half of one and the second half of another.
    Join(usize, usize),
}

/// The model of a seed, layers and weights.
fn model(seed: u64) -> (Layers, Vec<Node>) {
    let random = &mut StdRng::seed_from_u64(seed);
    let device = Device::flex();
    device.seed(seed);
    let mut layers = Layers {
        linears: Vec::new(),
        norms: Vec::new(),
        batch_norms: Vec::new(),
        convolutions: Vec::new(),
        attentions: Vec::new(),
        dropouts: Vec::new(),
    };
    layers.linears.push(LinearConfig::new(WIDTH, WIDTH).init(&device));
    // The batch is value 0, and value 1 is made with the first parameters.
    let mut nodes = vec![Node::Linear(0, 0)];
    for _ in 0..random.random_range(1..40) {
        let values = nodes.len() + 1;
        // Mostly the last one, so that models are deep.
        let mut value = || match random.random_range(0..3) {
            0 => random.random_range(1..values),
            _ => values - 1,
        };
        let (x, y) = (value(), value());
        let kinds = [0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12];
        nodes.push(match *kinds.choose(random).expect("there are kinds") {
            0 => {
                // Now and then a layer that is there already.
                if random.random_range(0..4) > 0 {
                    layers.linears.push(LinearConfig::new(WIDTH, WIDTH).init(&device));
                }
                Node::Linear(x, layers.linears.len() - 1)
            }
            1 => {
                layers.norms.push(LayerNormConfig::new(WIDTH).init(&device));
                Node::Norm(x, layers.norms.len() - 1)
            }
            2 => {
                layers.batch_norms.push(BatchNormConfig::new(WIDTH).init(&device));
                Node::BatchNorm(x, layers.batch_norms.len() - 1)
            }
            3 => {
                let config = Conv1dConfig::new(WIDTH, WIDTH, 3);
                let config = config.with_padding(PaddingConfig1d::Explicit(1, 1));
                layers.convolutions.push(config.init(&device));
                Node::Convolution(x, layers.convolutions.len() - 1)
            }
            4 => {
                layers.attentions.push(MultiHeadAttentionConfig::new(WIDTH, 2).init(&device));
                Node::Attention(x, layers.attentions.len() - 1)
            }
            5 => {
                layers.dropouts.push(DropoutConfig::new(0.2).init());
                Node::Dropout(x, layers.dropouts.len() - 1)
            }
            6 => Node::Function(x, random.random_range(0..6)),
            7 => Node::Add(x, y),
            8 => Node::Multiply(x, y),
            9 => Node::Mean(x, random.random_range(1..3)),
            10 => Node::Largest(x),
            11 => Node::Rotate(x, random.random_range(1..TOKENS)),
            _ => Node::Join(x, y),
        });
    }
    (layers, nodes)
}

impl Layers {
    fn loss(&self, nodes: &[Node], x: Tensor<3>) -> Tensor<1> {
        let mut values = vec![x];
        for node in nodes {
            let value = self.value(*node, &values);
            values.push(value);
        }
        let last = values.pop().expect("there is a value");
        (activation::tanh(last) + 0.3).powi_scalar(2).mean()
    }

    fn value(&self, node: Node, values: &[Tensor<3>]) -> Tensor<3> {
        let of = |at: usize| values[at].clone();
        match node {
            Node::Linear(x, at) => self.linears[at].forward(of(x)),
            Node::Norm(x, at) => self.norms[at].forward(of(x)),
            Node::BatchNorm(x, at) => {
                self.batch_norms[at].forward(of(x).swap_dims(1, 2)).swap_dims(1, 2)
            }
            Node::Convolution(x, at) => {
                self.convolutions[at].forward(of(x).swap_dims(1, 2)).swap_dims(1, 2)
            }
            Node::Attention(x, at) => {
                self.attentions[at].forward(MhaInput::self_attn(of(x))).context
            }
            Node::Dropout(x, at) => self.dropouts[at].forward(of(x)),
            Node::Function(x, which) => function(which, of(x)),
            Node::Add(x, y) => of(x) + of(y),
            Node::Multiply(x, y) => activation::tanh(of(x)) * activation::tanh(of(y)),
            Node::Mean(x, axis) => {
                let size = of(x).dims()[axis];
                of(x).mean_dim(axis).repeat_dim(axis, size)
            }
            Node::Largest(x) => of(x).max_dim(1).repeat_dim(1, TOKENS),
            Node::Rotate(x, by) => {
                let [rows, tokens, width] = of(x).dims();
                let first = of(x).slice([0..rows, 0..by, 0..width]);
                let rest = of(x).slice([0..rows, by..tokens, 0..width]);
                Tensor::cat(vec![rest, first], 1)
            }
            Node::Join(x, y) => {
                let half = |x: Tensor<3>, from: usize| x.narrow(2, from, WIDTH / 2);
                Tensor::cat(vec![half(of(x), 0), half(of(y), WIDTH / 2)], 2)
            }
        }
    }
}

fn function(which: u8, x: Tensor<3>) -> Tensor<3> {
    match which {
        0 => activation::tanh(x),
        1 => activation::gelu(x),
        2 => activation::sigmoid(x),
        3 => activation::softmax(x, 2),
        4 => activation::silu(x),
        _ => activation::softplus(x, 1.0),
    }
}

fn batch(rows: usize, salt: usize) -> Tensor<3> {
    let number = |at: usize| ((at * 37 + salt * 11) % 83) as f32 / 41.5 - 1.0;
    let values: Vec<f32> = (0..rows * TOKENS * WIDTH).map(number).collect();
    Tensor::from_data(TensorData::new(values, [rows, TOKENS, WIDTH]), &Device::flex())
}

/// Two steps' hash; none where the model has too few blocks for the schedule.
fn hash(
    layers: &Layers,
    nodes: &[Node],
    devices: &str,
    family: &'static Family,
    shadow: bool,
) -> Result<Option<String>, String> {
    let nodes = nodes.to_vec();
    let loss = move |layers: &Layers, x: Tensor<3>| layers.loss(&nodes, x);
    let trainer = Trainer::of(layers.clone(), loss)
        .devices(devices)
        .map_err(|error| error.to_string())?
        .microbatches(MICROBATCHES)
        .optimizer(Sgd::default())
        .learning_rate(0.05)
        .schedule(family)
        .shadow(shadow)
        .build(&batch(ROWS, 0));
    let mut trainer = match trainer {
        Err(error) if error.to_string().contains("blocks cannot fill") => return Ok(None),
        other => other.map_err(|error| format!("{devices}, {}: {error}", family.name))?,
    };
    for step in 0..2 {
        let report = trainer.step(batch(ROWS * MICROBATCHES as usize, step));
        report.map_err(|error| format!("{devices}, {}: {error}", family.name))?;
    }
    trainer.weights_hash().map(Some).map_err(|error| error.to_string())
}

fn check(seed: u64) -> Result<(), String> {
    let (layers, nodes) = model(seed);
    let mut random = StdRng::seed_from_u64(seed + 1);
    let loss = |layers: &Layers, x| layers.loss(&nodes, x);
    // It compares with Burn's.
    gradients(&layers, &loss, &batch(ROWS, 0)).map_err(|error| error.to_string())?;
    let kinds: [&[&str]; 2] = [&["cpu", "cpux2"], &["gpu:0", "gpu:0x2"]];
    let all_shadows = std::env::var_os("ZEROBUBBLE_SHADOW").is_some_and(|value| value != "0");
    let shadow = all_shadows || seed % SHADOWS < 2;
    let kind = kinds[usize::from(seed.is_multiple_of(if all_shadows { 2 } else { 8 }))];
    let expected = hash(&layers, &nodes, kind[0], &ONE_F_ONE_B, false)?;
    let all: Vec<&Family> = families().collect();
    for devices in kind {
        let family = all.choose(&mut random).expect("there are families");
        let found = hash(&layers, &nodes, devices, family, shadow)?;
        if found.is_some() && found != expected {
            return Err(format!("{devices}, {}: {found:?}, not {expected:?}", family.name));
        }
    }
    Ok(())
}

#[test]
fn random_models_train_as_burn_trains_them_with_the_same_bits_everywhere() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let (first, count) = match std::env::var("ZEROBUBBLE_RANDOM_MODELS") {
        Ok(count) => (now() as u64, count.parse().expect("it is a number of models")),
        Err(_) => (0, COUNT),
    };
    let mut failures = Vec::new();
    for seed in FOUND.into_iter().chain((0..count).map(|at| first.wrapping_add(at))) {
        let checked = catch_unwind(AssertUnwindSafe(|| check(seed)));
        if let Err(problem) = checked.unwrap_or_else(|_| Err("it panicked".into())) {
            let (_, nodes) = model(seed);
            failures.push(format!("seed {seed}: {problem}\n    {nodes:?}"));
        }
    }
    assert!(failures.is_empty(), "{} models failed:\n{}", failures.len(), failures.join("\n"));
}
