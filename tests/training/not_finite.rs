//! A step whose loss is no number leaves no trace, where it is asked for.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use zerobubble::error::ErrorKind;
use zerobubble::plan::{GPIPE, ONE_F_ONE_B, Schedule, ZB_H1, ZB_V};
use zerobubble::train::{AdamW, Checkpoints, Momentum, Optimizer, Sgd, Trainer, TrainerBuilder};
use zerobubble::{Error, OnNan};

const MICROBATCHES: usize = 3;
const ROWS: usize = 2;
const WIDTH: usize = 6;

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let y = self.layers.iter().fold(x.clone(), |x, layer| activation::tanh(layer.forward(x)));
        (y - x).powi_scalar(2).mean()
    }
}

fn mlp() -> Mlp {
    let layer = |_| LinearConfig::new(WIDTH, WIDTH).init(&Device::flex());
    Mlp { layers: (0..5).map(layer).collect() }
}

/// A batch in which one element of one microbatch is `poison`, if there is any.
fn batch(step: usize, rows: usize, poison: Option<f32>) -> Tensor<2> {
    let value = |at: usize| ((at * 7 + step * 5) % 13) as f32 / 6.5 - 1.0;
    let mut values: Vec<f32> = (0..rows * WIDTH).map(value).collect();
    if let Some(poison) = poison {
        values[WIDTH * ROWS + 1] = poison;
    }
    Tensor::from_data(TensorData::new(values, [rows, WIDTH]), &Device::flex())
}

fn builder(
    model: &Mlp,
) -> TrainerBuilder<Mlp, Tensor<2>, impl Fn(&Mlp, Tensor<2>) -> Tensor<1> + use<>> {
    let loss = |model: &Mlp, x| model.loss(x);
    Trainer::of(model.clone(), loss).microbatches(MICROBATCHES as u32).learning_rate(1e-2)
}

/// Four steps, with a bad batch before the third; the hash of the weights.
fn trained(
    builder: TrainerBuilder<Mlp, Tensor<2>, impl Fn(&Mlp, Tensor<2>) -> Tensor<1>>,
    poison: Option<f32>,
) -> String {
    let mut trainer = builder.on_nan(OnNan::Skip).build(&batch(0, ROWS, None)).unwrap();
    let rows = ROWS * MICROBATCHES;
    for step in 0..4 {
        if step == 2 && poison.is_some() {
            let before = trainer.weights_hash().unwrap();
            let report = trainer.step(batch(step, rows, poison)).unwrap();
            check(report.skipped.as_ref().expect("it is skipped"), &["step 3", "stage "]);
            assert!(!report.loss.is_finite(), "{}", report.loss);
            assert!(report.losses[0].is_finite() && report.losses[2].is_finite());
            assert!(report.peak_bytes.iter().all(|&bytes| bytes > 0));
            assert_eq!(trainer.weights_hash().unwrap(), before);
        }
        let report = trainer.step(batch(step, rows, None)).unwrap();
        assert!(report.skipped.is_none() && report.loss.is_finite());
    }
    trainer.weights_hash().unwrap()
}

