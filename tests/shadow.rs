//! Promise: under a shadow every wrong value has a name, and no right one is reported.

#[path = "common/batches.rs"]
mod batches;

use std::sync::Arc;
use std::time::Duration;

use batches::{CONTEXT, ROWS, Tokens, VOCABULARY, batch};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation::tanh};
use zerobubble::engine::{
    AdamW, Compute, Engine, EngineDevice, EngineSetup, Observer, Outcome, OwnParameters, Parcel,
    Precision, StepInputs, UpdateRule, devices,
};
use zerobubble::error::{Error, Result};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::graph::{Elementwise, NodeId, Op, Scalar};
use zerobubble::plan::{Action, BufferBytes, INTERLEAVED_1F1B, StageId, Work, ZB_H1, ZB_V};
use zerobubble::train::{Recompute, TrainerBuilder};
use zerobubble::{Momentum, Optimizer, Sgd, Trainer};

const MICROBATCHES: u32 = 4;

fn gpt(devices: &str) -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>> {
    let device = Device::flex();
    device.seed(3);
    let config = GptConfig::new(VOCABULARY, CONTEXT, 4, 12, 2).with_dropout(0.1).with_tied(true);
    let loss = |model: &Gpt, (tokens, targets): Tokens| model.loss(tokens, targets);
    let trainer = Trainer::of(config.init(&device), loss).devices(devices).unwrap();
    trainer.microbatches(MICROBATCHES).learning_rate(1e-2)
}

/// The weights after some steps and an evaluation.
fn trained(
    builder: TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>>,
    shadow: bool,
) -> String {
    let mut trainer = builder.shadow(shadow).build(&batch(0, 0..ROWS)).unwrap();
    for step in 0..3 {
        trainer.step(batch(step, 0..ROWS * MICROBATCHES as usize)).unwrap();
        assert!(trainer.evaluate(batch(7, 0..ROWS * 3)).unwrap().is_finite());
    }
    trainer.weights_hash().unwrap()
}

#[test]
fn what_is_right_trains_as_without_a_shadow() {
    for devices in ["cpux2", "gpu:0x2"] {
        let momentum = Sgd { momentum: Some(Momentum::default()), ..Sgd::default() };
        let nesterov = Momentum { nesterov: true, ..Momentum::default() };
        let nesterov = Sgd { momentum: Some(nesterov), weight_decay: 0.01, ..Sgd::default() };
        for shadow in [true] {
            trained(gpt(devices).schedule(&ZB_H1), shadow);
            let clipped = || gpt(devices).clip_norm(0.05).post_validation(true);
            trained(clipped().schedule(&ZB_V), shadow);
            trained(gpt(devices).recompute(Recompute::Stage).optimizer(momentum), shadow);
            trained(gpt(devices).schedule(&INTERLEAVED_1F1B).optimizer(nesterov), shadow);
        }
    }
}
