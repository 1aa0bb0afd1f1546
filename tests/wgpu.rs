//! Promise: GPUs train as CPU devices do, with the same bits on any number of queues; memory is
//! what was predicted; what fails says so at once.

#[path = "common/families.rs"]
mod families;
#[path = "common/precisions.rs"]
mod precisions;
#[path = "common/tokens.rs"]
mod tokens;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData, s};
use families::families;
use precisions::precisions;
use tokens::{Tokens, tokens};
use zerobubble::error::ErrorKind;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::{Family, GPIPE, ONE_F_ONE_B, Schedule, StageId, ZB_H1, ZB_H2, ZB_V};
use zerobubble::train::{AdamW, Momentum, Precision, Sgd, TrainerBuilder};
use zerobubble::{Balance, Error, Result, Trainer};

const VOCABULARY: usize = 23;
const CONTEXT: usize = 8;
const ROWS: usize = 2;
const STEPS: u64 = 3;

/// The random numbers of Flex are one stream of the process, which all tests draw from.
static DRAWING: Mutex<()> = Mutex::new(());

fn gpt(dropout: f64, tied: bool) -> Gpt {
    let device = Device::flex();
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(3);
    let config = GptConfig::new(VOCABULARY, CONTEXT, 3, 16, 2);
    config.with_dropout(dropout).with_tied(tied).init(&device)
}

fn batch(step: u64, rows: usize) -> Tokens {
    tokens(step, 0..rows, CONTEXT, VOCABULARY)
}

fn builder(model: &Gpt) -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>> {
    Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .learning_rate(1e-2)
        .seed(5)
}

fn has_halves() -> bool {
    precisions().contains(&Precision::F16)
}

fn losses(trainer: &mut Trainer<Gpt, Tokens>, steps: u64, microbatches: usize) -> Vec<f64> {
    (0..steps).map(|step| trainer.step(batch(step, ROWS * microbatches)).unwrap().loss).collect()
}

#[test]
fn weights_are_the_same_bits_for_every_number_of_queues_and_schedule() {
    let model = gpt(0.1, true);
    let hash = |devices: &str, schedule: Schedule, microbatches, activations| {
        let mut trainer = builder(&model)
            .devices(devices)
            .unwrap()
            .schedule(schedule)
            .microbatches(microbatches)
            .activations(activations)
            .build(&batch(0, ROWS))
            .unwrap();
        losses(&mut trainer, STEPS, microbatches as usize);
        trainer.weights_hash().unwrap()
    };
    for microbatches in [1, 3, 8] {
        let expected = hash("gpu:0", (&GPIPE).into(), microbatches, Precision::F32);
        let folded = ("gpu:0", &ZB_V);
        let queues = ["gpu:0x2", "gpu:0x3"].into_iter();
        for (devices, family) in
            queues.flat_map(|d| families().map(move |f| (d, f))).chain([folded])
        {
            let found = hash(devices, family.into(), microbatches, Precision::F32);
            assert_eq!(found, expected, "{devices}, {family}, m={microbatches}");
        }
        let found = hash("gpu:0x2", Schedule::Dynamic, microbatches, Precision::F32);
        assert_eq!(found, expected, "dynamic, m={microbatches}");
        if !has_halves() {
            continue;
        }
        let expected = hash("gpu:0", (&GPIPE).into(), microbatches, Precision::F16);
        for (devices, family) in [("gpu:0x2", &ZB_V), ("gpu:0x3", &ZB_H1)] {
            let found = hash(devices, family.into(), microbatches, Precision::F16);
            assert_eq!(found, expected, "{devices}, {family}, m={microbatches}, f16");
        }
    }
}

