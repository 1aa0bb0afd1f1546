//! Trains a mixture of experts: a router gives every row to two of four experts, and weighs what
//! they make of it.

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::transformer::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, IndexingUpdateOp, Tensor, TensorData, activation};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const FEATURES: usize = 4;
const WIDTH: usize = 12;
const EXPERTS: usize = 4;

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    router: Linear,
    experts: Vec<PositionWiseFeedForward>,
}

#[derive(Module, Debug)]
pub(crate) struct MixtureOfExperts {
    input: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

/// Points, and a value at each.
pub(crate) type Points = (Tensor<2>, Tensor<2>);

impl Block {
    fn new(dropout: f64, device: &Device) -> Self {
        let expert = PositionWiseFeedForwardConfig::new(WIDTH, 2 * WIDTH).with_dropout(dropout);
        Self {
            norm: LayerNormConfig::new(WIDTH).init(device),
            router: LinearConfig::new(WIDTH, EXPERTS).with_bias(false).init(device),
            experts: (0..EXPERTS).map(|_| expert.init(device)).collect(),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let normed = self.norm.forward(x.clone());
        let scores = self.router.forward(normed.clone());
        // A row is given to its two best experts; the others weigh nothing.
        let (best, chosen) = scores.topk_with_indices(2, 1);
        let shares = activation::softmax(best, 1);
        let nobody = Tensor::zeros([normed.dims()[0], EXPERTS], &normed.device());
        let weights: Tensor<2> = nobody.scatter(1, chosen, shares, IndexingUpdateOp::Add);
        self.experts.iter().enumerate().fold(x, |x, (at, expert)| {
            x + expert.forward(normed.clone()) * weights.clone().narrow(1, at, 1)
        })
    }
}

impl MixtureOfExperts {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        Self {
            input: LinearConfig::new(FEATURES, WIDTH).init(device),
            blocks: (0..3).map(|_| Block::new(dropout, device)).collect(),
            output: LinearConfig::new(WIDTH, 1).init(device),
        }
    }

    pub(crate) fn loss(&self, (x, y): Points) -> Tensor<1> {
        let x = self.input.forward(x);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        MseLoss::new().forward(self.output.forward(x), y, Reduction::Mean)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = MixtureOfExperts::new(DROPOUT, &device);
    let mut trainer = Trainer::of(model, |model, points| model.loss(points))
        .devices("cpux2")?
        .microbatches(4)
        .learning_rate(1e-2)
        .build(&batch(0, 8, &device))?;
    for step in 0..10 {
        let report = trainer.step(batch(32 * step, 32, &device))?;
        println!("step {}: loss {:.4}", step + 1, report.loss);
    }
    Ok(())
}

/// Points, and at each the value of a function that bends.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Points {
    let x: Vec<f32> = (first * FEATURES..(first + rows) * FEATURES)
        .map(|at| (at as f32 * 0.77 + (at % 7) as f32).sin())
        .collect();
    let y = x.chunks_exact(FEATURES).map(|x| x[0].abs() - x[1] * x[2] + x[3]).collect::<Vec<_>>();
    let tensor =
        |values, columns| Tensor::from_data(TensorData::new(values, [rows, columns]), device);
    (tensor(x, FEATURES), tensor(y, 1))
}
