//! Trains a variational autoencoder: the forward pass draws normal random numbers itself, which
//! become samples of the latent distribution (Kingma and Welling 2013, "Auto-Encoding Variational
//! Bayes").

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use zerobubble::{Error, Trainer};

/// Standard deviation of the random numbers.
pub(crate) const NOISE: f64 = 1.0;
const FEATURES: usize = 16;
const HIDDEN: usize = 16;
const LATENT: usize = 4;

#[derive(Module, Debug)]
pub(crate) struct Vae {
    encoder: Linear,
    mean: Linear,
    log_variance: Linear,
    decoder: [Linear; 2],
    relu: Relu,
    noise: f64,
}

/// Rows of numbers.
pub(crate) type Waves = Tensor<2>;

impl Vae {
    pub(crate) fn new(noise: f64, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self {
            encoder: linear(FEATURES, HIDDEN),
            mean: linear(HIDDEN, LATENT),
            log_variance: linear(HIDDEN, LATENT),
            decoder: [linear(LATENT, HIDDEN), linear(HIDDEN, FEATURES)],
            relu: Relu::new(),
            noise,
        }
    }

    /// What does not come back of `x`, and how far the latent distribution is from a normal one.
    pub(crate) fn loss(&self, x: Waves) -> Tensor<1> {
        let rows = x.dims()[0] as f32;
        let hidden = self.relu.forward(self.encoder.forward(x.clone()));
        let mean = self.mean.forward(hidden.clone());
        let log_variance = self.log_variance.forward(hidden);

        let noise = mean.random_like(Distribution::Normal(0.0, self.noise));
        let latent = mean.clone() + noise * (log_variance.clone() * 0.5).exp();
        let hidden = self.relu.forward(self.decoder[0].forward(latent));
        let decoded = self.decoder[1].forward(hidden);

        let reconstruction = MseLoss::new().forward(decoded, x, Reduction::Sum) / rows;
        let spread = log_variance.clone() - log_variance.exp() - mean.square() + 1.0;
        reconstruction - spread.sum() * (0.5 / rows)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let mut trainer = Trainer::of(Vae::new(NOISE, &device), |model, x| model.loss(x))
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

/// Waves of different lengths.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Waves {
    let value = |at: usize| {
        let (row, column) = (first + at / FEATURES, at % FEATURES);
        (row as f32 + (0.5 + (row % 3) as f32) * column as f32).sin()
    };
    let values: Vec<f32> = (0..rows * FEATURES).map(value).collect();
    Tensor::from_data(TensorData::new(values, [rows, FEATURES]), device)
}
