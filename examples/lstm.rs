//! Trains a language model of two LSTM layers.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::nn::{Lstm, LstmConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const VOCABULARY: usize = 11;
const CONTEXT: usize = 6;
const WIDTH: usize = 12;

#[derive(Module, Debug)]
pub(crate) struct LanguageModel {
    embedding: Embedding,
    layers: Vec<Lstm>,
    dropout: Dropout,
    head: Linear,
}

/// Tokens, and the tokens that follow them.
pub(crate) type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

impl LanguageModel {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            layers: (0..2).map(|_| LstmConfig::new(WIDTH, WIDTH, true).init(device)).collect(),
            dropout: DropoutConfig::new(dropout).init(),
            head: LinearConfig::new(WIDTH, VOCABULARY).init(device),
        }
    }

    pub(crate) fn loss(&self, (tokens, targets): Tokens) -> Tensor<1> {
        let x = self.dropout.forward(self.embedding.forward(tokens));
        let x = self.layers.iter().fold(x, |x, layer| {
            let (x, _) = layer.forward(x, None);
            self.dropout.forward(x)
        });
        let logits: Tensor<2> = self.head.forward(x).flatten(0, 1);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, targets.flatten(0, 1))
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = LanguageModel::new(DROPOUT, &device);
    let mut trainer = Trainer::of(model, |model, tokens| model.loss(tokens))
        .devices("cpux2")?
        .microbatches(4)
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
    let tokens = |ahead: usize| {
        let places = (first..first + rows).flat_map(|row| (0..CONTEXT).map(move |at| (row, at)));
        let tokens: Vec<i64> = places.map(|(row, at)| token(row, at + ahead)).collect();
        Tensor::from_data(TensorData::new(tokens, [rows, CONTEXT]), device)
    };
    (tokens(0), tokens(1))
}
