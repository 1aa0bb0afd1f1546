//! Burn's layers and losses: each is captured, computes the module's own loss, and has Burn's
//! gradients.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::attention::{
    MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::pool::{AdaptiveAvgPool2dConfig, AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{
    Embedding, EmbeddingConfig, Gelu, GroupNormConfig, InstanceNormConfig, LayerNormConfig,
    LeakyReluConfig, Linear, LinearConfig, LinearLayout, Relu, RmsNormConfig, RotaryEncodingConfig,
    Sigmoid, SwiGluConfig, Tanh,
};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use super::common::{compare, compare_on_gpu, tensor};
use super::{linear, seeded, weighted};
use zerobubble::batch::Batch;

/// Checks a layer behind a linear one, so that its input has a gradient.
fn check<L: Module>(name: &str, layer: L, forward: impl Fn(&L, Tensor<3>) -> Tensor<3>) {
    let model = (linear(4, 6), layer);
    let loss = |model: &(Linear, L), x: Tensor<3>| weighted(forward(&model.1, model.0.forward(x)));
    let batch = |device: &Device| tensor(1, [3, 5, 4], -1.0, 1.0).to_device(device);
    check_everywhere(name, &model, &loss, batch);
}

/// Compares gradients with Burn's on a CPU device, and those with a GPU's.
fn check_everywhere<M: Module, B: Batch>(
    name: &str,
    model: &M,
    loss: &impl Fn(&M, B) -> Tensor<1>,
    batch: impl Fn(&Device) -> B,
) {
    compare(model, loss, &batch).unwrap_or_else(|error| panic!("{name}: {error}"));
    compare_on_gpu(model, loss, &batch).unwrap_or_else(|error| panic!("{name} on a GPU: {error}"));
}

#[test]
fn activation_layers_have_burns_gradients() {
    check("Relu", Relu::new(), |layer, x| layer.forward(x));
    check("Gelu", Gelu::new(), |layer, x| layer.forward(x));
    check("Gelu, approximate", Gelu::new_approximate(), |layer, x| layer.forward(x));
    check("SiLU", burn::nn::activation::SiLU::new(), |layer, x| layer.forward(x));
    check("Sigmoid", Sigmoid::new(), |layer, x| layer.forward(x));
    check("Tanh", Tanh::new(), |layer, x| layer.forward(x));
    check("LeakyRelu", LeakyReluConfig::new().init(), |layer, x| layer.forward(x));
}

#[test]
fn linear_and_norm_layers_have_burns_gradients() {
    let device = seeded();
    check("Linear", linear(6, 5), |layer, x| layer.forward(x));
    let unbiased = LinearConfig::new(6, 5).with_bias(false).init(&device);
    check("Linear without bias", unbiased, |layer, x| layer.forward(x));
    let transposed = LinearConfig::new(6, 5).with_layout(LinearLayout::Col).init(&device);
    check("Linear, column layout", transposed, |layer, x| layer.forward(x));
    check("SwiGlu", SwiGluConfig::new(6, 4).init(&device), |layer, x| layer.forward(x));
    check("LayerNorm", LayerNormConfig::new(6).init(&device), |layer, x| layer.forward(x));
    let unbiased = LayerNormConfig::new(6).with_bias(false).init(&device);
    check("LayerNorm without bias", unbiased, |layer, x| layer.forward(x));
    check("RmsNorm", RmsNormConfig::new(6).init(&device), |layer, x| layer.forward(x));
    let groups = GroupNormConfig::new(2, 6).init(&device);
    check("GroupNorm", groups, |layer, x| layer.forward(x.swap_dims(1, 2)));
    let rotary = RotaryEncodingConfig::new(8, 6).init(&device);
    check("RotaryEncoding", rotary.clone(), |layer, x| layer.forward(x));
    check("RotaryEncoding of heads", rotary, |layer, x| {
        layer.forward(x.unsqueeze_dim::<4>(1)).squeeze_dim(1)
    });
}

/// Checks a layer on images `[3, 5, 2, 3]` behind a linear one.
fn check_images<L: Module>(name: &str, layer: L, forward: impl Fn(&L, Tensor<4>) -> Tensor<4>) {
    check(name, layer, |layer, x| forward(layer, x.reshape([3, 5, 2, 3])).flatten(1, 2));
}

#[test]
fn layers_of_images_have_burns_gradients() {
    let device = seeded();
    let same = PaddingConfig2d::Same;
    let conv = Conv2dConfig::new([5, 4], [3, 3]).with_padding(same.clone()).init(&device);
    check_images("Conv2d", conv, |layer: &Conv2d, x| layer.forward(x));
    let even = Conv2dConfig::new([5, 4], [2, 2]).with_padding(same).with_bias(false);
    check_images("Conv2d, even kernel", even.init(&device), |layer, x| layer.forward(x));
    let depthwise = Conv2dConfig::new([5, 10], [2, 1]).with_groups(5).init(&device);
    check_images("Conv2d, depthwise", depthwise, |layer, x| layer.forward(x));
    let transposed = ConvTranspose2dConfig::new([5, 4], [2, 3]).with_stride([2, 1]).init(&device);
    check_images("ConvTranspose2d", transposed, |layer, x| layer.forward(x));
    let max = MaxPool2dConfig::new([2, 2]).with_strides([1, 1]).init();
    check_images("MaxPool2d", max, |layer, x| layer.forward(x));
    let mean = AvgPool2dConfig::new([2, 2]).with_strides([1, 1]).init();
    check_images("AvgPool2d", mean, |layer, x| layer.forward(x));
    let adaptive = AdaptiveAvgPool2dConfig::new([1, 2]).init();
    check_images("AdaptiveAvgPool2d", adaptive, |layer, x| layer.forward(x));
    for groups in [1, 5] {
        let norm = GroupNormConfig::new(groups, 5).init(&device);
        check_images("GroupNorm", norm, |layer, x| layer.forward(x));
    }
    let plain = GroupNormConfig::new(5, 5).with_affine(false).init(&device);
    check_images("GroupNorm without gamma", plain, |layer, x| layer.forward(x));
    let instances = InstanceNormConfig::new(5).init(&device);
    check_images("InstanceNorm", instances, |layer, x| layer.forward(x));
}

/// True where a token is padding: the last ones of every row but the first.
fn padding(rows: usize, columns: usize, device: &Device) -> Tensor<2, Bool> {
    let mask: Vec<bool> =
        (0..rows * columns).map(|at| at % columns + at / columns >= columns).collect();
    Tensor::from_data(TensorData::new(mask, [rows, columns]), device)
}

#[test]
fn multi_head_attention_has_burns_gradients() {
    let device = seeded();
    let attention = || MultiHeadAttentionConfig::new(6, 2).with_dropout(0.0);
    type Mha = MultiHeadAttention;
    check("plain", attention().init(&device), |layer: &Mha, x| {
        layer.forward(MhaInput::self_attn(x)).context
    });
    check("causal", attention().init(&device), |layer: &Mha, x| {
        let mask = generate_autoregressive_mask(3, 5, &x.device());
        layer.forward(MhaInput::self_attn(x).mask_attn(mask)).context
    });
    check("causal and padding", attention().init(&device), |layer: &Mha, x| {
        let mask = generate_autoregressive_mask(3, 5, &x.device());
        let pad = padding(3, 5, &x.device());
        layer.forward(MhaInput::self_attn(x).mask_attn(mask).mask_pad(pad)).context
    });
    check("quiet", attention().with_quiet_softmax(true).init(&device), |layer: &Mha, x| {
        layer.forward(MhaInput::self_attn(x)).context
    });
    check("cross", attention().init(&device), |layer: &Mha, x| {
        let keys = x.clone().slice([0..3, 0..4]);
        layer.forward(MhaInput::new(x, keys.clone(), keys)).context
    });
}

#[test]
fn transformer_encoder_has_burns_gradients() {
    let device = seeded();
    for norm_first in [false, true] {
        let encoder = TransformerEncoderConfig::new(6, 8, 2, 3)
            .with_dropout(0.0)
            .with_norm_first(norm_first)
            .init(&device);
        check("TransformerEncoder", encoder, |layer: &TransformerEncoder, x| {
            let mask = generate_autoregressive_mask(3, 5, &x.device());
            let pad = padding(3, 5, &x.device());
            layer.forward(TransformerEncoderInput::new(x).mask_attn(mask).mask_pad(pad))
        });
    }
}

fn tokens<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D, Int> {
    let tokens: Vec<i64> =
        (0..dims.iter().product::<usize>() as i64).map(|at| at * 5 % 7).collect();
    Tensor::from_data(TensorData::new(tokens, dims), device)
}

#[test]
fn embedding_has_burns_gradients() {
    let model: Embedding = EmbeddingConfig::new(7, 4).init(&seeded());
    let loss = |model: &Embedding, x| weighted(model.forward(x));
    check_everywhere("Embedding", &model, &loss, |device| tokens([3, 5], device));
}

#[test]
fn cross_entropy_has_burns_gradients() {
    let device = seeded();
    let weights = Some(vec![1.0, 0.5, 2.0, 1.5, 0.2, 1.0, 3.0]);
    let plain = CrossEntropyLossConfig::new();
    let losses = [
        ("plain", plain.clone()),
        ("padding", plain.clone().with_pad_tokens(Some(vec![0, 3]))),
        ("smoothing", plain.clone().with_smoothing(Some(0.1))),
        ("weights", plain.clone().with_weights(weights.clone())),
        ("probabilities", plain.clone().with_logits(false)),
        (
            "everything",
            plain.with_pad_tokens(Some(vec![2])).with_smoothing(Some(0.2)).with_weights(weights),
        ),
    ];
    for (name, config) in losses {
        let probabilities = !config.logits;
        let model = (linear(4, 7), config.init(&device));
        let loss = |(linear, loss): &(Linear, CrossEntropyLoss), (x, targets): Rows| {
            let logits = linear.forward(x);
            let logits = if probabilities { activation::softmax(logits, 1) } else { logits };
            loss.forward(logits, targets)
        };
        let batch =
            |device: &Device| (tensor(2, [9, 4], -1.0, 1.0).to_device(device), tokens([9], device));
        check_everywhere(name, &model, &loss, batch);
    }
}

type Rows = (Tensor<2>, Tensor<1, Int>);

#[test]
fn mean_squared_error_has_burns_gradients() {
    for (name, sum) in [("mean", false), ("sum", true)] {
        let loss = |model: &Linear, (x, y): (Tensor<2>, Tensor<2>)| {
            let reduction = if sum { Reduction::Sum } else { Reduction::Mean };
            MseLoss::new().forward(model.forward(x), y, reduction)
        };
        let batch = |device: &Device| {
            let make = |seed| tensor(seed, [5, 4], -1.0, 1.0).to_device(device);
            (make(1), make(2))
        };
        check_everywhere(name, &linear(4, 4), &loss, batch);
    }
}
