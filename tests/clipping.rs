//! Promise: gradients are clipped by their global norm, with the same bits on any placement,
//! whether devices wait for the norm or update before they know it.

#[path = "common/batches.rs"]
mod batches;
#[path = "common/families.rs"]
mod families;
#[path = "clipping/order.rs"]
mod order;
#[path = "common/values.rs"]
mod values;

use batches::{CONTEXT, ROWS, Tokens, VOCABULARY, batch};
use burn::tensor::{Device, Tensor};
use families::families;
use values::values;
use zerobubble::error::ErrorKind;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::{Family, GPIPE, Schedule, ZB_H1, ZB_V, check, generate, read, to_csv};
use zerobubble::train::{Momentum, Sgd, TrainerBuilder};
use zerobubble::{Result, Trainer, gradients};

const STEPS: u64 = 4;
/// Below the norm of every step, and above.
const TIGHT: f64 = 0.05;
const LOOSE: f64 = 1e3;

/// Tied, so that a gradient travels before the norm is known.
fn gpt() -> Gpt {
    let device = Device::flex();
    device.seed(3);
    let config = GptConfig::new(VOCABULARY, CONTEXT, 3, 12, 2);
    config.with_dropout(0.1).with_tied(true).init(&device)
}

fn builder(model: &Gpt) -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>> {
    Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .learning_rate(1e-2)
        .seed(5)
}

/// How gradients are clipped.
#[derive(Debug, Clone, Copy)]
struct Clip(Option<f64>, bool);

const CLIPS: [Clip; 4] = [
    Clip(Some(LOOSE), false),
    Clip(Some(LOOSE), true),
    Clip(Some(TIGHT), false),
    Clip(Some(TIGHT), true),
];

fn hash(model: &Gpt, devices: &str, schedule: Schedule, microbatches: u32, clip: Clip) -> String {
    let mut trainer = builder(model)
        .devices(devices)
        .unwrap()
        .schedule(schedule)
        .microbatches(microbatches)
        .clip_norm(clip.0)
        .post_validation(clip.1)
        .build(&batch(0, 0..ROWS))
        .unwrap();
    for step in 0..STEPS {
        let report = trainer.step(batch(step, 0..ROWS * microbatches as usize)).unwrap();
        let norm = report.gradient_norm;
        let expected = clip.0.map(|limit| limit == TIGHT);
        assert_eq!(norm.map(|norm| norm > clip.0.unwrap()), expected, "{norm:?}");
    }
    trainer.weights_hash().unwrap()
}

/// A plan that went through a file of PyTorch's.
fn from_csv(family: &Family, devices: u32, microbatches: u32) -> Schedule {
    let plan = check(generate(family, devices, None, microbatches).unwrap()).unwrap();
    read(&to_csv(&plan)).unwrap().into()
}

/// Every way to a plan.
fn schedules(devices: u32, microbatches: u32) -> Vec<Schedule> {
    let others = [Schedule::Auto, Schedule::Dynamic, from_csv(&ZB_V, devices, microbatches)];
    families().map(Schedule::from).chain(others).collect()
}

#[test]
fn weights_are_the_same_bits_on_any_placement_with_and_without_post_validation() {
    let model = gpt();
    for microbatches in [1, 3] {
        let plain = hash(&model, "cpu", (&GPIPE).into(), microbatches, Clip(None, false));
        let clipped = hash(&model, "cpu", (&GPIPE).into(), microbatches, CLIPS[2]);
        assert_ne!(plain, clipped, "clipping did something");
        for devices in 1..=3 {
            for schedule in schedules(devices, microbatches) {
                for clip in CLIPS {
                    let names = format!("cpux{devices}");
                    let found = hash(&model, &names, schedule.clone(), microbatches, clip);
                    let expected = if clip.0 == Some(TIGHT) { &clipped } else { &plain };
                    assert_eq!(found, *expected, "{names}, {schedule}, m={microbatches}, {clip:?}");
                }
            }
        }
    }
}

#[test]
fn gpus_clip_to_the_same_bits_on_any_placement_with_and_without_post_validation() {
    let (model, microbatches) = (gpt(), 3);
    let plain = hash(&model, "gpu:0", (&GPIPE).into(), microbatches, Clip(None, false));
    let clipped = hash(&model, "gpu:0", (&GPIPE).into(), microbatches, CLIPS[2]);
    assert_ne!(plain, clipped, "clipping did something");
    let csv = from_csv(&ZB_V, 2, microbatches);
    let runs = [
        ("gpu:0", (&GPIPE).into(), &CLIPS[..]),
        ("gpu:0x2", (&ZB_H1).into(), &CLIPS[..]),
        ("gpu:0x2", csv, &CLIPS[3..]),
        ("gpu:0x2", Schedule::Auto, &CLIPS[3..]),
        ("gpu:0x2", Schedule::Dynamic, &CLIPS[3..]),
        ("gpu:0x3", (&ZB_V).into(), &CLIPS[1..]),
    ];
    for (devices, schedule, clips) in runs {
        for &clip in clips {
            let found = hash(&model, devices, schedule.clone(), microbatches, clip);
            let expected = if clip.0 == Some(TIGHT) { &clipped } else { &plain };
            assert_eq!(found, *expected, "{devices}, {schedule}, {clip:?}");
        }
    }
}

