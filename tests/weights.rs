//! Promise: a loss that is a sum with a weight trains as Burn trains the whole batch, however the
//! batch is cut; a loss that depends on the cut is found and refused.

#[path = "common/distance.rs"]
mod distance;
#[path = "common/families.rs"]
mod families;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use distance::assert_close;
use families::families;
use zerobubble::plan::ONE_F_ONE_B;
use zerobubble::train::TrainerBuilder;
use zerobubble::{IntoLoss, Loss, OnNan, Sgd, Trainer};

const ROWS: usize = 2;
const MICROBATCHES: usize = 4;
const CLASSES: usize = 3;
const RATE: f64 = 0.5;

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
    third: Linear,
    last: Linear,
}

type Labelled = (Tensor<2>, Tensor<1, Int>);

fn numbers(rows: usize, columns: usize, salt: usize) -> Tensor<2> {
    let number = |at: usize| ((at * 37 + salt * 11) % 41) as f32 / 20.5 - 1.0;
    let values: Vec<f32> = (0..rows * columns).map(number).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
}

impl Net {
    fn new() -> Self {
        let linear = |from, to, salt| Linear {
            weight: Param::from_tensor(numbers(from, to, salt)),
            bias: None,
        };
        Self {
            first: linear(4, 6, 1),
            second: linear(6, 6, 2),
            third: linear(6, 6, 5),
            last: linear(6, CLASSES, 3),
        }
    }

    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let h = activation::tanh(self.first.forward(x));
        let h = activation::tanh(self.second.forward(h));
        self.last.forward(activation::tanh(self.third.forward(h)))
    }

    /// Cross-entropy whose classes weigh 1, 5 and 0.
    fn weighted(&self, (x, targets): Labelled) -> Loss {
        let weights = Tensor::<1>::from_floats([1.0, 5.0, 0.0], &x.device());
        let weights = weights.select(0, targets.clone());
        let logs = activation::log_softmax(self.logits(x), 1);
        let picked = logs.gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1);
        Loss::weighted((picked * weights.clone()).sum().neg(), weights.sum())
    }

    /// The same of a whole batch.
    fn whole(&self, batch: Labelled) -> Tensor<1> {
        let (x, targets) = batch;
        let weights = Tensor::<1>::from_floats([1.0, 5.0, 0.0], &x.device());
        let weights = weights.select(0, targets.clone());
        let logs = activation::log_softmax(self.logits(x), 1);
        let picked = logs.gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1);
        (picked * weights.clone()).sum().neg() / weights.sum()
    }

    /// Burn's own loss, which divides by what the classes of its batch weigh.
    fn cross_entropy(&self, (x, targets): Labelled) -> Tensor<1> {
        let loss = CrossEntropyLossConfig::new().with_weights(Some(vec![1.0, 5.0, 0.5]));
        let loss = loss.init(&x.device());
        loss.forward(self.logits(x), targets)
    }
}

/// The first microbatch is all of the class that weighs nothing.
fn batch(step: usize, microbatches: usize) -> Labelled {
    let rows = ROWS * microbatches;
    let class = |row: usize| if row < ROWS { 2 } else { ((row * 5 + step) % CLASSES) as i64 };
    let targets = TensorData::new((0..rows).map(class).collect::<Vec<_>>(), [rows]);
    (numbers(rows, 4, 7 * step), Tensor::from_data(targets, &Device::flex()))
}

fn example() -> Labelled {
    let (x, _) = batch(1, 1);
    (x, Tensor::from_data([0, 1], &Device::flex()))
}

/// Burn's own training on whole batches.
fn eager(steps: usize) -> Net {
    let mut sgd = SgdConfig::new().init();
    let mut model = Net::new().train();
    for step in 0..steps {
        let (x, targets) = batch(step, MICROBATCHES);
        let gradients = model.whole((x.autodiff(), targets.autodiff())).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = sgd.step(RATE, model, gradients);
    }
    model.valid()
}

fn trainer<R: IntoLoss>(
    devices: &str,
    loss: impl Fn(&Net, Labelled) -> R,
) -> TrainerBuilder<Net, Labelled, impl Fn(&Net, Labelled) -> R> {
    Trainer::of(Net::new(), loss)
        .devices(devices)
        .unwrap()
        .microbatches(MICROBATCHES as u32)
        .optimizer(Sgd::default())
        .learning_rate(RATE)
}

#[test]
fn a_weighted_loss_trains_as_burn_trains_the_whole_batch() {
    let expected = eager(3);
    for devices in ["cpu", "cpux2", "gpu:0x2"] {
        let mut hashes = Vec::new();
        let some = families().filter(|family| devices == "cpux2" || **family == ONE_F_ONE_B);
        for (family, clip_norm) in some.flat_map(|family| [(family, None), (family, Some(1e6))]) {
            let trainer = trainer(devices, |net: &Net, batch| net.weighted(batch));
            let mut trainer =
                trainer.clip_norm(clip_norm).schedule(family).build(&example()).unwrap();
            for step in 0..3 {
                let batch = batch(step, MICROBATCHES);
                let burns = trainer.model().unwrap().whole(batch.clone()).into_scalar::<f32>();
                let loss = trainer.evaluate(batch.clone()).unwrap();
                assert!((loss - f64::from(burns)).abs() < 1e-4, "{loss}, not {burns}");
                let report = trainer.step(batch).unwrap();
                assert!((report.loss - f64::from(burns)).abs() < 1e-4, "{}", report.loss);
                assert_eq!(report.losses[0], 0.0, "nothing of it weighs");
            }
            hashes.push(trainer.weights_hash().unwrap());
            assert_close(&trainer.into_module().unwrap(), &expected, 2e-4);
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "{devices}");
    }
}

