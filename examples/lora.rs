//! Adapts a transformer whose own weights are frozen, with matrices of rank 2 beside its query and
//! value layers (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation, s};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const VOCABULARY: usize = 11;
const CONTEXT: usize = 6;
const WIDTH: usize = 12;
const RANK: usize = 2;

#[derive(Module, Debug)]
struct LoraLinear {
    frozen: Linear,
    down: Linear,
    up: Linear,
}

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    query: LoraLinear,
    key: Linear,
    value: LoraLinear,
    output: Linear,
    feed_forward: PositionWiseFeedForward,
}

#[derive(Module, Debug)]
pub(crate) struct Adapted {
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Linear,
}

/// Tokens, of which each but the first is to be predicted.
pub(crate) type Tokens = Tensor<2, Int>;

impl LoraLinear {
    fn new(frozen: Linear, device: &Device) -> Self {
        let (down, up) = (LinearConfig::new(WIDTH, RANK), LinearConfig::new(RANK, WIDTH));
        let up = up.with_bias(false).with_initializer(Initializer::Zeros).init(device);
        Self { frozen, down: down.with_bias(false).init(device), up }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.frozen.forward(x.clone()) + self.up.forward(self.down.forward(x))
    }
}

impl Block {
    fn new(dropout: f64, device: &Device) -> Self {
        let linear = || LinearConfig::new(WIDTH, WIDTH).init(device).no_grad();
        let feed_forward = PositionWiseFeedForwardConfig::new(WIDTH, 24).with_dropout(dropout);
        Self {
            norm: LayerNormConfig::new(WIDTH).init(device).no_grad(),
            query: LoraLinear::new(linear(), device),
            key: linear(),
            value: LoraLinear::new(linear(), device),
            output: linear(),
            feed_forward: feed_forward.init(device).no_grad(),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = self.norm.forward(x.clone());
        let (query, key) = (self.query.forward(normed.clone()), self.key.forward(normed.clone()));
        let scores = query.matmul(key.transpose()) / (WIDTH as f32).sqrt();
        let later = Tensor::<2, Bool>::tril_mask([CONTEXT; 2], 0, &x.device());
        let weights = activation::softmax(scores.mask_fill(later.unsqueeze(), -1e4), 2);
        let x = x + self.output.forward(weights.matmul(self.value.forward(normed)));
        x.clone() + self.feed_forward.forward(x)
    }
}

impl Adapted {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device).no_grad(),
            blocks: (0..3).map(|_| Block::new(dropout, device)).collect(),
            head: LinearConfig::new(WIDTH, VOCABULARY).init(device).no_grad(),
        }
    }

    pub(crate) fn loss(&self, tokens: Tokens) -> Tensor<1> {
        let targets = tokens.clone().slice(s![.., 1..]);
        let x = self.embedding.forward(tokens.slice(s![.., ..CONTEXT]));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let logits: Tensor<2> = self.head.forward(x).flatten(0, 1);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets.flatten(0, 1))
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = Adapted::new(DROPOUT, &device);
    let mut trainer = Trainer::of(model, |model, tokens| model.loss(tokens))
        .devices("cpux2")?
        .learning_rate(1e-2)
        .build(&batch(0, 4, &device))?;
    for step in 1..=10 {
        println!("step {step}: loss {:.4}", trainer.step(batch(32 * step, 32, &device))?.loss);
    }
    Ok(())
}

/// Sequences that count in different steps.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Tokens {
    let token = |row: usize, at: usize| ((row * 3 + at * (1 + row % 3)) % VOCABULARY) as i64;
    let tokens = (first..first + rows).flat_map(|row| (0..=CONTEXT).map(move |at| token(row, at)));
    Tensor::from_data(TensorData::new(tokens.collect::<Vec<_>>(), [rows, CONTEXT + 1]), device)
}
