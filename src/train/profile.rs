//! Blocks and devices -> what F, B and W of every block take on every device.

use std::collections::HashMap;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Counted operations.
    #[default]
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

/// Times every block on every device, in seconds. Devices of the same hardware, such as the
/// queues of one adapter, are measured once.
pub(super) fn profile(
    model: &mut VerifiedModel,
    devices: &mut [Box<dyn EngineDevice>],
    activations: Precision,
    seed: u64,
) -> Result<BlockTimes> {
    let arrivals = model.runner.arrivals()?;
    let mut transfers = Transfers::default();
    let mut known: HashMap<String, Vec<PerWork<f64>>> = HashMap::new();
    let mut times = Vec::with_capacity(devices.len());
    for device in devices {
        let hardware = device.hardware();
        if !known.contains_key(&hardware) {
            let blocks =
                blocks(model, &mut **device, activations, seed, &arrivals, &mut transfers)?;
            known.insert(hardware.clone(), blocks);
        }
        times.push(known[&hardware].clone());
    }
    Ok(BlockTimes { devices: times, transfer_per_byte: transfers.per_byte() })
}

/// The times of all blocks on one device, which holds one of them at a time: so no device needs
/// memory for the whole model.
fn blocks(
    model: &VerifiedModel,
    device: &mut dyn EngineDevice,
    activations: Precision,
    seed: u64,
    arrivals: &[Arrived],
    transfers: &mut Transfers,
) -> Result<Vec<PerWork<f64>>> {
    let mut times = Vec::with_capacity(arrivals.len());
    for (block, (arrived, stage)) in arrivals.iter().zip(single_blocks(&model.split)).enumerate() {
        let program = stage.program.clone();
        let setup = setup(&model.split, &model.values, vec![stage], seed);
        let mut engine = device.engine(EngineSetup { activations, ..setup })?;
        engine.begin_step(0, &model.inputs)?;
        times.push(best(|work| {
            let start = Instant::now();
            let outcome = timed(&mut *engine, block, work, arrived)?;
            engine.sync()?;
            let wall = start.elapsed().as_secs_f64();
            transfers.add(&model.split, &program, work, &outcome);
            Ok(outcome.seconds.unwrap_or(wall))
        })?);
    }
    Ok(times)
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
