//! Promise: every bug that a release or a review found stays repaired. Each has one test, with its
//! story.
//!
//! `gradients` compares loss and gradients with Burn's own, so that it succeeds is the test.

#[path = "common/families.rs"]
mod common;

use burn::module::{Module, Param};
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::module::deform_conv2d;
use burn::tensor::ops::DeformConvOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};
use common::families;
use zerobubble::plan::{Family, ONE_F_ONE_B, Schedule, ZB_H1};
use zerobubble::{AdamW, Trainer, gradients};

/// Two square matrices.
#[derive(Module, Debug)]
struct Two {
    first: Param<Tensor<2>>,
    second: Param<Tensor<2>>,
}

/// Numbers between 0.1 and 0.9. Burn's random numbers are one stream for all tests of a process.
fn numbers(rows: usize, columns: usize, salt: usize) -> Tensor<2> {
    let number = |at: usize| ((at * 37 + salt) % 41) as f32 / 41.0 * 0.8 + 0.1;
    let values: Vec<f32> = (0..rows * columns).map(number).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
}

fn two(width: usize) -> Two {
    Two {
        first: Param::from_tensor(numbers(width, width, 5)),
        second: Param::from_tensor(numbers(width, width, 12)),
    }
}

fn points(rows: usize, width: usize) -> Tensor<2> {
    numbers(rows, width, 20)
}

#[track_caller]
fn trains_as_burn_does(loss: impl Fn(&Two, Tensor<2>) -> Tensor<1>) {
    gradients(&two(4), &loss, &points(3, 4)).unwrap();
}

