//! Promise: under a shadow every wrong value has a name, and no right one is reported.

#[path = "common/batches.rs"]
mod batches;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batches::{CONTEXT, ROWS, Tokens, VOCABULARY, batch};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation::tanh};
use zerobubble::compile::Accumulator;
use zerobubble::engine::{
    Compute, DispatchTensor, Engine, EngineDevice, EngineSetup, NullEngine, Observer, Outcome,
    OwnParameters, ParameterState, Parcel, PartialSums, StepInputs, Update, devices,
};
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::graph::{Elementwise, Op, ParameterId, Scalar};
use zerobubble::plan::{Action, BufferBytes, INTERLEAVED_1F1B, StageId, Work, ZB_H1, ZB_V};
use zerobubble::train::TrainerBuilder;
use zerobubble::{AdamW, Balance, Momentum, OnNan, Optimizer, Precision, Recompute, Sgd, Trainer};

const MICROBATCHES: u32 = 4;

fn gpt(devices: &str) -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>> {
    let device = Device::flex();
    device.seed(3);
    let config = GptConfig::new(VOCABULARY, CONTEXT, 4, 12, 2).with_dropout(0.1).with_tied(true);
    let loss = |model: &Gpt, (tokens, targets): Tokens| model.loss(tokens, targets);
    let trainer = Trainer::of(config.init(&device), loss).devices(devices).unwrap();
    trainer.microbatches(MICROBATCHES).learning_rate(1e-2)
}

/// The weights after some steps with evaluations in between.
fn trained(
    builder: TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>>,
    shadow: bool,
) -> String {
    let mut trainer = builder.shadow(shadow).build(&batch(0, 0..ROWS)).unwrap();
    for step in 0..2 {
        trainer.step(batch(step, 0..ROWS * MICROBATCHES as usize)).unwrap();
        assert!(trainer.evaluate(batch(7, 0..ROWS * 3)).unwrap().is_finite());
    }
    trainer.weights_hash().unwrap()
}

#[test]
fn what_is_right_trains_to_the_bits_that_it_has_without_a_shadow() {
    let momentum = |nesterov, weight_decay| {
        let momentum = Some(Momentum { nesterov, ..Momentum::default() });
        Sgd { momentum, weight_decay, ..Sgd::default() }
    };
    for devices in ["cpux2", "gpu:0x2"] {
        let plain = |shadow| trained(gpt(devices).schedule(&ZB_H1), shadow);
        assert_eq!(plain(true), plain(false), "{devices}");
        let clipped = gpt(devices).clip_norm(0.05).post_validation(true);
        trained(clipped.schedule(&ZB_V), true);
        trained(gpt(devices).recompute(Recompute::Stage).optimizer(momentum(false, 0.0)), true);
        trained(gpt(devices).schedule(&INTERLEAVED_1F1B).optimizer(momentum(true, 0.01)), true);
        trained(gpt(devices).optimizer(Sgd { weight_decay: 0.1, ..Sgd::default() }), true);
    }
    let halves = gpt("gpu:0").activations(Precision::F16);
    trained(halves, true);
}

/// A model whose layers are `tanh(x (1.5 w) 0.75)`, so that factors are in F, in B and in W.
#[derive(Module, Debug)]
struct Layers {
    weights: Vec<Param<Tensor<2>>>,
}

const WIDTH: usize = 8;

impl Layers {
    fn new(count: usize) -> Self {
        let weight = |at: usize| {
            let number = |i: usize| ((i * 29 + at * 7) % 31) as f32 / 40.0 - 0.35;
            let values: Vec<f32> = (0..WIDTH * WIDTH).map(number).collect();
            let data = TensorData::new(values, [WIDTH, WIDTH]);
            Param::from_tensor(Tensor::from_data(data, &Device::flex()))
        };
        Self { weights: (0..count).map(weight).collect() }
    }

    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let layer = |x: Tensor<2>, w: &Param<Tensor<2>>| tanh(x.matmul(w.val() * 1.5) * 0.75);
        self.weights.iter().fold(x, layer).square().mean()
    }
}

fn rows(count: usize) -> Tensor<2> {
    let values: Vec<f32> =
        (0..count * WIDTH).map(|i| ((i * 37) % 83) as f32 / 41.5 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [count, WIDTH]), &Device::flex())
}

/// What is wrong with a device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The first factor of this value in this work of its first stage is off by so many ulp.
    Factor(Work, f64, u32),
    /// Of the optimizer, one setting is off.
    Optimizer,
    /// One bit of what it is sent for one action is another.
    Arrival(Action),
    /// One bit of what it computed in one action is another when it is sent.
    Sending(Action),
    /// One bit of a weight changes after its second update.
    Memory,
}

/// A device that is all right but for one fault.
#[derive(Debug)]
struct Faulty(Box<dyn EngineDevice>, Fault);

struct FaultyEngine {
    inner: Box<dyn Engine>,
    fault: Fault,
    /// Of the actions under way.
    actions: VecDeque<Action>,
    updates: usize,
}

