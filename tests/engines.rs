//! Promise: the trainer takes a device whose engine somebody else wrote, as it takes its own.

#[path = "../examples/own_engine.rs"]
mod own_engine;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor, s};
use own_engine::SlowDevice;
use zerobubble::engine::{BurnDevice, EngineDevice, devices};
use zerobubble::plan::FAMILIES;
use zerobubble::{Precision, Trainer};

fn cpu(name: &str) -> BurnDevice {
    BurnDevice::new(name.to_owned(), Device::flex())
}

#[expect(clippy::ptr_arg, reason = "the module is a vector")]
fn loss(layers: &Vec<Linear>, x: Tensor<2>) -> Tensor<1> {
    layers.iter().fold(x, |x, layer| layer.forward(x).tanh()).square().mean()
}

#[test]
fn a_foreign_engine_trains_to_the_same_bits_on_every_schedule() {
    let device = Device::flex();
    device.seed(3);
    let model: Vec<Linear> = (0..8).map(|_| LinearConfig::new(6, 6).init(&device)).collect();
    let batch = Tensor::<2>::random([8 * 3, 6], Distribution::Uniform(-1.0, 1.0), &device);
    let example = batch.clone().slice(s![0..3, ..]);
    let trained = |devices: Vec<Box<dyn EngineDevice>>, schedule: &str| {
        let mut trainer = Trainer::of(model.clone(), loss)
            .custom_devices(devices)
            .schedule(schedule.parse::<zerobubble::plan::Schedule>().unwrap())
            .build(&example)
            .unwrap();
        for _ in 0..3 {
            let peaks = trainer.step(batch.clone()).unwrap().peak_bytes;
            assert!(peaks.iter().all(|&bytes| bytes > 0), "{schedule}: {peaks:?}");
        }
        assert!(trainer.evaluate(example.clone()).unwrap().is_finite());
        trainer.weights_hash().unwrap()
    };
    let expected = trained(devices("cpu").unwrap(), "1f1b");
    for family in FAMILIES.iter().filter(|family| family.name != "forward-only") {
        let devices: Vec<Box<dyn EngineDevice>> =
            vec![Box::new(SlowDevice(cpu("slow:0"))), Box::new(cpu("cpu:0"))];
        assert_eq!(trained(devices, family.name), expected, "{}", family.name);
    }
}

#[test]
fn the_example_runs() {
    own_engine::main().unwrap();
}

#[test]
fn what_a_foreign_device_cannot_do_is_said_with_its_name() {
    let model: Vec<Linear> =
        (0..2).map(|_| LinearConfig::new(2, 2).init(&Device::flex())).collect();
    let error = Trainer::of(model, loss)
        .custom_devices(vec![Box::new(SlowDevice(cpu("slow:0")))])
        .activations(Precision::F16)
        .build(&Tensor::zeros([2, 2], &Device::flex()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("slow:0") && error.contains("try:"), "{error}");
}
