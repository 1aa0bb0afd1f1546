//! Trains a classifier of texts: a `TransformerEncoder` that does not attend to padding, and a
//! linear layer on what it makes of the first token.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const PAD: i64 = 0;
const VOCABULARY: usize = 12;
const CONTEXT: usize = 8;
const WIDTH: usize = 16;
const CLASSES: usize = 3;

#[derive(Module, Debug)]
pub(crate) struct TextClassifier {
    transformer: TransformerEncoder,
    embedding_token: Embedding,
    embedding_pos: Embedding,
    output: Linear,
    classes: usize,
}

/// Tokens, what is padding, and the classes.
pub(crate) type Texts = (Tensor<2, Int>, Tensor<2, Bool>, Tensor<1, Int>);

impl TextClassifier {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        let transformer = TransformerEncoderConfig::new(WIDTH, 32, 2, 2).with_dropout(dropout);
        Self {
            transformer: transformer.init(device),
            embedding_token: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
            embedding_pos: EmbeddingConfig::new(CONTEXT, WIDTH).init(device),
            output: LinearConfig::new(WIDTH, CLASSES).init(device),
            classes: CLASSES,
        }
    }

    pub(crate) fn loss(&self, (tokens, mask_pad, labels): Texts) -> Tensor<1> {
        let [rows, length] = tokens.dims();
        let device = &self.embedding_token.devices()[0];
        let positions = Tensor::arange(0..length as i64, device).reshape([1, length]);
        let positions = self.embedding_pos.forward(positions.repeat_dim(0, rows));
        let embedding = (positions + self.embedding_token.forward(tokens)) / 2;

        let input = TransformerEncoderInput::new(embedding).mask_pad(mask_pad);
        let output = self.output.forward(self.transformer.forward(input));
        let logits = output.slice([0..rows, 0..1]).reshape([rows, self.classes]);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = TextClassifier::new(DROPOUT, &device);
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

/// Texts of different lengths; the class of each is in how its numbers go up.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Texts {
    let texts = first..first + rows;
    let token = |row: usize, at: usize| match at {
        at if at >= CONTEXT - row % 4 => PAD,
        at => (1 + (row + at * (1 + row % CLASSES)) % (VOCABULARY - 1)) as i64,
    };
    let tokens: Vec<i64> =
        texts.clone().flat_map(|row| (0..CONTEXT).map(move |at| token(row, at))).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [rows, CONTEXT]), device);
    let labels: Vec<i64> = texts.map(|row| (row % CLASSES) as i64).collect();
    let labels = Tensor::from_data(TensorData::new(labels, [rows]), device);
    (tokens.clone(), tokens.equal_elem(PAD), labels)
}