impl EngineDevice for Faulty {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn open(&mut self, activations: Precision) -> Result<()> {
        self.0.open(activations)
    }
    fn buffers(&self, setup: &EngineSetup) -> Option<BufferBytes> {
        self.0.buffers(setup)
    }
    fn engine(&mut self, mut setup: EngineSetup) -> Result<Box<dyn Engine>> {
        match self.1 {
            Fault::Factor(work, value, ulps) => {
                let mut split = (*setup.split).clone();
                let scale = Op::Elementwise(Elementwise::Scalar(Scalar::Multiply, value));
                let nodes = &mut split.joint.graph.nodes;
                let commands = &setup.stages[0].program.commands[work];
                let mut nodes_of = commands.iter().map(|command| command.task.node());
                let wrong = nodes_of.find(|id| nodes[id.index()].op == scale).expect("a factor");
                let off = f64::from(f32::from_bits((value as f32).to_bits() + ulps));
                let wrong = &mut nodes[wrong.index()].op;
                *wrong = Op::Elementwise(Elementwise::Scalar(Scalar::Multiply, off));
                setup.split = Arc::new(split);
            }
            Fault::Optimizer => {
                let Optimizer::AdamW(adamw) = &mut setup.rule.optimizer else { unreachable!() };
                adamw.beta_2 = 0.99901;
            }
            _ => {}
        }
        let inner = self.0.engine(setup)?;
        let actions = VecDeque::new();
        Ok(Box::new(FaultyEngine { inner, fault: self.1, actions, updates: 0 }))
    }
}

/// The same tensors with one bit of the first one's fourth element changed.
fn flipped(mut parcel: Parcel) -> Parcel {
    let mut data = Tensor::<2>::from_dispatch(parcel[0].clone()).into_data();
    data.as_mut_slice::<f32>().unwrap()[3] = {
        let old = data.iter::<f32>().nth(3).unwrap();
        f32::from_bits(old.to_bits() ^ 1)
    };
    parcel[0] = Tensor::<2>::from_data(data, &Device::flex()).into_dispatch();
    parcel
}

impl FaultyEngine {
    fn ended(&mut self, outcome: Option<Outcome>) -> Option<Outcome> {
        let mut outcome = outcome?;
        let action = self.actions.pop_front().expect("it was started");
        if self.fault == Fault::Sending(action) {
            outcome.parcel = flipped(outcome.parcel);
        }
        Some(outcome)
    }
}

impl Compute for FaultyEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        self.inner.begin_step(step, inputs)
    }
    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        self.actions.push_back(action);
        let wrong = self.fault == Fault::Arrival(action);
        let outcome = self.inner.start(action, if wrong { flipped(arrived) } else { arrived })?;
        Ok(self.ended(outcome))
    }
    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let outcome = self.inner.finish(timeout)?;
        Ok(self.ended(outcome))
    }
    fn observe(&mut self, observer: Observer) -> Result<()> {
        self.inner.observe(observer)
    }
}

impl OwnParameters for FaultyEngine {
    fn partial_sums(&mut self) -> PartialSums {
        self.inner.owner().partial_sums()
    }
    fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        self.inner.owner().reduce(sums)
    }
    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let shared = self.inner.owner().update(update)?;
        self.updates += 1;
        if self.fault == Fault::Memory && self.updates == 2 {
            let all: Vec<ParameterId> = (0..99).map(ParameterId).collect();
            let mut state = self.inner.owner().state(&all)?;
            state.sort_by_key(|(id, _)| *id);
            let (id, mut wrong) = state.remove(0);
            let value = flipped(vec![wrong.value]).remove(0);
            wrong.value = Tensor::<2>::from_dispatch(value).mul_scalar(1.001).into_dispatch();
            self.inner.owner().restore(&[(id, wrong)])?;
        }
        Ok(shared)
    }
    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        self.inner.owner().state(of)
    }
}

impl Engine for FaultyEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

/// The error of two devices of this kind, of which the second has a fault.
fn found(kind: &str, fault: Fault) -> Option<Error> {
    let mut two = devices(&format!("{kind}x2")).unwrap();
    let second = two.pop().expect("there are two");
    two.push(Box::new(Faulty(second, fault)));
    let loss = |layers: &Layers, x: Tensor<2>| layers.loss(x);
    let mut trainer = Trainer::of(Layers::new(6), loss)
        .custom_devices(two)
        .microbatches(3)
        .optimizer(AdamW::default())
        .schedule(&ZB_H1)
        // The fault is in a step, and nothing is to meet it before.
        .balance(Balance::Flops)
        .shadow(true)
        .build(&rows(4))
        .unwrap();
    (0..4).find_map(|_| trainer.step(rows(12)).err())
}

fn action(text: &str) -> Action {
    text.parse().expect("an action")
}

