//! Trains on two CPU devices, the second of which is slower than it has to be: its engine is our
//! own, around one of the library's. As blocks are timed on both, the first gets more of them.

use std::time::Instant;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Distribution, Tensor};
use zerobubble::engine::{
    BurnDevice, Compute, Engine, EngineDevice, EngineSetup, Outcome, OwnParameters, Parcel,
    StepInputs,
};
use zerobubble::plan::Action;
use zerobubble::{Balance, Result, Trainer};

#[derive(Debug)]
pub(crate) struct SlowDevice(pub(crate) BurnDevice);

impl EngineDevice for SlowDevice {
    fn name(&self) -> &str {
        "slow:0"
    }

    fn engine(&mut self, setup: EngineSetup) -> Result<Box<dyn Engine>> {
        Ok(Box::new(SlowEngine(self.0.engine(setup)?)))
    }
}

struct SlowEngine(Box<dyn Engine>);

// Around one with a queue it would forward `finish`, `sync` and `peak_bytes` as well.
impl Compute for SlowEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        self.0.begin_step(step, inputs)
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        self.0.begin_evaluation(inputs)
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        let start = Instant::now();
        let outcome = self.0.start(action, arrived);
        let end = start + 3 * start.elapsed();
        while Instant::now() < end {}
        outcome
    }
}

impl Engine for SlowEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self.0.owner()
    }
}

pub(crate) fn main() -> Result<()> {
    let device = Device::flex();
    let layer = || LinearConfig::new(256, 256).init(&device);
    let model: Vec<Linear> = (0..12).map(|_| layer()).collect();
    let loss = |layers: &Vec<Linear>, x: Tensor<2>| {
        let y = layers.iter().fold(x.clone(), |y, layer| gelu(layer.forward(y)));
        (y - x).square().mean()
    };
    let batch = |rows: usize| Tensor::random([rows, 256], Distribution::Uniform(0.0, 1.0), &device);
    let cpu = |name: &str| BurnDevice::new(name.to_owned(), Device::flex());
    let mut trainer = Trainer::of(model, loss)
        .custom_devices(vec![Box::new(cpu("cpu:0")), Box::new(SlowDevice(cpu("slow:0")))])
        .balance(Balance::Measured)
        .build(&batch(32))?;
    println!("{}", trainer.stages());
    for step in 1..=100 {
        let report = trainer.step(batch(8 * 32))?;
        if step % 25 == 0 {
            println!("step {step}: mean squared error {:.4}", report.loss);
        }
    }
    Ok(())
}