#[track_caller]
fn check(error: &Error, expected: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind, ErrorKind::NotFinite, "{text}");
    for part in expected {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_skipped_step_is_as_if_it_had_not_been() {
    let model = mlp();
    let momentum = Some(Momentum::default());
    let sgd = Sgd { momentum, ..Sgd::default() };
    let optimizers: [Optimizer; 2] = [AdamW::default().into(), sgd.into()];
    let schedules: [Schedule; 5] = [
        (&GPIPE).into(),
        (&ONE_F_ONE_B).into(),
        (&ZB_H1).into(),
        (&ZB_V).into(),
        Schedule::Dynamic,
    ];
    for (unit, two) in [("cpu", "cpux2"), ("gpu:0", "gpu:0x2")] {
        for optimizer in optimizers {
            let on = |devices| builder(&model).optimizer(optimizer).devices(devices).unwrap();
            let expected = trained(on(unit), None);
            for schedule in &schedules {
                for poison in [f32::INFINITY, f32::NAN] {
                    let found = trained(on(two).schedule(schedule.clone()), Some(poison));
                    assert_eq!(found, expected, "{two}, {schedule}, {poison}");
                }
            }
        }
    }
}

#[test]
fn without_skipping_the_run_ends() {
    let model = mlp();
    for devices in ["cpux2", "gpu:0x2"] {
        let builder = builder(&model).devices(devices).unwrap();
        let mut trainer = builder.build(&batch(0, ROWS, None)).unwrap();
        let bad = batch(0, ROWS * MICROBATCHES, Some(f32::NAN));
        check(&trainer.step(bad).unwrap_err(), &["step 1", "stage 0", "NaN"]);
        let later = trainer.step(batch(1, ROWS * MICROBATCHES, None)).unwrap_err();
        assert!(later.to_string().contains("stopped"), "{later}");
    }
}

/// A loss of 0 for an input of zeros, where the root has no gradient.
fn root_mean_square(layers: &[Linear; 3], x: Tensor<2>) -> Tensor<1> {
    let y = layers.iter().fold(x, |x, layer| layer.forward(x));
    y.clone().mul(y).mean().sqrt()
}

#[test]
fn gradients_that_are_not_finite_show_in_their_norm() {
    let layer = |_| LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(&Device::flex());
    let model: [Linear; 3] = std::array::from_fn(layer);
    let rows = ROWS * MICROBATCHES;
    let bad = || batch(0, rows, None).slice_fill([ROWS..2 * ROWS, 0..WIDTH], 0.0);
    let build = |devices: &str, post_validation, on_nan| {
        Trainer::of(model.clone(), |model: &[Linear; 3], x| root_mean_square(model, x))
            .devices(devices)
            .unwrap()
            .microbatches(MICROBATCHES as u32)
            .clip_norm(1e-3)
            .post_validation(post_validation)
            .on_nan(on_nan)
            .joint_loss(true)
            .build(&batch(0, ROWS, None))
            .unwrap()
    };
    for (devices, post_validation) in
        [("cpux3", false), ("cpux3", true), ("gpu:0x2", false), ("gpu:0x2", true)]
    {
        let mut never = build(devices, false, OnNan::Stop);
        let mut trainer = build(devices, post_validation, OnNan::Skip);
        for step in 0..3 {
            if step == 1 {
                let report = trainer.step(bad()).unwrap();
                assert!(report.loss.is_finite());
                assert!(report.gradient_norm.is_some_and(f64::is_nan), "{devices}");
                check(report.skipped.as_ref().expect("it is skipped"), &["step 2", "norm"]);
            }
            never.step(batch(step, rows, None)).unwrap();
            trainer.step(batch(step, rows, None)).unwrap();
        }
        let hashes = [trainer, never].map(|mut trainer| trainer.weights_hash().unwrap());
        assert_eq!(hashes[0], hashes[1], "{devices}, post-validation: {post_validation}");
        let error = build(devices, post_validation, OnNan::Stop).step(bad()).unwrap_err();
        check(&error, &["step 1", "norm"]);
    }
}

#[test]
fn so_many_skipped_steps_in_a_row_end_the_run_with_the_last_good_checkpoint_named() {
    let model = mlp();
    let rows = ROWS * MICROBATCHES;
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let build = |max_skips| {
        let builder = builder(&model).on_nan(OnNan::Skip).max_skips(max_skips);
        builder.build(&batch(0, ROWS, None))
    };
    assert_eq!(build(0).unwrap_err().kind, ErrorKind::Config);
    let mut trainer = build(3).unwrap();
    let bad = |trainer: &mut Trainer<Mlp, Tensor<2>>| {
        trainer.step(batch(0, rows, Some(f32::NAN))).map(|report| report.skipped.is_some())
    };
    // A good step between bad ones begins the count anew.
    for _ in 0..3 {
        assert!(bad(&mut trainer).unwrap() && bad(&mut trainer).unwrap());
        trainer.step(batch(0, rows, None)).unwrap();
    }
    let saved = trainer.save(&checkpoints, &()).unwrap();
    assert!(bad(&mut trainer).unwrap() && bad(&mut trainer).unwrap());
    let error = bad(&mut trainer).unwrap_err();
    check(&error, &["3 steps in a row were skipped", "step 12", &saved.display().to_string()]);
}

#[test]
fn weights_that_are_not_finite_are_not_saved_and_the_run_goes_back() {
    let model = mlp();
    let rows = ROWS * MICROBATCHES;
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap().keep(1);
    let build = |rate| {
        let builder = builder(&model).optimizer(Sgd::default()).learning_rate(rate);
        builder.on_nan(OnNan::Skip).build(&batch(0, ROWS, None)).unwrap()
    };
    let mut trainer = build(1e-2);
    trainer.step(batch(0, rows, None)).unwrap();
    trainer.save(&checkpoints, &()).unwrap();
    let good = trainer.weights_hash().unwrap();
    trainer.set_learning_rate(f64::from(f32::MAX) * 1e3);
    trainer.step(batch(1, rows, None)).unwrap();
    let error = trainer.save(&checkpoints, &()).unwrap_err();
    check(&error, &["nothing is saved after step 2", "layers.0.bias has a value", "step-00000001"]);
    assert_eq!(checkpoints.steps().unwrap(), [1]);
    let newest = checkpoints.newest().unwrap();
    assert!(newest.skipped.is_empty());
    trainer.resume(&newest.checkpoint.unwrap()).unwrap();
    assert_eq!(trainer.weights_hash().unwrap(), good);
}
