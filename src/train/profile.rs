//! Blocks and devices -> what F, B and W of every block take on every device.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::verified_model::{Arrived, VerifiedModel, setup, single_blocks};
use crate::compile::Program;
use crate::engine::{Engine, EngineDevice, EngineSetup, Outcome, Parcel, Precision};
use crate::error::{Error, Result, of_panic};
use crate::graph::NodeId;
use crate::plan::{Action, MicrobatchId, PerWork, StageId, Work};
use crate::split::Split;

/// What the costs of blocks are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Counted operations.
    Flops,
    /// A timed run of every block on every device.
    Measured,
}

/// What blocks cost. One unit of time throughout.
#[derive(Debug, Clone)]
pub(super) struct BlockTimes {
    /// Times of F, B and W, by device and block.
    pub devices: Vec<Vec<PerWork<f64>>>,
    /// What a byte takes from one device to another.
    pub transfer_per_byte: f64,
}

/// Timed runs of every block, after one that warms up.
const TIMED_RUNS: usize = 3;

/// No action of one block takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Counted operations: the same on all devices, and transfers take no time.
pub(super) fn flops(split: &Split, devices: usize) -> BlockTimes {
    let blocks = split.blocks.iter().map(|block| block.flops).collect();
    BlockTimes { devices: vec![blocks; devices], transfer_per_byte: 0.0 }
}

/// What is timed, and how it is set up.
pub(super) struct ProfileRequest<'a> {
    pub model: &'a mut VerifiedModel,
    pub devices: &'a mut [Box<dyn EngineDevice>],
    pub activations: Precision,
    pub seed: u64,
    /// How long it may take.
    pub budget: Duration,
}

/// Times every block on every device, in seconds. Devices of the same hardware, such as the
/// queues of one adapter, are measured once. None once it is clear that it takes longer than the
/// budget.
pub(super) fn profile(request: ProfileRequest) -> Result<Option<BlockTimes>> {
    let ProfileRequest { model, devices, activations, seed, budget } = request;
    let start = Instant::now();
    let arrivals = model.runner.arrivals()?;
    let hardware: Vec<String> = devices.iter().map(|device| device.hardware()).collect();
    let all = arrivals.len() * distinct(&hardware);
    let mut pace = Pace { start, first: Instant::now(), budget, done: 0, all };
    let mut transfers = Transfers::default();
    let mut known: HashMap<&str, Vec<PerWork<f64>>> = HashMap::new();
    for (device, hardware) in devices.iter_mut().zip(&hardware) {
        if known.contains_key(hardware.as_str()) {
            continue;
        }
        let mut times = Vec::with_capacity(arrivals.len());
        for (block, stage) in single_blocks(&model.split).into_iter().enumerate() {
            let program = stage.program.clone();
            let setup = setup(&model.split, &model.values, vec![stage], seed);
            let engine = device.engine(EngineSetup { activations, ..setup })?;
            let arrived = &arrivals[block];
            times.push(block_times(model, engine, block, &program, arrived, &mut transfers)?);
            if !pace.keeps() {
                return Ok(None);
            }
        }
        known.insert(hardware, times);
    }
    let devices = hardware.iter().map(|hardware| known[hardware.as_str()].clone()).collect();
    Ok(Some(BlockTimes { devices, transfer_per_byte: transfers.per_byte() }))
}

fn distinct(hardware: &[String]) -> usize {
    hardware.iter().collect::<HashSet<_>>().len()
}

/// Blocks that are done, of so many.
struct Pace {
    start: Instant,
    /// When the first block began.
    first: Instant,
    budget: Duration,
    done: usize,
    all: usize,
}

impl Pace {
    /// One more block is done: whether all will be in time, if the others take as long as these.
    /// The first ones do not count for much: a device is often slow at first.
    fn keeps(&mut self) -> bool {
        self.done += 1;
        let elapsed = self.start.elapsed();
        let blocks = self.first.elapsed().mul_f64(self.all as f64 / self.done as f64);
        elapsed < self.budget / 8 || (self.first - self.start) + blocks <= self.budget
    }
}

/// The times of one block on one device, which holds only that one: so no device needs memory for
/// the whole model.
fn block_times(
    model: &VerifiedModel,
    mut engine: Box<dyn Engine>,
    block: usize,
    program: &Program,
    arrived: &Arrived,
    transfers: &mut Transfers,
) -> Result<PerWork<f64>> {
    engine.begin_step(0, &model.inputs)?;
    best(|work| {
        let start = Instant::now();
        let outcome = timed(&mut *engine, block, work, arrived)?;
        engine.sync()?;
        let wall = start.elapsed().as_secs_f64();
        transfers.add(&model.split, program, work, &outcome);
        Ok(outcome.seconds.unwrap_or(wall))
    })
}

fn action(block: usize, work: Work) -> Action {
    Action::new(StageId(block as u32), work, MicrobatchId(0))
}

/// The shortest of a few runs of F, B and W.
fn best(mut run: impl FnMut(Work) -> Result<f64>) -> Result<PerWork<f64>> {
    let mut best = PerWork([f64::INFINITY; 3]);
    for round in 0..=TIMED_RUNS {
        for work in Work::ALL {
            let seconds = run(work)?;
            if round > 0 {
                best[work] = best[work].min(seconds);
            }
        }
    }
    Ok(best)
}

/// Runs one action of a block to its end.
fn timed(engine: &mut dyn Engine, block: usize, work: Work, arrived: &Arrived) -> Result<Outcome> {
    let action = action(block, work);
    let parcel = match work {
        Work::F => arrived.activations.clone(),
        Work::B => arrived.gradients.clone(),
        Work::W => Parcel::new(),
    };
    catch_unwind(AssertUnwindSafe(|| match engine.start(action, parcel)? {
        Some(outcome) => Ok(outcome),
        None => engine
            .finish(TIMEOUT)?
            .ok_or_else(|| Error::run(format!("it takes more than {} seconds", TIMEOUT.as_secs()))),
    }))
    .unwrap_or_else(|panic| Err(of_panic(&*panic)))
    .map_err(|error| error.in_action(action))
}

/// Moves of parcels between GPUs and the host.
#[derive(Default)]
struct Transfers {
    bytes: u64,
    seconds: f64,
}

impl Transfers {
    fn add(&mut self, split: &Split, program: &Program, work: Work, outcome: &Outcome) {
        let crossings: [&[NodeId]; 2] = match work {
            Work::F => [&program.activations_in, &program.activations_out],
            Work::B => [&program.gradients_in, &program.gradients_out],
            Work::W => [&[], &[]],
        };
        let graph = &split.joint.graph;
        self.bytes += crossings.into_iter().flatten().map(|&id| graph[id].bytes()).sum::<u64>();
        let spans = outcome.transfers.iter();
        self.seconds += spans.map(|(start, end)| (*end - *start).as_secs_f64()).sum::<f64>();
    }

    /// From one device down to the host and up to another: two moves.
    fn per_byte(&self) -> f64 {
        if self.bytes == 0 { 0.0 } else { 2.0 * self.seconds / self.bytes as f64 }
    }
}
