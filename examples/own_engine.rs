//! Trains on two CPU devices, the second of which is slower than it has to be: its engine is our
//! own, around one of the library's. As blocks are timed on both, the first gets more of them.

use std::time::{Duration, Instant};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor, activation::gelu};
use zerobubble::plan::{Action, BufferBytes};
use zerobubble::{Balance, Result, Trainer, engine::*};

#[derive(Debug)]
pub(crate) struct SlowDevice(pub(crate) BurnDevice);
struct SlowEngine(Box<dyn Engine>);

// Forwards everything but `hardware`, which says what is equally fast: the device inside is faster.
impl EngineDevice for SlowDevice {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn open(&mut self, activations: Precision) -> Result<()> {
        self.0.open(activations)
    }
    fn buffers(&self, setup: &EngineSetup) -> Option<BufferBytes> {
        self.0.buffers(setup)
    }
    fn engine(&mut self, setup: EngineSetup) -> Result<Box<dyn Engine>> {
        Ok(Box::new(SlowEngine(self.0.engine(setup)?)))
    }
}

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
    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        self.0.finish(timeout)
    }
    fn observe(&mut self, observer: Observer) -> Result<()> {
        self.0.observe(observer)
    }
    fn sync(&mut self) -> Result<()> {
        self.0.sync()
    }
    fn peak_bytes(&self) -> u64 {
        self.0.peak_bytes()
    }
}

impl Engine for SlowEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self.0.owner()
    }
}

pub(crate) fn main() -> Result<()> {
    let device = Device::flex();
    let model: Vec<_> = (0..12).map(|_| LinearConfig::new(256, 256).init(&device)).collect();
    let loss = |layers: &Vec<Linear>, x: Tensor<2>| {
        layers.iter().fold(x.clone(), |y, layer| gelu(layer.forward(y))).sub(x).square().mean()
    };
    let batch = |rows: usize| Tensor::random([rows, 256], Distribution::Uniform(0.0, 1.0), &device);
    let cpu = |name: &str| BurnDevice::new(name.to_owned(), Device::flex());
    let mut trainer = Trainer::of(model, loss)
        .custom_devices(vec![Box::new(cpu("cpu:0")), Box::new(SlowDevice(cpu("slow:0")))])
        .balance(Balance::Measured)
        .build(&batch(32))?;
    println!("{}", trainer.stages());
    for step in 1..=30 {
        println!("step {step}: mean squared error {:.4}", trainer.step(batch(8 * 32))?.loss);
    }
    Ok(())
}
