//! Trains a ConvNet classifier made of Burn's layers on two CPU devices. It tells bars, blobs and
//! noise apart, on images that are drawn here.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use zerobubble::{AdamW, Error, Trainer};

/// Height and width of an image.
const SIZE: usize = 16;

/// What an image shows.
const CLASSES: [&str; 4] = ["horizontal bar", "vertical bar", "blob", "noise alone"];

const MICROBATCHES: usize = 4;
const IMAGES: usize = 16;
const STEPS: u64 = 60;

/// A convolution, group norm, ReLU and a pool.
#[derive(Module, Debug)]
struct Stage {
    conv: Conv2d,
    norm: GroupNorm,
    pool: MaxPool2d,
}

/// Three stages, the mean of every channel, and a linear head.
#[derive(Module, Debug)]
struct ConvNet {
    stages: Vec<Stage>,
    mean: AdaptiveAvgPool2d,
    head: Linear,
}

impl Stage {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        let conv = Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Same);
        Self {
            conv: conv.init(device),
            // Not batch norm, which would couple the images of a microbatch.
            norm: GroupNormConfig::new(4, to).init(device),
            pool: MaxPool2dConfig::new([2, 2]).init(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.pool.forward(activation::relu(self.norm.forward(self.conv.forward(x))))
    }
}

impl ConvNet {
    fn new(device: &Device) -> Self {
        let channels = [1, 8, 16, 32];
        let stage = |pair: &[usize]| Stage::new(pair[0], pair[1], device);
        Self {
            stages: channels.windows(2).map(stage).collect(),
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            head: LinearConfig::new(channels[3], CLASSES.len()).init(device),
        }
    }

    /// Scores of the classes, `[images, classes]`, for images `[images, 1, height, width]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stages.iter().fold(images, |x, stage| stage.forward(x));
        self.head.forward(self.mean.forward(x).flatten(1, 3))
    }

    fn loss(&self, images: Tensor<4>, labels: Tensor<1, Int>) -> Tensor<1> {
        let logits = self.forward(images);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels)
    }
}

fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let model = ConvNet::new(&device);

    let mut trainer = Trainer::of(model, |model, (images, labels)| model.loss(images, labels))
        .devices("cpux2")?
        .microbatches(MICROBATCHES as u32)
        .optimizer(AdamW::default())
        .learning_rate(3e-3)
        .build(&images(0, IMAGES))?;
    println!("{}", trainer.stages());

    for step in 1..=STEPS {
        let report = trainer.step(images(step, IMAGES * MICROBATCHES))?;
        if step == 1 || step % 10 == 0 {
            println!("step {step}: loss {:.4}", report.loss);
        }
    }
    let trained = trainer.into_module()?;
    let (held_out, labels) = images(STEPS + 1, 400);
    let right = trained.forward(held_out).argmax(1).squeeze_dim::<1>(1).equal(labels);
    let accuracy = right.float().mean().into_scalar::<f32>();
    println!("accuracy on 400 new images: {:.1}%", 100.0 * accuracy);
    Ok(())
}

/// Images of every class in turn, each at another place and with noise; the labels are the classes.
fn images(seed: u64, count: usize) -> (Tensor<4>, Tensor<1, Int>) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut pixels = Vec::with_capacity(count * SIZE * SIZE);
    let labels: Vec<i64> = (0..count).map(|image| (image % CLASSES.len()) as i64).collect();
    for label in &labels {
        let middle: [usize; 2] = std::array::from_fn(|_| random.random_range(3..SIZE - 3));
        let reach = match label {
            0 => [0, 6],
            1 => [6, 0],
            2 => [2, 2],
            _ => [0, 0],
        };
        for at in 0..SIZE * SIZE {
            let [down, across] = [middle[0].abs_diff(at / SIZE), middle[1].abs_diff(at % SIZE)];
            let inside = reach != [0, 0] && down <= reach[0] && across <= reach[1];
            pixels.push(f32::from(u8::from(inside)) + random.random_range(-0.5..0.5f32));
        }
    }
    let device = Device::flex();
    let pixels = TensorData::new(pixels, [count, 1, SIZE, SIZE]);
    let labels = TensorData::new(labels, [count]);
    (Tensor::from_data(pixels, &device), Tensor::from_data(labels, &device))
}
