//! Blocks and devices -> what F, B and W of every block take on every device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::links::{HostMoves, MeasuredLink, links, parcel_bytes};
use super::verified_model::{Arrived, VerifiedModel, setup, single_blocks};
use crate::compile::Program;
use crate::engine::{Engine, EngineDevice, EngineSetup, Outcome, Parcel, Precision};
use crate::error::{Error, Result, Site, of_panic};
use crate::graph::NodeId;
use crate::plan::{Action, MicrobatchId, PerWork, StageId, Transfers, Work};
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
    /// What parcels take from device to device.
    pub transfers: Transfers,
    /// What was measured of that.
    pub links: Vec<MeasuredLink>,
    /// What all this is by.
    pub balance: Balance,
}

/// Timed runs of every block, after one that warms up.
const TIMED_RUNS: u32 = 3;

/// No action of one block takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Counted operations: the same on all devices. Transfers take no time, as no operation is counted.
pub(super) fn flops(split: &Split, devices: usize) -> BlockTimes {
    let blocks = split.blocks.iter().map(|block| block.flops).collect();
    BlockTimes {
        devices: vec![blocks; devices],
        transfers: Transfers::default(),
        links: Vec::new(),
        balance: Balance::Flops,
    }
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

/// Times every block on every device, and every link between two devices, in seconds. Devices of
/// the same hardware, such as the queues of one adapter, are measured once. None once it is clear
/// that it takes longer than the budget: at once, if a device as fast as the one that the model was
/// verified on would take longer. None too where a device fails within a budget.
pub(super) fn profile(request: ProfileRequest) -> Result<Option<BlockTimes>> {
    let ProfileRequest { model, devices, activations, seed, budget } = request;
    let start = Instant::now();
    // One for what arrives, and the runs of a device.
    if model.runner.last_run().saturating_mul(2 + TIMED_RUNS) > budget {
        return Ok(None);
    }
    let arrivals = model.runner.arrivals()?;
    let stages = single_blocks(&model.split);
    let crossings: Vec<_> =
        stages.iter().map(|stage| crossing_bytes(&model.split, &stage.program)).collect();
    let (first, hardware) = kinds(devices);
    let all = arrivals.len() * first.len();
    let mut pace = Pace { start, first: Instant::now(), budget, done: 0, all };
    let mut known: Vec<Vec<PerWork<f64>>> = Vec::new();
    let mut moves = Vec::new();
    for device in first {
        let mut own = HostMoves::default();
        let mut times = Vec::with_capacity(arrivals.len());
        for (block, stage) in stages.iter().enumerate() {
            let setup = setup(&model.split, &model.values, vec![stage.clone()], seed);
            let (crossing, arrived) = (crossings[block], &arrivals[block]);
            let engine = devices[device].engine(EngineSetup { activations, ..setup });
            let timed = engine
                .and_then(|engine| block_times(model, engine, block, crossing, arrived, &mut own));
            match timed {
                Ok(measured) => times.push(measured),
                Err(error) if budget == Duration::MAX => {
                    return Err(of_block(error, &model.split, block));
                }
                // Nobody asked for it, and the device will say the same of the block's stage.
                Err(_) => return Ok(None),
            }
            if !pace.keeps() {
                return Ok(None);
            }
        }
        known.push(times);
        moves.push(own);
    }
    let (transfers, links) = links(&hardware, &moves, largest(&crossings, &arrivals))?;
    let devices = hardware.iter().map(|kind| known[*kind].clone()).collect();
    Ok(Some(BlockTimes { devices, transfers, links, balance: Balance::Measured }))
}

/// An error in a block that was a stage by itself: that stage is none of the run's.
fn of_block(error: Error, split: &Split, block: usize) -> Error {
    let site = Site { stage: None, action: None, ..*error.site };
    Error { site: Box::new(site), ..error }.in_module(split.modules(block))
}

/// The first device of every kind of hardware, and the kind of every device.
fn kinds(devices: &[Box<dyn EngineDevice>]) -> (Vec<usize>, Vec<usize>) {
    let mut names: Vec<String> = Vec::new();
    let mut first = Vec::new();
    let mut kinds = Vec::with_capacity(devices.len());
    for (position, device) in devices.iter().enumerate() {
        let name = device.hardware();
        let kind = names.iter().position(|other| *other == name).unwrap_or_else(|| {
            names.push(name);
            first.push(position);
            first.len() - 1
        });
        kinds.push(kind);
    }
    (first, kinds)
}

/// The largest parcel that arrives at a block, and its bytes.
fn largest(crossings: &[[[u64; 2]; 2]], arrivals: &[Arrived]) -> (Parcel, u64) {
    let parcels = arrivals.iter().zip(crossings).flat_map(|(arrived, [forward, backward])| {
        [(&arrived.activations, forward[0]), (&arrived.gradients, backward[0])]
    });
    let largest = parcels.max_by_key(|(_, bytes)| *bytes);
    largest.map_or((Parcel::new(), 0), |(parcel, bytes)| (parcel.clone(), bytes))
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
    [forward, backward]: [[u64; 2]; 2],
    arrived: &Arrived,
    moves: &mut HostMoves,
) -> Result<PerWork<f64>> {
    engine.begin_step(0, &model.inputs)?;
    best(|work| {
        let start = Instant::now();
        let outcome = timed(&mut *engine, block, work, arrived)?;
        engine.sync()?;
        let wall = start.elapsed().as_secs_f64();
        let [taken, sent] = parcel_bytes(work, forward, backward);
        moves.add(taken, sent, &outcome);
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

/// Bytes that arrive and that are sent, by F and by B.
fn crossing_bytes(split: &Split, program: &Program) -> [[u64; 2]; 2] {
    let graph = &split.joint.graph;
    let bytes = |ids: &[NodeId]| ids.iter().map(|&id| graph[id].bytes()).sum::<u64>();
    [
        [bytes(&program.activations_in), bytes(&program.activations_out)],
        [bytes(&program.gradients_in), bytes(&program.gradients_out)],
    ]
}
