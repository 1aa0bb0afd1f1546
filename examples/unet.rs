//! Trains a U-Net that finds bright places: what goes down in size comes up again, and every size
//! is handed across. What skips a stage of the pipeline travels through it.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::silu};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const SIZE: usize = 8;
const CHANNELS: [usize; 3] = [4, 8, 16];

/// Two convolutions, each with group norm.
#[derive(Module, Debug)]
struct Level {
    convs: [Conv2d; 2],
    norms: [GroupNorm; 2],
}

#[derive(Module, Debug)]
pub(crate) struct UNet {
    down: Vec<Level>,
    pool: MaxPool2d,
    dropout: Dropout,
    upsample: Vec<ConvTranspose2d>,
    up: Vec<Level>,
    head: Conv2d,
}

/// Images, and which of their pixels are to be found.
pub(crate) type Masked = (Tensor<4>, Tensor<4, Int>);

impl Level {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        let conv = |from| Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Same);
        let norm = || GroupNormConfig::new(2, to).init(device);
        Self { convs: [conv(from).init(device), conv(to).init(device)], norms: [norm(), norm()] }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let layers = self.convs.iter().zip(&self.norms);
        layers.fold(x, |x, (conv, norm)| silu(norm.forward(conv.forward(x))))
    }
}

impl UNet {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        let [first, second, third] = CHANNELS;
        let level = |[from, to]: [usize; 2]| Level::new(from, to, device);
        let upsample = |channels| {
            ConvTranspose2dConfig::new(channels, [2, 2]).with_stride([2, 2]).init(device)
        };
        Self {
            down: [[1, first], [first, second], [second, third]].map(level).into(),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            dropout: DropoutConfig::new(dropout).init(),
            upsample: [[third, second], [second, first]].map(upsample).into(),
            up: [[2 * second, second], [2 * first, first]].map(level).into(),
            head: Conv2dConfig::new([first, 1], [1, 1]).init(device),
        }
    }

    pub(crate) fn loss(&self, (images, masks): Masked) -> Tensor<1> {
        let mut x = self.down[0].forward(images);
        let mut skipped = Vec::new();
        for level in &self.down[1..] {
            skipped.push(x.clone());
            x = level.forward(self.pool.forward(x));
        }
        x = self.dropout.forward(x);
        for (upsample, level) in self.upsample.iter().zip(&self.up) {
            x = upsample.forward(x);
            x = level.forward(Tensor::cat(vec![skipped.pop().expect("one for each"), x], 1));
        }
        let logits = self.head.forward(x);
        let loss = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&logits.device());
        loss.forward(logits, masks)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let mut trainer = Trainer::of(UNet::new(DROPOUT, &device), |model, masked| model.loss(masked))
        .devices("cpux2")?
        .microbatches(4)
        .learning_rate(1e-2)
        .build(&batch(0, 2, &device))?;
    for step in 0..10 {
        let report = trainer.step(batch(8 * step, 8, &device))?;
        println!("step {}: loss {:.4}", step + 1, report.loss);
    }
    Ok(())
}

/// Images with waves. What is bright is to be found.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Masked {
    let pixel = |at: usize| {
        let (image, y, x) = (first + at / SIZE / SIZE, at / SIZE % SIZE, at % SIZE);
        (image as f32 + 0.9 * x as f32).sin() * (0.7 * y as f32 + 0.3 * image as f32).cos()
    };
    let pixels: Vec<f32> = (0..rows * SIZE * SIZE).map(pixel).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [rows, 1, SIZE, SIZE]), device);
    (pixels.clone(), pixels.greater_elem(0.3).int())
}
