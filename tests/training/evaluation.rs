//! An evaluation is the module's own inference, and leaves no trace in the training.

use burn::tensor::{Device, Tensor};
use zerobubble::error::ErrorKind;
use zerobubble::gpt::Gpt;
use zerobubble::plan::{Plan, Schedule, ZB_H1};
use zerobubble::train::{Precision, Recompute, Trainer};

use super::families::families;
use super::precisions::precisions;
use super::{ROWS, Tokens, batch, builder, gpt, steps};

/// More microbatches than a step has, and no multiple of them.
const EVALUATED: usize = 7 * ROWS;

fn eager(model: &Gpt) -> f64 {
    let (tokens, targets) = batch(50, 0..EVALUATED);
    f64::from(model.loss(tokens, targets).into_scalar::<f32>())
}

fn trainer(model: &Gpt, devices: &str, schedule: impl Into<Schedule>) -> Trainer<Gpt, Tokens> {
    builder(model, devices).schedule(schedule).build(&batch(0, 0..ROWS)).unwrap()
}

/// Stages of one device that are neighbours, and others that are not.
fn mixed() -> Plan {
    "schedule mixed\nmicrobatches 3\nplacement 0 0 1 0 1\n\
     device 0: 0F0 1F0 3F0 0F1 1F1 3F1 0F2 1F2 3F2 3BW0 1BW0 0BW0 3BW1 1BW1 0BW1 3BW2 1BW2 0BW2\n\
     device 1: 2F0 4F0 2F1 4F1 2F2 4F2 4BW0 2BW0 4BW1 2BW1 4BW2 2BW2\n"
        .parse()
        .unwrap()
}

/// Evaluates before, between and after steps; the hash of the weights at the end, and what devices
/// held.
fn with_evaluations(mut trainer: Trainer<Gpt, Tokens>, tolerance: f64) -> (String, Vec<u64>) {
    let mut peak_bytes = Vec::new();
    for step in 0..3 {
        let found = trainer.evaluate(batch(50, 0..EVALUATED)).unwrap();
        let expected = eager(&trainer.model().unwrap());
        assert!((found - expected).abs() <= tolerance, "step {step}: {found}, eager {expected}");
        peak_bytes = trainer.step(batch(step, 0..3 * ROWS)).unwrap().peak_bytes;
    }
    (trainer.weights_hash().unwrap(), peak_bytes)
}

#[test]
fn an_evaluation_is_the_modules_inference_and_changes_nothing_on_cpu_devices() {
    let model = gpt(0.3);
    let mut without = trainer(&model, "cpu", &ZB_H1);
    steps(&mut without, 0..3);
    let expected = without.weights_hash().unwrap();
    let schedules = families().map(Schedule::from).chain([Schedule::Dynamic, mixed().into()]);
    for schedule in schedules {
        for devices in ["cpux1", "cpux2", "cpux3"] {
            if matches!(schedule, Schedule::Fixed(_)) && devices != "cpux2" {
                continue;
            }
            let mut without = trainer(&model, devices, schedule.clone());
            let peak = without.step(batch(0, 0..3 * ROWS)).unwrap().peak_bytes;
            let (hash, held) = with_evaluations(trainer(&model, devices, schedule.clone()), 1e-5);
            assert_eq!(hash, expected, "{devices}, {schedule}");
            // Which order is dynamic's, and so what is held, depends on the time.
            if !matches!(schedule, Schedule::Dynamic) {
                assert_eq!(held, peak, "{devices}, {schedule}: bytes");
            }
        }
    }
}

#[test]
fn an_evaluation_is_the_modules_inference_and_changes_nothing_on_gpus() {
    let model = gpt(0.3);
    let mut without = trainer(&model, "gpu:0", &ZB_H1);
    steps(&mut without, 0..3);
    let expected = without.weights_hash().unwrap();
    let named: [(&str, Schedule); 6] = [
        ("gpu:0", (&ZB_H1).into()),
        ("gpu:0x3", (&ZB_H1).into()),
        ("gpu:0x2", (&zerobubble::plan::ZB_V).into()),
        ("gpu:0x2", (&zerobubble::plan::LOOPED_BFS).into()),
        ("gpu:0x2", Schedule::Dynamic),
        ("gpu:0x2", mixed().into()),
    ];
    for (devices, schedule) in named {
        let trainer = trainer(&model, devices, schedule.clone());
        let predicted: Vec<u64> =
            trainer.prediction().memory.iter().map(|memory| memory.peak_bytes()).collect();
        let (hash, held) = with_evaluations(trainer, 1e-4);
        assert_eq!(hash, expected, "{devices}, {schedule}");
        assert_eq!(held, predicted, "{devices}, {schedule}: bytes");
    }
    let both = trainer(&model, "cpu,gpu:0", &ZB_H1);
    with_evaluations(both, 1e-4);
    if precisions().contains(&Precision::F16) {
        let halves = builder(&model, "gpu:0x2").activations(Precision::F16);
        with_evaluations(halves.build(&batch(0, 0..ROWS)).unwrap(), 1e-2);
    }
}

#[test]
fn stages_that_compute_f_again_are_evaluated_as_all_others() {
    let model = gpt(0.3);
    for (devices, tolerance) in [("cpux2", 1e-5), ("gpu:0x2", 1e-4)] {
        for family in [&ZB_H1, &zerobubble::plan::ZB_V] {
            let build = || {
                let builder = builder(&model, devices).schedule(family);
                builder.recompute(Recompute::Stage).build(&batch(0, 0..ROWS)).unwrap()
            };
            let mut without = build();
            steps(&mut without, 0..2);
            let peak = without.step(batch(2, 0..3 * ROWS)).unwrap().peak_bytes;
            let found = with_evaluations(build(), tolerance);
            assert_eq!(found, (without.weights_hash().unwrap(), peak), "{devices}, {family}");
        }
    }
}

#[test]
fn what_cannot_be_evaluated_is_an_error_and_what_is_not_finite_a_loss_and_the_run_goes_on() {
    let mut trainer = trainer(&gpt(0.0), "cpux2", &ZB_H1);
    let error = trainer.evaluate(batch(0, 0..2 * ROWS + 1)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.to_string().contains("2 microbatches"), "{error}");
    steps(&mut trainer, 0..1);

    let linear = burn::nn::LinearConfig::new(3, 1).init(&Device::flex());
    let x = |value: f32| Tensor::<2>::full([4, 3], value, &Device::flex());
    let loss = |linear: &burn::nn::Linear, x| linear.forward(x).mean();
    let builder = Trainer::of(linear, loss).devices("cpu").unwrap().microbatches(2);
    let mut trainer = builder.build(&x(1.0).slice([0..2, 0..3])).unwrap();
    assert!(!trainer.evaluate(x(f32::INFINITY)).unwrap().is_finite());
    assert!(trainer.evaluate(x(f32::NAN)).unwrap().is_nan());
    trainer.step(x(1.0)).unwrap();
    assert!(trainer.evaluate(x(1.0)).unwrap().is_finite());
}