#[test]
fn losses_are_those_of_cpu_devices() {
    let (model, microbatches) = (gpt(0.1, true), 3);
    let curve = |devices: &str| {
        let builder = builder(&model).devices(devices).unwrap().microbatches(microbatches);
        losses(&mut builder.build(&batch(0, ROWS)).unwrap(), 20, microbatches as usize)
    };
    let expected = curve("cpu");
    for devices in ["gpu:0", "gpu:0x2,cpu", "cpu,gpu:0"] {
        for (step, (found, expected)) in curve(devices).iter().zip(&expected).enumerate() {
            let apart = (found - expected).abs() / expected;
            assert!(apart <= 1e-3, "{devices}: step {step}: {found}, on the CPU {expected}");
        }
    }
}

/// What is stored as a half is off by 2^-11 of itself at most, and what a residual stream of three
/// blocks adds up of such errors is a few times that. Training does not let it grow in 20 steps.
#[test]
fn losses_with_halves_are_those_with_floats_to_a_percent() {
    if !has_halves() {
        return;
    }
    let model = gpt(0.1, true);
    let curve = |activations| {
        let builder = builder(&model).devices("gpu:0x2").unwrap().microbatches(3);
        let trainer = builder.activations(activations).build(&batch(0, ROWS));
        losses(&mut trainer.unwrap(), 20, 3)
    };
    let (found, expected) = (curve(Precision::F16), curve(Precision::F32));
    assert_ne!(found, expected, "nothing was rounded");
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let apart = (found - expected).abs() / expected;
        assert!(apart <= 1e-2, "step {step}: {found}, with floats {expected}");
    }
}

#[test]
fn stochastic_gradient_descent_is_that_of_cpu_devices() {
    let model = gpt(0.0, false);
    for momentum in
        [None, Some(Momentum::default()), Some(Momentum { nesterov: true, ..Default::default() })]
    {
        let curve = |devices: &str| {
            let sgd = Sgd { weight_decay: 1e-3, momentum, ..Sgd::default() };
            let builder = builder(&model).devices(devices).unwrap().microbatches(2).optimizer(sgd);
            losses(&mut builder.build(&batch(0, ROWS)).unwrap(), 5, 2)
        };
        for (found, expected) in curve("gpu:0").iter().zip(curve("cpu")) {
            assert!((found - expected).abs() <= 1e-4 * expected, "{found}, on the CPU {expected}");
        }
    }
}

#[test]
fn buffers_have_as_many_bytes_as_were_predicted() {
    let model = gpt(0.1, true);
    for devices in ["gpu:0", "gpu:0x2", "gpu:0x3"] {
        let schedules = families().map(Schedule::from).chain([Schedule::Dynamic]);
        let all = |s: Schedule| precisions().into_iter().map(move |p| (s.clone(), p));
        for (schedule, activations) in schedules.flat_map(all) {
            let mut trainer = builder(&model)
                .devices(devices)
                .unwrap()
                .schedule(schedule.clone())
                .microbatches(4)
                .activations(activations)
                .build(&batch(0, ROWS))
                .unwrap();
            let report = trainer.step(batch(0, ROWS * 4)).unwrap();
            let predicted: Vec<u64> =
                trainer.prediction().memory.iter().map(|memory| memory.peak_bytes()).collect();
            assert_eq!(report.peak_bytes, predicted, "{devices}, {schedule}, {activations}");
        }
    }
}

#[test]
fn halves_take_less_memory_and_nothing_else_takes_more() {
    if !has_halves() {
        return;
    }
    let model = gpt(0.0, true);
    for devices in ["gpu:0", "gpu:0x2", "gpu:0x3"] {
        let memory = |activations| {
            let builder = builder(&model).devices(devices).unwrap().microbatches(4);
            let trainer = builder.activations(activations).build(&batch(0, ROWS)).unwrap();
            trainer.prediction().memory.clone()
        };
        for (halves, floats) in memory(Precision::F16).iter().zip(memory(Precision::F32)) {
            let share = halves.peak_stash_bytes as f64 / floats.peak_stash_bytes as f64;
            // The rest of the stash is gradients that wait for W.
            assert!((0.5..0.8).contains(&share), "{devices}: {share} of the stash");
            assert!(halves.fixed_bytes <= floats.fixed_bytes, "{devices}");
        }
    }
}

