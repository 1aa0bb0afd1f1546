//! Promise: variants of a training are compared on its devices without changing it, and one that
//! cannot run says why and stops no other.

use std::ops::ControlFlow;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use zerobubble::plan::Schedule;
use zerobubble::train::{Comparison, Recompute, Turn, Variant};
use zerobubble::{Balance, Sgd, Trainer};

type Mlp = Vec<Linear>;

/// Examples in a microbatch.
const ROWS: usize = 3;

fn variant(schedule: &str, microbatches: u32) -> Variant {
    let schedule = schedule.parse::<Schedule>().unwrap();
    Variant { schedule, microbatches: Some(microbatches), ..Variant::default() }
}

fn model() -> Mlp {
    let device = Device::flex();
    device.seed(3);
    (0..8).map(|_| LinearConfig::new(6, 6).init(&device)).collect()
}

fn loss(layers: &Mlp, x: Tensor<2>) -> Tensor<1> {
    layers.iter().fold(x, |x, layer| layer.forward(x).tanh()).square().mean()
}

fn batch(microbatches: u32) -> Tensor<2> {
    let device = Device::flex();
    device.seed(u64::from(microbatches));
    let rows = microbatches as usize * ROWS;
    Tensor::random([rows, 6], Distribution::Uniform(-1.0, 1.0), &device)
}

fn comparison(limit: Option<u64>, variants: Vec<Variant>) -> Comparison<Mlp, Tensor<2>> {
    Trainer::of(model(), loss)
        .devices("cpux2")
        .unwrap()
        .optimizer(Sgd::default())
        .learning_rate(0.5)
        .memory_limit_per_device(limit)
        // The bytes of two comparisons are compared.
        .balance(Balance::Flops)
        .compare(&batch(1), variants)
        .unwrap()
}

/// Losses of every step by contender, as the comparison shows them.
fn losses(comparison: &mut Comparison<Mlp, Tensor<2>>, steps: u32) -> Vec<Vec<f64>> {
    let mut losses = vec![Vec::new(); comparison.contenders().len()];
    let watch = |turn: Turn| {
        assert!(turn.done <= turn.all);
        losses[turn.position].extend(turn.report.map(|report| report.loss));
        ControlFlow::Continue(())
    };
    comparison.run(steps, batch, watch).unwrap();
    losses
}

#[test]
fn every_turn_trains_as_the_trainer_does_from_the_same_weights() {
    let variants = ["1f1b", "zb-v", "auto", "dynamic"].map(|name| variant(name, 4));
    let recomputing = Variant { recompute: Recompute::Stage, ..variant("1f1b", 4) };
    let others = [recomputing, variant("gpipe", 2)];
    let mut comparison = comparison(None, [&variants[..], &others].concat());
    let found = losses(&mut comparison, 3);
    for (at, contender) in comparison.contenders().iter().enumerate() {
        if contender.plan().is_none() {
            continue;
        }
        let Variant { schedule, microbatches, recompute, .. } = contender.variant().clone();
        let mut trainer = Trainer::of(model(), loss)
            .devices("cpux2")
            .unwrap()
            .optimizer(Sgd::default())
            .learning_rate(0.5)
            .schedule(schedule)
            .microbatches(microbatches)
            .recompute(recompute)
            .build(&batch(1))
            .unwrap();
        let count = microbatches.unwrap();
        let own: Vec<f64> = (0..3).map(|_| trainer.step(batch(count)).unwrap().loss).collect();
        // Two steps that count in the first round, one in the second, and one to warm up in each.
        assert_eq!(found[at], [&own[..], &own[..2]].concat(), "{}", contender.variant());
        let measured = contender.measured().unwrap();
        assert_eq!(measured.seconds.len(), 3);
        let median = measured.median.seconds;
        let faster = measured.seconds.iter().filter(|seconds| **seconds < median).count();
        assert!(faster <= 1 && measured.seconds.contains(&median));
        assert!(measured.peak_bytes.iter().all(|&bytes| bytes > 0));
    }
    let fastest = &comparison.contenders()[comparison.fastest().unwrap()];
    let speed = fastest.examples_per_second(ROWS).unwrap();
    let mut speeds = comparison.contenders().iter().filter_map(|of| of.examples_per_second(ROWS));
    assert!(speeds.all(|other| other <= speed));
}

#[test]
fn what_cannot_run_says_why_and_the_others_run() {
    let no_chunks = Variant { chunks: Some(3), ..variant("zb-v", 4) };
    let too_many = Variant { chunks: Some(60), ..variant("interleaved-1f1b", 4) };
    let variants = vec![no_chunks, variant("1f1b", 4), too_many, variant("1f1b", 4)];
    let mut comparison = comparison(None, variants);
    let found = losses(&mut comparison, 1);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [0, 2, 0, 0]);
    let faults: Vec<Option<String>> = comparison
        .contenders()
        .iter()
        .map(|contender| contender.fault().map(ToString::to_string))
        .collect();
    assert!(faults[0].as_ref().unwrap().contains("3 chunks"), "{faults:?}");
    assert!(faults[1].is_none() && comparison.fastest() == Some(1), "{faults:?}");
    assert!(faults[2].as_ref().unwrap().contains("cannot fill 120 stages"), "{faults:?}");
    assert_eq!(faults[3].as_deref(), Some("it has the plan of 1f1b, 4 microbatches"));
}

#[test]
fn a_plan_beyond_the_limit_is_refused_alone() {
    let peak = |name: &str| {
        let comparison = comparison(None, vec![variant(name, 8)]);
        let memory = &comparison.contenders()[0].prediction().unwrap().memory;
        memory.iter().map(zerobubble::plan::DeviceMemory::peak_bytes).max().unwrap()
    };
    let (least, most) = (peak("1f1b"), peak("gpipe"));
    assert!(least < most, "{least} {most}");
    let comparison = comparison(Some(least), vec![variant("gpipe", 8), variant("1f1b", 8)]);
    let [gpipe, one] = comparison.contenders() else { panic!("two were asked for") };
    assert!(gpipe.fault().is_some() && one.fault().is_none(), "{:?}", one.fault());
}

#[test]
fn a_watcher_ends_it_and_what_was_measured_stays() {
    let mut comparison = comparison(None, vec![variant("1f1b", 4), variant("gpipe", 4)]);
    let watch = |turn: Turn| match turn.done {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    comparison.run(4, batch, watch).unwrap();
    let [first, second] = comparison.contenders() else { panic!("two were asked for") };
    assert_eq!(first.measured().unwrap().seconds.len(), 1);
    assert!(second.measured().is_none() && second.fault().is_none());
    assert!(comparison.run(0, batch, |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn a_batch_of_another_size_is_the_fault_of_its_contenders() {
    let mut comparison = comparison(None, vec![variant("1f1b", 4), variant("gpipe", 2)]);
    comparison.run(1, |_| batch(2), |_| ControlFlow::Continue(())).unwrap();
    let [wrong, right] = comparison.contenders() else { panic!("two were asked for") };
    assert!(wrong.fault().unwrap().to_string().contains("4 microbatches of [3, 6]"));
    assert!(right.measured().is_some() && comparison.fastest() == Some(1));
}
