//! Trains a small ResNet with batch norm, to which every microbatch is a batch.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use zerobubble::{Error, Trainer};

pub(crate) const DROPOUT: f64 = 0.1;
const SIZE: usize = 8;
const CLASSES: usize = 3;

#[derive(Module, Debug)]
struct NormedConv {
    conv: Conv2d,
    norm: BatchNorm,
}

#[derive(Module, Debug)]
struct Block {
    first: NormedConv,
    second: NormedConv,
    /// Where the block changes size or channels.
    downsample: Option<NormedConv>,
}

#[derive(Module, Debug)]
pub(crate) struct ResNet {
    stem: NormedConv,
    blocks: Vec<Block>,
    pool: AdaptiveAvgPool2d,
    dropout: Dropout,
    head: Linear,
}

/// Images `[images, 1, height, width]` and their classes.
pub(crate) type Images = (Tensor<4>, Tensor<1, Int>);

impl NormedConv {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Self {
        let around = kernel / 2;
        let conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(around, around, around, around))
            .with_bias(false);
        Self { conv: conv.init(device), norm: BatchNormConfig::new(channels[1]).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

impl Block {
    fn new(from: usize, to: usize, stride: usize, device: &Device) -> Self {
        Self {
            first: NormedConv::new([from, to], 3, stride, device),
            second: NormedConv::new([to, to], 3, 1, device),
            downsample: (from != to).then(|| NormedConv::new([from, to], 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.second.forward(relu(self.first.forward(x.clone())));
        relu(y + self.downsample.iter().fold(x, |x, layer| layer.forward(x)))
    }
}

impl ResNet {
    pub(crate) fn new(dropout: f64, device: &Device) -> Self {
        let blocks = [[8, 8, 1], [8, 16, 2], [16, 16, 1]];
        Self {
            stem: NormedConv::new([1, 8], 3, 1, device),
            blocks: blocks.map(|[from, to, by]| Block::new(from, to, by, device)).into(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            dropout: DropoutConfig::new(dropout).init(),
            head: LinearConfig::new(16, CLASSES).init(device),
        }
    }

    pub(crate) fn loss(&self, (images, labels): Images) -> Tensor<1> {
        let x = relu(self.stem.forward(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.dropout.forward(self.pool.forward(x).flatten::<2>(1, 3));
        let logits = self.head.forward(x);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels)
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let device = Device::flex();
    device.seed(1);
    let mut trainer =
        Trainer::of(ResNet::new(DROPOUT, &device), |model, images| model.loss(images))
            .devices("cpux2")?
            .microbatches(2)
            .learning_rate(1e-2)
            .build(&batch(0, 6, &device))?;
    for step in 1..=10 {
        println!("step {step}: loss {:.4}", trainer.step(batch(12 * step, 12, &device))?.loss);
    }
    Ok(())
}

/// Images with waves, whose direction is their class.
pub(crate) fn batch(first: usize, rows: usize, device: &Device) -> Images {
    let pixel = |at: usize| {
        let (image, y, x) = (first + at / SIZE / SIZE, at / SIZE % SIZE, at % SIZE);
        ((image + [x, y, x + y][image % CLASSES]) as f32 * 1.3).sin()
    };
    let pixels: Vec<f32> = (0..rows * SIZE * SIZE).map(pixel).collect();
    let labels: Vec<i64> = (first..first + rows).map(|image| (image % CLASSES) as i64).collect();
    let pixels = Tensor::from_data(TensorData::new(pixels, [rows, 1, SIZE, SIZE]), device);
    (pixels, Tensor::from_data(TensorData::new(labels, [rows]), device))
}