#[test]
fn a_device_without_halves_is_refused_by_name() {
    let model = gpt(0.0, false);
    let refused = |builder: TrainerBuilder<_, _, _>, device| {
        let built = builder.activations(Precision::F16).build(&batch(0, ROWS));
        let Err(error) = built else { panic!("{device} is not refused") };
        check(&error, ErrorKind::Config, &[device, "f16", "`activations(f32)`"]);
    };
    // The first one without halves is named.
    let first = if has_halves() { "cpu:0" } else { "gpu:0" };
    for (devices, device) in [("cpux2", "cpu:0"), ("gpu:0,cpu", first), ("cpu,gpu:0", "cpu:0")] {
        refused(builder(&model).devices(devices).unwrap(), device);
    }
    refused(builder(&model).wgpu_devices(vec![opened(None)]), "wgpu:0");
}

#[test]
fn an_activation_above_the_largest_half_is_an_error_that_names_the_option() {
    if !has_halves() {
        return;
    }
    use burn::nn::{Linear, LinearConfig};
    let model = LinearConfig::new(8, 8).init(&Device::flex());
    let x = |rows: usize| Tensor::<2>::ones([rows, 8], &Device::flex());
    let step = |activations| {
        let loss = |model: &Linear, x| model.forward(model.forward(x) * 1e6).mean();
        let trainer = Trainer::of(model.clone(), loss).devices("gpu:0").unwrap().microbatches(2);
        trainer.activations(activations).build(&x(2)).unwrap().step(x(4))
    };
    assert!(step(Precision::F32).is_ok());
    let error = step(Precision::F16).unwrap_err();
    check(&error, ErrorKind::NotFinite, &["step 1", "`activations(f32)`"]);
}

#[test]
fn a_model_that_one_device_refuses_trains_on_two_to_the_same_bits() {
    let model = gpt(0.0, false);
    let build = |devices: &str, limit: Option<u64>| {
        let builder = builder(&model).devices(devices).unwrap().microbatches(3);
        builder.memory_limit_per_device(limit).build(&batch(0, ROWS))
    };
    let hash = |mut trainer: Trainer<Gpt, Tokens>| {
        losses(&mut trainer, STEPS, 3);
        trainer.weights_hash().unwrap()
    };
    let whole = build("gpu:0", None).unwrap();
    let needed = whole.prediction().memory[0].peak_bytes();
    let halves = build("gpu:0x2", None).unwrap();
    let largest = halves.prediction().memory.iter().map(|memory| memory.peak_bytes()).max();
    let limit = largest.unwrap();
    assert!(limit < needed, "a device of two holds less than one alone");
    let Err(error) = build("gpu:0", Some(limit)) else { panic!("it fits") };
    check(&error, ErrorKind::Plan, &[&needed.to_string(), &limit.to_string()]);
    let limited = hash(build("gpu:0x2", Some(limit)).unwrap());
    assert_eq!(limited, hash(halves));
    assert_eq!(limited, hash(whole));
}