#[test]
fn gradients_are_clipped_by_the_norm_of_the_whole_batch() {
    for (devices, post_validation) in [("cpux2", false), ("cpux2", true), ("gpu:0x2", true)] {
        let norm = |max_norm: f64| {
            let trainer = trainer(devices, |net: &Net, batch| net.weighted(batch));
            let trainer = trainer.clip_norm(max_norm).post_validation(post_validation);
            let mut trainer = trainer.build(&example()).unwrap();
            let norm = trainer.step(batch(0, MICROBATCHES)).unwrap().gradient_norm.unwrap();
            (norm, trainer.into_module().unwrap())
        };
        let (free, unclipped) = norm(1e6);
        let (same, clipped) = norm(free / 2.0);
        assert!((free - same).abs() < 1e-6 * free, "{free}, {same}");
        // Clipped to half, plain gradient descent goes half as far.
        let halfway = |at: &Net, to: &Net| Net {
            first: between(&at.first, &to.first),
            second: between(&at.second, &to.second),
            third: between(&at.third, &to.third),
            last: between(&at.last, &to.last),
        };
        assert_close(&clipped, &halfway(&Net::new(), &unclipped), 1e-5);
    }
}

fn between(a: &Linear, b: &Linear) -> Linear {
    let weight = (a.weight.val() + b.weight.val()) / 2.0;
    Linear { weight: Param::from_tensor(weight), bias: None }
}

#[test]
fn a_negative_weight_is_clipped_by_the_same_norm() {
    let norm = |sign: f64| {
        let loss = move |net: &Net, (x, _): Labelled| {
            let rows = x.dims()[0] as f64;
            let logits = net.logits(x);
            let weight = Tensor::<1>::full([1], sign * rows, &logits.device());
            (logits.powi_scalar(2).sum() * sign, weight)
        };
        let mut trainer = trainer("cpux2", loss).clip_norm(1e-3).build(&example()).unwrap();
        let norm = trainer.step(batch(0, MICROBATCHES)).unwrap().gradient_norm.unwrap();
        (norm, trainer.weights_hash().unwrap())
    };
    assert!(norm(1.0).0 > 0.0);
    assert_eq!(norm(1.0), norm(-1.0));
}

#[test]
fn a_batch_of_which_nothing_weighs_is_no_step() {
    let nothing = || {
        let rows = ROWS * MICROBATCHES;
        (numbers(rows, 4, 5), Tensor::full([rows], 2, &Device::flex()))
    };
    for devices in ["cpux2", "gpu:0x2"] {
        let build = |on_nan| {
            let trainer = trainer(devices, |net: &Net, batch| net.weighted(batch));
            trainer.on_nan(on_nan).build(&example()).unwrap()
        };
        let error = build(OnNan::Stop).step(nothing()).unwrap_err().to_string();
        assert!(error.contains("the weights of all microbatches are 0"), "{error}");
        let mut evaluating = build(OnNan::Stop);
        assert!(evaluating.evaluate(nothing()).unwrap().is_nan());
        let mut skipping = build(OnNan::Skip);
        let before = skipping.weights_hash().unwrap();
        assert!(skipping.step(nothing()).unwrap().skipped.is_some());
        assert_eq!(skipping.weights_hash().unwrap(), before);
    }
}

#[test]
fn a_loss_that_depends_on_how_a_batch_is_cut_is_refused_unless_it_is_meant() {
    let refused = |loss: fn(&Net, Labelled) -> Tensor<1>| {
        let (x, targets) = batch(2, 2);
        let error = trainer("cpux2", loss).build(&(x, targets)).unwrap_err().to_string();
        for part in ["mean of the losses of its parts", "(sum, weight)", "joint_loss"] {
            assert!(error.contains(part), "{error}");
        }
    };
    refused(|net, batch| net.cross_entropy(batch));
    refused(|net, (x, _)| net.logits(x).powi_scalar(2).sum());
    refused(|net, (x, _)| net.logits(x).powi_scalar(2).mean().sqrt());

    // A half of it is all padding.
    let padded = |net: &Net, (x, targets): Labelled| {
        let loss = CrossEntropyLossConfig::new().with_pad_tokens(Some(vec![2]));
        loss.init(&x.device()).forward(net.logits(x), targets)
    };
    let example = (numbers(4, 4, 7), Tensor::from_data([2, 2, 0, 1], &Device::flex()));
    let error = trainer("cpux2", padded).build(&example).unwrap_err().to_string();
    assert!(error.contains("mean of the losses of its parts"), "{error}");

    let pair = |net: &Net, (x, _): Labelled| {
        let rows = x.dims()[0] as f64;
        let logits = net.logits(x);
        let weight = Tensor::<1>::full([1], rows, &logits.device());
        (logits.powi_scalar(2).sum(), weight)
    };
    trainer("cpux2", pair).build(&self::example()).unwrap();
    let joint = trainer("cpux2", |net: &Net, batch| net.cross_entropy(batch)).joint_loss(true);
    joint.build(&batch(2, 2)).unwrap();
}