#[test]
fn the_norm_is_that_of_all_gradients_and_a_step_follows_the_scaled_ones() {
    let model = gpt();
    let loss = |model: &Gpt, (tokens, targets): Tokens| model.loss(tokens, targets);
    let ours = gradients(&model, &loss, &batch(0, 0..ROWS)).unwrap();
    let squares = ours.iter().flat_map(|(_, data)| data.iter::<f64>().map(|x| x * x));
    let expected = squares.sum::<f64>().sqrt();
    for devices in ["cpu", "cpux2", "gpu:0x2"] {
        let mut trainer = builder(&model)
            .devices(devices)
            .unwrap()
            .microbatches(1)
            .optimizer(Sgd::default())
            .learning_rate(1.0)
            .seed(0)
            .clip_norm(TIGHT)
            .build(&batch(0, 0..ROWS))
            .unwrap();
        let norm = trainer.step(batch(0, 0..ROWS)).unwrap().gradient_norm.unwrap();
        assert!((norm - expected).abs() <= 1e-5 * expected, "{devices}: {norm}, not {expected}");
        let moved = moved(&model, &trainer.into_module().unwrap());
        assert!((moved - TIGHT).abs() <= 1e-3 * TIGHT, "{devices}: a step of {moved}");
    }
}

/// How far two models' weights are apart.
fn moved(before: &Gpt, after: &Gpt) -> f64 {
    let elements = |model| values(model).into_iter().flatten().map(f64::from);
    let pairs = elements(before).zip(elements(after));
    pairs.map(|(before, after)| (before - after).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn what_an_update_is_undone_from_is_counted_to_the_byte() {
    let (model, microbatches) = (gpt(), 3);
    let momentum = Some(Momentum::default());
    let peaks = |post_validation| {
        let mut trainer = builder(&model)
            .devices("cpux2,gpu:0")
            .unwrap()
            .microbatches(microbatches)
            .optimizer(Sgd { momentum, ..Sgd::default() })
            .clip_norm(TIGHT)
            .post_validation(post_validation)
            .build(&batch(0, 0..ROWS))
            .unwrap();
        let step = |step| batch(step, 0..ROWS * microbatches as usize);
        trainer.step(step(0)).unwrap();
        let measured = trainer.step(step(1)).unwrap().peak_bytes;
        let memory = trainer.prediction().memory.iter();
        let predicted: Vec<u64> =
            memory.map(|memory| memory.fixed_bytes + memory.peak_stash_bytes).collect();
        assert_eq!(measured, predicted);
        predicted
    };
    let (without, with) = (peaks(false), peaks(true));
    assert!(without.iter().zip(&with).all(|(without, with)| without < with));
}

#[test]
fn settings_that_make_no_sense_say_what_does() {
    let model = gpt();
    let error = |clip: Clip| -> String {
        let built = builder(&model)
            .devices("cpu")
            .unwrap()
            .clip_norm(clip.0)
            .post_validation(clip.1)
            .build(&batch(0, 0..ROWS));
        built.expect_err("it is refused").to_string()
    };
    assert!(error(Clip(None, true)).contains("clip_norm"));
    for norm in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(error(Clip(Some(norm), false)).contains("a norm above 0"));
    }
}

/// Its loss is finite where its gradient is not.
#[test]
fn a_norm_that_is_not_finite_ends_the_step() -> Result<()> {
    let device = Device::flex();
    let layer = burn::nn::LinearConfig::new(2, 1).with_bias(false).init(&device);
    let loss = |layer: &burn::nn::Linear, x: Tensor<2>| layer.forward(x).sum().sqrt();
    let example = Tensor::<2>::from_floats([[1.0, 1.0]], &device);
    let layer = burn::nn::Linear {
        weight: burn::module::Param::from_tensor(Tensor::from_floats([[2.0], [2.0]], &device)),
        ..layer
    };
    for post_validation in [false, true] {
        let mut trainer = Trainer::of(layer.clone(), loss)
            .devices("cpu")?
            .microbatches(1)
            .clip_norm(1.0)
            .post_validation(post_validation)
            .build(&example)?;
        let error = trainer.step(Tensor::from_floats([[0.0, 0.0]], &device)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFinite, "{error}");
        assert!(error.to_string().contains("the norm of the gradients is"), "{error}");
    }
    Ok(())
}