#[test]
fn a_wrong_bit_has_the_name_of_where_it_was_computed() {
    // The second device has stage 1, with layers 3 to 5. A GPU computes some of its factors in one
    // kernel with a product and a tanh, whose rounding hides a single bit.
    let factor = |work, value, ulps| Fault::Factor(work, value, ulps);
    for (kind, fault, at, named) in [
        ("cpu", factor(Work::F, 1.5, 1), "1F0", "= multiply 1.5 %"),
        ("cpu", factor(Work::F, 0.75, 1), "1F0", "= multiply 0.75 %"),
        ("cpu", factor(Work::B, 0.75, 1), "1B0", "= multiply 0.75 %"),
        ("cpu", factor(Work::W, 1.5, 1), "1W0", "= multiply 1.5 %"),
        ("gpu:0", factor(Work::F, 1.5, 1), "1F0", "= multiply 1.5 %"),
        ("gpu:0", factor(Work::F, 0.75, 1 << 8), "1F0", "multiply 0.75"),
        ("gpu:0", factor(Work::B, 0.75, 1 << 8), "1B0", "multiply 0.75"),
        ("gpu:0", factor(Work::W, 1.5, 1 << 8), "1W0", "multiply 1.5"),
        ("cpu", Fault::Arrival(action("1F2")), "1F2", "as it arrived"),
        ("gpu:0", Fault::Arrival(action("1F2")), "1F2", "as it arrived"),
        ("cpu", Fault::Sending(action("1B1")), "1B1", "as it was sent"),
        ("gpu:0", Fault::Sending(action("1B1")), "1B1", "as it was sent"),
    ] {
        let error = found(kind, fault).unwrap_or_else(|| panic!("{kind}, {fault:?}"));
        assert_eq!(error.site.step, Some(1), "{error}");
        assert_eq!(error.site.stage, Some(StageId(1)), "{error}");
        assert_eq!(error.site.action, Some(action(at)), "{error}");
        assert_eq!(error.site.module.as_deref(), Some("weights"), "{error}");
        let device = if kind == "cpu" { "on cpu:1" } else { "on gpu:0/1" };
        for part in [named, device, "by the reference"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn a_wrong_update_has_the_name_of_its_parameter() {
    for kind in ["cpu", "gpu:0"] {
        for (fault, step, named) in [
            (Fault::Optimizer, 1, "weights.3's moment 2 of the optimizer"),
            (Fault::Memory, 2, "weights.3 after its update"),
        ] {
            let error = found(kind, fault).unwrap_or_else(|| panic!("{kind}, {fault:?}"));
            assert_eq!(error.site.step, Some(step), "{error}");
            assert_eq!(error.site.stage, Some(StageId(1)), "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

#[test]
fn a_skipped_step_is_no_fault() {
    for kind in ["cpux2", "gpu:0x2"] {
        let loss = |layers: &Layers, x: Tensor<2>| layers.loss(x);
        let mut trainer = Trainer::of(Layers::new(6), loss)
            .devices(kind)
            .unwrap()
            .microbatches(3)
            .clip_norm(1e-4)
            .post_validation(true)
            .on_nan(OnNan::Skip)
            .shadow(true)
            .build(&rows(4))
            .unwrap();
        for step in 0..4 {
            let factor = if step % 2 == 1 { f32::NAN } else { 1.0 };
            let report = trainer.step(rows(12) * factor).unwrap();
            assert_eq!(report.skipped.is_some(), step % 2 == 1, "{kind}, step {step}");
        }
    }
}

#[test]
fn an_engine_that_shows_nothing_has_no_shadow() {
    #[derive(Debug)]
    struct Silent;
    impl EngineDevice for Silent {
        fn name(&self) -> &str {
            "silent:0"
        }
        fn engine(&mut self, _setup: EngineSetup) -> Result<Box<dyn Engine>> {
            Ok(Box::new(NullEngine))
        }
    }
    let loss = |layers: &Layers, x: Tensor<2>| layers.loss(x);
    let built = Trainer::of(Layers::new(2), loss).custom_devices(vec![Box::new(Silent)]);
    let error = built.shadow(true).build(&rows(4)).unwrap_err().to_string();
    assert!(error.contains("silent:0") && error.contains("Compute::observe"), "{error}");
}

#[test]
fn every_parameter_has_a_hash_of_its_own() {
    let hashes = |layers: Layers, devices: &str| {
        let loss = |layers: &Layers, x: Tensor<2>| layers.loss(x);
        let trainer = Trainer::of(layers, loss).devices(devices).unwrap().microbatches(3);
        let mut trainer = trainer.learning_rate(0.0).build(&rows(4)).unwrap();
        trainer.step(rows(12)).unwrap();
        trainer.weight_hashes().unwrap()
    };
    let expected = hashes(Layers::new(4), "cpu");
    let paths: Vec<&str> = expected.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["weights.0", "weights.1", "weights.2", "weights.3"]);
    assert_eq!(hashes(Layers::new(4), "cpux3"), expected);
    let mut other = Layers::new(4);
    let value = flipped(vec![other.weights[2].val().into_dispatch()]).remove(0);
    other.weights[2] = Param::from_tensor(Tensor::from_dispatch(value));
    let changed = hashes(other, "cpu");
    let same: Vec<bool> = changed.iter().zip(&expected).map(|(x, y)| x == y).collect();
    assert_eq!(same, [true, true, false, true]);
}
