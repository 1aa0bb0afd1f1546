//! Trains a text generator: embeddings of tokens and positions, and a `TransformerEncoder` that
//! sees what came before. Padding counts neither in the attention nor in the loss.

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const PAD: usize = 0;
const VOCABULARY: usize = 12;
const CONTEXT: usize = 8;
const WIDTH: usize = 16;

#[derive(Module, Debug)]
pub(crate) struct TextGenerator {
    transformer: TransformerEncoder,
    embedding_token: Embedding,
    embedding_pos: Embedding,
    output: Linear,
}

/// Tokens, the tokens that follow them, and what is padding.
pub(crate) type Texts = (Tensor<2, Int>, Tensor<2, Int>, Tensor<2, Bool>);

impl TextGenerator {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        let transformer = TransformerEncoderConfig::new(WIDTH, 32, 2, 3);
        Self {
            transformer: transformer.with_norm_first(true).with_dropout(dropout).init(device),
            embedding_token: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            embedding_pos: EmbeddingConfig::new(CONTEXT, WIDTH).init(device),
            output: LinearConfig::new(WIDTH, VOCABULARY).init(device),
        }
    }

    /// The sum over all tokens that count, and how many these are: texts differ in length, so a
    /// mean over a microbatch would depend on which texts are in it.
    pub(crate) fn loss(&self, (tokens, targets, mask_pad): Texts) -> (Tensor<1>, Tensor<1>) {
        let [rows, length] = tokens.dims();
        let device = &self.devices()[0];
        let (tokens, targets) = (tokens.to_device(device), targets.to_device(device));
        let positions = Tensor::arange(0..length as i64, device).reshape([1, length]);
        let positions = self.embedding_pos.forward(positions.repeat_dim(0, rows));
        let embedding = (positions + self.embedding_token.forward(tokens)) / 2;

        let input = TransformerEncoderInput::new(embedding)
            .mask_pad(mask_pad.to_device(device))
            .mask_attn(generate_autoregressive_mask(rows, length, device));
        let logits = self.output.forward(self.transformer.forward(input));

        let targets = targets.reshape([rows * length]);
        let counted = targets.clone().not_equal_elem(PAD as i64).float().sum();
        let loss = CrossEntropyLossConfig::new().with_pad_tokens(Some(vec![PAD])).init(device);
        let mean = loss.forward(logits.reshape([rows * length, VOCABULARY]), targets);
        (mean * counted.clone(), counted)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = TextGenerator::new(DROPOUT, &device);
    let mut trainer = Trainer::of(model, |model, texts| model.loss(texts))
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

/// Texts that count upwards, of different lengths.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Texts {
    let token = |row: usize, at: usize| match at {
        at if at > CONTEXT - row % 4 => PAD as i64,
        at => (1 + (row * 5 + at) % (VOCABULARY - 1)) as i64,
    };
    let tokens = |ahead: usize| {
        let texts = (first..first + rows).flat_map(|row| (0..CONTEXT).map(move |at| (row, at)));
        let tokens: Vec<i64> = texts.map(|(row, at)| token(row, at + ahead)).collect();
        Tensor::<2, Int>::from_data(TensorData::new(tokens, [rows, CONTEXT]), device)
    };
    (tokens(0), tokens(1), tokens(0).equal_elem(PAD as i64))
}
