//! Burn's layers and losses: each is captured, computes the module's own loss, and has Burn's
//! gradients.

use burn::module::Module;
use burn::nn::attention::{
    MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::conv::{
    Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig,
    ConvTranspose3dConfig, DeformConv2dConfig,
};
use burn::nn::interpolate::{Interpolate1dConfig, Interpolate2dConfig, InterpolateMode};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::pool::{
    AdaptiveAvgPool1dConfig, AdaptiveAvgPool2dConfig, AdaptiveAvgPool3dConfig, AvgPool1dConfig,
    AvgPool2dConfig, MaxPool1dConfig, MaxPool2dConfig,
};
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{
    Embedding, EmbeddingConfig, Fold4dConfig, Gelu, GroupNormConfig, InstanceNormConfig,
    LayerNormConfig, LeakyReluConfig, Linear, LinearConfig, LinearLayout, Relu, RmsNormConfig,
    RotaryEncodingConfig, Sigmoid, SwiGluConfig, Tanh, Unfold4dConfig,
};
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
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

#[test]
fn layers_of_rows_have_burns_gradients() {
    let device = seeded();
    let same = PaddingConfig1d::Same;
    let conv = Conv1dConfig::new(5, 4, 3).with_padding(same).init(&device);
    check("Conv1d", conv, |layer, x| layer.forward(x));
    let grouped = Conv1dConfig::new(5, 10, 2).with_groups(5).with_dilation(2).with_bias(false);
    check("Conv1d, depthwise", grouped.init(&device), |layer, x| layer.forward(x));
    let transposed = ConvTranspose1dConfig::new([5, 4], 3).with_stride(2).with_padding_out(1);
    check("ConvTranspose1d", transposed.init(&device), |layer, x| layer.forward(x));
    check("MaxPool1d", MaxPool1dConfig::new(2).init(), |layer, x| layer.forward(x));
    check("AvgPool1d", AvgPool1dConfig::new(3).with_stride(1).init(), |layer, x| layer.forward(x));
    let adaptive = AdaptiveAvgPool1dConfig::new(4).init();
    check("AdaptiveAvgPool1d", adaptive, |layer, x| layer.forward(x));
}

/// Checks a layer on volumes `[3, 2, 5, 3, 1]` behind a linear one.
fn check_volumes<L: Module>(name: &str, layer: L, forward: impl Fn(&L, Tensor<5>) -> Tensor<5>) {
    check(name, layer, |layer, x| {
        forward(layer, x.reshape([3, 2, 5, 3, 1])).flatten::<4>(3, 4).flatten(1, 2)
    });
}

#[test]
fn layers_of_volumes_have_burns_gradients() {
    let device = seeded();
    let same = PaddingConfig3d::Same;
    let conv = Conv3dConfig::new([2, 3], [3, 3, 1]).with_padding(same).init(&device);
    check_volumes("Conv3d", conv, |layer, x| layer.forward(x));
    let grouped = Conv3dConfig::new([2, 4], [2, 2, 1]).with_groups(2).with_stride([2, 1, 1]);
    check_volumes("Conv3d, depthwise", grouped.init(&device), |layer, x| layer.forward(x));
    let transposed = ConvTranspose3dConfig::new([2, 3], [3, 2, 2]).with_stride([2, 1, 3]);
    check_volumes("ConvTranspose3d", transposed.init(&device), |layer, x| layer.forward(x));
    let adaptive = AdaptiveAvgPool3dConfig::new([2, 3, 1]).init();
    check_volumes("AdaptiveAvgPool3d", adaptive, |layer, x| layer.forward(x));
}

#[test]
fn layers_that_resize_have_burns_gradients() {
    use InterpolateMode::{Cubic, Lanczos, Linear as Bilinear, Nearest};
    for mode in [Nearest, Bilinear, Cubic] {
        for corners in [false, true] {
            let rows = Interpolate1dConfig::new().with_mode(mode.clone());
            let rows = rows.with_align_corners(corners).with_output_size(Some(9)).init();
            let name = format!("Interpolate1d, {mode:?}, {corners}");
            check(&name, rows, |layer, x| layer.forward(x));
            let images = Interpolate2dConfig::new().with_mode(mode.clone());
            let images = images.with_align_corners(corners).with_scale_factor(Some([2.0, 1.5]));
            let name = format!("Interpolate2d, {mode:?}, {corners}");
            check_images(&name, images.init(), |layer, x| layer.forward(x));
        }
    }
    // Burn's host device has no gradient for this mode, but a batch needs none.
    let lanczos = Interpolate2dConfig::new().with_mode(Lanczos).with_output_size(Some([7, 4]));
    let lanczos = lanczos.init();
    let loss = |model: &Linear, x: Tensor<4>| weighted(model.forward(lanczos.forward(x)));
    let batch = |device: &Device| tensor(4, [2, 3, 3, 6], -1.0, 1.0).to_device(device);
    check_everywhere("Interpolate2d, Lanczos", &linear(4, 2), &loss, batch);
}

#[test]
fn layers_of_windows_have_burns_gradients() {
    let plain = Unfold4dConfig::new([2, 2]).init();
    check("Unfold4d", plain, |layer, x| layer.forward(x.reshape([3, 5, 2, 3])));
    let padded = Unfold4dConfig::new([2, 3]).with_padding([1, 0]).with_stride([2, 1]);
    check("Unfold4d, padding", padded.init(), |layer, x| layer.forward(x.reshape([3, 5, 2, 3])));
    let fold = Fold4dConfig::new([4, 3], [2, 2]).init();
    check("Fold4d", fold, |layer, x| {
        let columns = x.swap_dims(1, 2).reshape([3, 5, 6]);
        let columns = Tensor::cat(vec![columns.clone(), columns.clone() * 2.0, columns.sin()], 1);
        layer.forward(columns.slice([0..3, 0..12])).flatten(1, 2)
    });
    let deformed = DeformConv2dConfig::new([5, 4], [2, 2]).init(&seeded());
    check_images("DeformConv2d", deformed, |layer, x| {
        let offset = x.clone().slice([0..3, 0..4, 0..1, 0..2]);
        let offset = Tensor::cat(vec![offset.clone(), offset.sin()], 1);
        layer.forward(x, offset, None)
    });
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