#[track_caller]
fn check(error: &Error, kind: ErrorKind, expected: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind, kind, "{text}");
    assert!(!text.contains('\n'), "{text}");
    for part in expected.iter().chain(&["try: "]) {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_token_outside_of_the_vocabulary_names_the_action_that_met_it() {
    let model = gpt(0.0, false);
    let builder = builder(&model).devices("gpu:0x2").unwrap().microbatches(2);
    let mut trainer = builder.build(&batch(0, ROWS)).unwrap();
    let values = vec![VOCABULARY as i64; ROWS * 2 * CONTEXT];
    let data = TensorData::new(values, [ROWS * 2, CONTEXT]);
    let tokens = Tensor::from_data(data, &Device::flex());
    let error = trainer.step((tokens, batch(0, ROWS * 2).1)).unwrap_err();
    check(&error, ErrorKind::Data, &["index 23"]);
    assert_eq!(error.site.action.map(|action| action.stage), Some(StageId(0)), "{error}");
}

/// A device that the test can take away, with a limit on the bytes of a buffer.
fn opened(buffer_bytes: Option<u64>) -> (wgpu::Device, wgpu::Queue) {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let adapter = adapters.into_iter().next().expect("these tests need a GPU or software Vulkan");
    let mut limits = adapter.limits();
    if let Some(bytes) = buffer_bytes {
        limits.max_storage_buffer_binding_size = bytes;
    }
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).unwrap()
}

#[test]
fn a_device_that_disappears_ends_the_step_within_a_second() {
    let model = gpt(0.0, false);
    for lost in 0..2 {
        let devices: Vec<_> = (0..2).map(|_| opened(None)).collect();
        let handle = devices[lost].0.clone();
        let builder = builder(&model).wgpu_devices(devices).microbatches(4);
        let mut trainer = builder.build(&batch(0, ROWS)).unwrap();
        losses(&mut trainer, 2, 4);
        handle.destroy();
        let start = Instant::now();
        let error = trainer.step(batch(2, ROWS * 4)).unwrap_err();
        drop(trainer);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}: {error}", start.elapsed());
        check(&error, ErrorKind::Run, &[&format!("wgpu:{lost}"), "lost"]);
    }
}

#[test]
fn a_device_that_disappears_while_it_computes_ends_the_step() {
    let model = gpt(0.0, false);
    let device = opened(None);
    let handle = device.0.clone();
    let builder = builder(&model).wgpu_devices(vec![device]).microbatches(8);
    let mut trainer = builder.build(&batch(0, ROWS)).unwrap();
    losses(&mut trainer, 1, 8);
    let killer = std::thread::spawn(move || handle.destroy());
    let steps: Result<Vec<_>> = (1..2000).map(|step| trainer.step(batch(step, ROWS * 8))).collect();
    killer.join().unwrap();
    check(&steps.unwrap_err(), ErrorKind::Run, &["wgpu:0"]);
}

#[test]
fn a_tensor_above_the_adapters_limit_is_named_with_its_bytes() {
    let model = gpt(0.0, false);
    let builder = builder(&model).wgpu_devices(vec![opened(Some(2048))]).microbatches(2);
    let Err(error) = builder.build(&batch(0, ROWS)) else { panic!("it fits") };
    check(&error, ErrorKind::Run, &["stage 0: ", "parameter blocks.0.up.weight", "4096", "2048"]);
    // A block that is timed is no stage of the run.
    let builder = self::builder(&model).wgpu_devices(vec![opened(Some(2048))]).microbatches(2);
    let measured = builder.balance(Balance::Measured).build(&batch(0, ROWS));
    let Err(error) = measured else { panic!("it fits") };
    check(&error, ErrorKind::Run, &["module blocks.0.", "4096", "2048"]);
    assert!(error.site.stage.is_none(), "{error}");
}

#[test]
fn a_loss_that_is_no_number_names_the_step() {
    let model = gpt(0.0, false);
    let adamw = AdamW::default();
    let builder = builder(&model).devices("gpu:0x2").unwrap().microbatches(2).optimizer(adamw);
    let mut trainer = builder.learning_rate(1e30).build(&batch(0, ROWS)).unwrap();
    let error = (0..5).find_map(|step| trainer.step(batch(step, ROWS * 2)).err());
    check(&error.expect("it diverges"), ErrorKind::NotFinite, &["step "]);
}

