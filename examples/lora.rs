//! Adapts a transformer whose own weights are frozen, with matrices of rank 2 beside its query and
//! value layers (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation, s};
use zerobubble::{AdamW, Error, Trainer};

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
    norms: [LayerNorm; 2],
    query: LoraLinear,
    key: Linear,
    value: LoraLinear,
    output: Linear,
    feed_forward: PositionWiseFeedForward,
    dropout: Dropout,
}

#[derive(Module, Debug)]
pub(crate) struct Adapted {
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Linear,
}

pub(crate) type Tokens = Tensor<2, Int>;

fn linear(device: &Device) -> Linear {
    LinearConfig::new(WIDTH, WIDTH).init(device).no_grad()
}

impl LoraLinear {
    fn new(device: &Device) -> Self {
        let (down, up) = (LinearConfig::new(WIDTH, RANK), LinearConfig::new(RANK, WIDTH));
        let up = up.with_bias(false).with_initializer(Initializer::Zeros).init(device);
        Self { frozen: linear(device), down: down.with_bias(false).init(device), up }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.frozen.forward(x.clone()) + self.up.forward(self.down.forward(x))
    }
}

impl Block {
    fn new(dropout: f64, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(WIDTH).init(device).no_grad();
        let feed_forward = PositionWiseFeedForwardConfig::new(WIDTH, 24).with_dropout(dropout);
        Self {
            norms: [norm(), norm()],
            query: LoraLinear::new(device),
            key: linear(device),
            value: LoraLinear::new(device),
            output: linear(device),
            feed_forward: feed_forward.init(device).no_grad(),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = self.norms[0].forward(x.clone());
        let (query, key) = (self.query.forward(normed.clone()), self.key.forward(normed.clone()));
        let later = Tensor::<2, Bool>::tril_mask([CONTEXT; 2], 0, &x.device());
        let scores = (query.matmul(key.transpose()) / (WIDTH as f32).sqrt())
            .mask_fill(later.unsqueeze(), -1e4);
        let weights = self.dropout.forward(activation::softmax(scores, 2));
        let attended = self.output.forward(weights.matmul(self.value.forward(normed)));
        let x = x + self.dropout.forward(attended);
        x.clone() + self.feed_forward.forward(self.norms[1].forward(x))
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
        let tokens = tokens.slice(s![.., ..CONTEXT]);
        let x = self.embedding.forward(tokens);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let logits: Tensor<2> = self.head.forward(x).flatten(0, 1);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, targets.flatten(0, 1))
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let mut trainer =
        Trainer::of(Adapted::new(DROPOUT, &device), |model, tokens| model.loss(tokens))
            .devices("cpux2")?
            .microbatches(4)
            .optimizer(AdamW::default())
            .learning_rate(1e-2)
            .build(&batch(0, 4, &device))?;
    for step in 0..10 {
        let report = trainer.step(batch(16 * step, 16, &device))?;
        println!("step {}: loss {:.4}", step + 1, report.loss);
    }
    Ok(())
}

/// Sequences that count in different steps.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Tokens {
    let token = |row: usize, at: usize| ((row * 3 + at * (1 + row % 3)) % VOCABULARY) as i64;
    let tokens = (first..first + rows).flat_map(|row| (0..=CONTEXT).map(move |at| token(row, at)));
    let tokens = TensorData::new(tokens.collect::<Vec<_>>(), [rows, CONTEXT + 1]);
    Tensor::from_data(tokens, device)
}
