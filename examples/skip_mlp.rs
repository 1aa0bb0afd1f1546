//! Trains an MLP on three CPU devices whose last stage also reads what the first one computed. What
//! skips a stage travels through it, and its gradient comes back the same way.

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use zerobubble::nn::boundary;
use zerobubble::{AdamW, Error, Trainer};

const FEATURES: usize = 4;
const WIDTH: usize = 32;
const MICROBATCHES: usize = 8;
const ROWS: usize = 16;
const STEPS: u64 = 200;

#[derive(Module, Debug)]
struct SkipMlp {
    input: Linear,
    hidden: Vec<Linear>,
    norm: LayerNorm,
    output: Linear,
}

impl SkipMlp {
    fn new(device: &Device) -> Self {
        let hidden = || LinearConfig::new(WIDTH, WIDTH).init(device);
        Self {
            input: LinearConfig::new(FEATURES, WIDTH).init(device),
            hidden: (0..4).map(|_| hidden()).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            output: LinearConfig::new(2 * WIDTH, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // The marks make three stages: the input, the hidden layers, the output.
        let first = boundary(self.input.forward(x));
        let hidden =
            self.hidden.iter().fold(first.clone(), |x, layer| activation::gelu(layer.forward(x)));
        let hidden = boundary(self.norm.forward(hidden));
        self.output.forward(Tensor::cat(vec![hidden, first], 1))
    }

    fn loss(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        MseLoss::new().forward(self.forward(x), y, Reduction::Mean)
    }
}

fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let mut trainer = Trainer::of(SkipMlp::new(&device), |model, (x, y)| model.loss(x, y))
        .devices("cpux3")?
        .microbatches(MICROBATCHES as u32)
        .optimizer(AdamW::default())
        .learning_rate(3e-3)
        .build(&points(0, ROWS))?;
    println!("{}", trainer.stages());

    for step in 1..=STEPS {
        let report = trainer.step(points(step, ROWS * MICROBATCHES))?;
        if step == 1 || step % 40 == 0 {
            println!("step {step}: mean squared error {:.4}", report.loss);
        }
    }
    let trained = trainer.into_module()?;
    let (x, y) = points(STEPS + 1, 256);
    println!("on 256 new points: {:.4}", trained.loss(x, y).into_scalar::<f32>());
    Ok(())
}

/// Points, and at each the value of a function that is partly linear and partly not.
fn points(seed: u64, rows: usize) -> (Tensor<2>, Tensor<2>) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let x: Vec<f32> = (0..rows * FEATURES).map(|_| random.random_range(-1.0..1.0)).collect();
    let value = |x: &[f32]| 2.0 * x[0] - x[1] + x[2] * x[3] + (3.0 * x[0]).sin();
    let y: Vec<f32> = x.chunks_exact(FEATURES).map(value).collect();
    let device = Device::flex();
    let tensor =
        |values, columns| Tensor::from_data(TensorData::new(values, [rows, columns]), &device);
    (tensor(x, FEATURES), tensor(y, 1))
}