/// Two products between which the model may be cut, on what `between` makes of the first one's
/// output.
fn two_products(
    between: impl Fn(Tensor<2>) -> Tensor<2> + Copy,
    loss: impl Fn(Tensor<2>) -> Tensor<1> + Copy,
    second: [usize; 2],
    transposed: bool,
) -> impl Fn(&str, &'static Family, Precision) -> (f64, String) {
    use burn::nn::LinearConfig;
    let device = Device::flex();
    let first = LinearConfig::new(8, 8).with_bias(false).init(&device);
    let second = LinearConfig::new(second[0], second[1]).with_bias(false).init(&device);
    let model = (first, second);
    move |devices, schedule, activations| {
        let x = |rows: usize| {
            let values: Vec<f32> = (0..rows * 8).map(|at| (at * 7 % 11) as f32 - 5.0).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows, 8]), &Device::flex())
        };
        type Pair = (burn::nn::Linear, burn::nn::Linear);
        let forward = move |model: &Pair, x: Tensor<2>| {
            let h = zerobubble::nn::boundary(between(x.matmul(model.0.weight.val())));
            let weight = model.1.weight.val();
            loss(h.matmul(if transposed { weight.transpose() } else { weight }))
        };
        let mut trainer = Trainer::of(model.clone(), forward)
            .devices(devices)
            .unwrap()
            .schedule(schedule)
            .activations(activations)
            .microbatches(2)
            .learning_rate(1e-2)
            .joint_loss(true)
            .build(&x(4))
            .unwrap();
        let losses: f64 = (0..3).map(|_| trainer.step(x(8)).unwrap().loss).sum();
        (losses, trainer.weights_hash().unwrap())
    }
}

#[test]
fn a_fused_backward_sends_its_gradient_before_w_uses_the_memory_again() {
    let loss = |y: Tensor<2>| (y.clone() * y).mean();
    let train = two_products(|h| h, loss, [32, 8], true);
    let (_, expected) = train("gpu:0x2", &ZB_H1, Precision::F32);
    for schedule in [&GPIPE, &ONE_F_ONE_B, &ZB_H2] {
        assert_eq!(train("gpu:0x2", schedule, Precision::F32).1, expected, "{schedule}");
    }
    assert_eq!(train("gpu:0", &GPIPE, Precision::F32).1, expected);
}

#[test]
fn a_reshaped_slice_crosses_with_its_own_size_and_a_sliced_loss_is_told() {
    let loss = |y: Tensor<2>| y.clone().mul(y).mean_dim(1).mean_dim(0).reshape([1]);
    let even = |h: Tensor<2>| h.slice(s![0..2]).reshape([1, 16]);
    let odd = |h: Tensor<2>| h.slice(s![0..1, 0..5]).reshape([1, 5]);
    let both = ["gpu:0", "gpu:0x2"];
    are_those_of_the_cpu(&two_products(even, loss, [16, 8], false), &both);
    are_those_of_the_cpu(&two_products(odd, loss, [5, 8], false), &both);
    let last = |y: Tensor<2>| y.clone().mul(y).mean_dim(1).squeeze_dim::<1>(1).slice(s![3..4]);
    are_those_of_the_cpu(&two_products(|h| h, last, [8, 8], false), &["gpu:0"]);
}

/// Losses, to rounding; and weights, with the same bits on all devices.
fn are_those_of_the_cpu(
    train: &impl Fn(&str, &'static Family, Precision) -> (f64, String),
    devices: &[&str],
) {
    let (expected, _) = train("cpu", &ZB_H1, Precision::F32);
    for activations in precisions() {
        let tolerance = if activations == Precision::F16 { 1e-2 } else { 1e-4 };
        let all = devices.iter().map(|devices| train(devices, &ZB_H1, activations));
        let (losses, hashes): (Vec<f64>, Vec<String>) = all.unzip();
        let apart = (losses[0] - expected).abs();
        assert!(apart <= tolerance * expected, "{activations}: {losses:?}, on the CPU {expected}");
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{activations}, {devices:?}");
    }
}