#[track_caller]
fn is_refused(loss: impl Fn(&Two, Tensor<2>) -> Tensor<1>, because: &str) {
    let error = gradients(&two(4), &loss, &points(3, 4)).unwrap_err().to_string();
    assert!(error.contains(because), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

/// Burn keeps the layout of a transposed operand in some elementwise ops. Writing a residual into
/// such a result took its elements in the wrong order.
#[test]
fn elementwise_ops_on_transposed_values_can_be_written_in_place() {
    trains_as_burn_does(|model, x| {
        let h = x.matmul(model.first.val());
        let t = h.clone().transpose();
        let [rows, columns] = t.dims();
        let other = model.second.val().slice([0..rows, 0..columns]);
        let a = t.clone().sin() + other.clone();
        let b = t.clone().clamp(0.3, 0.9) * other.clone();
        let c = t.clone().powi_scalar(2) + other.clone();
        let d = t.erf() * other;
        (a * b + c * d).mean()
    });
}

/// `detach` leaves no record on the capture device, and the loss is the same without it.
#[test]
fn a_model_that_detaches_is_refused() {
    is_refused(
        |model, x| {
            let h = x.matmul(model.first.val());
            (h.clone().detach() * h.matmul(model.second.val())).mean()
        },
        "detach",
    );
}

/// A table that is looked up by constant indices is a view of a parameter; used by two blocks, it
/// was taken for an activation that crosses.
#[test]
fn a_view_of_a_parameter_by_constant_indices_may_be_used_by_every_block() {
    trains_as_burn_does(|model, x| {
        let index = Tensor::<1, Int>::from_ints([2, 0, 1], &x.device());
        let table = model.second.val().select(0, index);
        let h = (x.matmul(model.first.val()) + table.clone()).tanh();
        let h = (h.matmul(model.first.val()) + table.clone()).tanh();
        (h.matmul(model.first.val()) * table).mean()
    });
}

/// A first stage that only compares a parameter has no gradient of it, and was made its owner.
#[test]
fn a_parameter_belongs_to_the_first_stage_that_has_a_gradient_of_it() {
    let loss = |model: &Two, x: Tensor<2>| {
        let mask = model.second.val().slice([0..3, 0..4]).greater_elem(0.5);
        let h = x.matmul(model.first.val()).mask_fill(mask, 0.0).tanh();
        let h = zerobubble::nn::boundary(h);
        h.matmul(model.second.val()).mean()
    };
    let train = |devices: &str| {
        let mut trainer = Trainer::of(two(4), loss)
            .devices(devices)
            .unwrap()
            .schedule(&ONE_F_ONE_B)
            .microbatches(2)
            .optimizer(AdamW::default())
            .build(&points(3, 4))
            .unwrap();
        for _ in 0..3 {
            trainer.step(points(6, 4)).unwrap();
        }
        trainer.weights_hash().unwrap()
    };
    assert_eq!(train("cpu"), train("cpux2"));
}

/// Activations that are infinite on purpose were taken for a run that diverged.
#[test]
fn a_mask_of_infinities_may_cross_stages() {
    trains_as_burn_does(|model, x| {
        let mask = x.clone().lower_elem(0.3);
        let mask = x.zeros_like().mask_fill(mask, f32::NEG_INFINITY);
        let h = zerobubble::nn::boundary(x.matmul(model.first.val()));
        let weights = burn::tensor::activation::softmax(h.matmul(model.second.val()) + mask, 1);
        (weights.clone() * weights).sum()
    });
}

/// Operations that the loss does not depend on were kept, and an unknown one refused the model.
#[test]
fn a_metric_beside_the_loss_is_not_trained() {
    trains_as_burn_does(|model, x| {
        let h = x.matmul(model.first.val());
        let loss = h.clone().matmul(model.second.val()).mean();
        let image: Tensor<4> = h.matmul(model.second.val()).unsqueeze();
        let [.., height, width] = image.dims();
        let offset = Tensor::zeros([1, 2, height, width], &image.device());
        let weight = Tensor::ones([1, 1, 1, 1], &image.device());
        let options = DeformConvOptions::new([1, 1], [0, 0], [1, 1], 1, 1);
        let _metric = deform_conv2d(image, offset, weight, None, None, options);
        loss
    });
}

/// Marks on the input or on the loss made a stage without work.
#[test]
fn marks_that_leave_a_block_without_work_are_an_error() {
    let product =
        |model: &Two, x: Tensor<2>| x.matmul(model.first.val()).matmul(model.second.val());
    is_refused(|model, x| product(model, zerobubble::nn::boundary(x)).mean(), "block 0");
    is_refused(|model, x| zerobubble::nn::boundary(product(model, x).mean()), "block 1");
}

/// An encoder whose output is averaged over its tokens.
#[derive(Module, Debug)]
struct Pooled {
    first: Linear,
    encoder: TransformerEncoder,
    head: Linear,
}

/// The gradient that its last stage sends is one that its W reads last: on a CPU device, B and W in
/// one action freed it before it was sent.
#[test]
fn a_gradient_that_w_reads_last_is_sent_by_an_action_of_b_and_w() {
    let device = Device::flex();
    let model = Pooled {
        first: LinearConfig::new(8, 8).init(&device),
        encoder: TransformerEncoderConfig::new(8, 16, 2, 5).with_dropout(0.0).init(&device),
        head: LinearConfig::new(8, 5).init(&device),
    };
    let loss = |model: &Pooled, x: Tensor<3>| {
        let h = model.encoder.forward(TransformerEncoderInput::new(model.first.forward(x)));
        model.head.forward(h.mean_dim(1).squeeze_dim::<2>(1)).powi_scalar(2).mean()
    };
    let batch = |rows: usize| numbers(rows * 16, 8, 3).reshape([rows, 16, 8]);
    let hash = |schedule: &'static Family| {
        let trainer = Trainer::of(model.clone(), loss).devices("cpux2").unwrap();
        let mut trainer =
            trainer.microbatches(4).schedule(schedule).build(&batch(2)).expect("it trains");
        trainer.step(batch(8)).unwrap();
        trainer.weights_hash().unwrap()
    };
    let expected = hash(&ZB_H1);
    for family in families() {
        assert_eq!(hash(family), expected, "{}", Schedule::from(family));
    }
}
