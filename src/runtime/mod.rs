//! A checked plan on engines: one scheduler thread that decides, one worker thread per device
//! that obeys, bounded channels between them.
//!
//! ```text
//!            step, parameters                 orders (at most WINDOW under way)
//!   caller <------------------> scheduler ------------------------> worker 0, 1, ..
//!                                   ^                                  |    |
//!                                   '------------- reports ------------'----'
//!                                  activations and gradients: worker <-> worker
//! ```
//!
//! An action is dispatched when what it waits for has been reported done, so a worker never waits
//! for another: its parcel is in the link before its order comes. The first error ends the step,
//! every thread stops, and the error is what the caller gets.

mod devices;
mod dispatch;
mod finish;
mod link;
mod overhead;
mod scheduler;
mod worker;

use std::fmt;

use burn_dispatch::DispatchTensor;

pub use dispatch::Dispatch;
pub use overhead::overhead;

use crate::engine::{Clipping, Engine, IN_FLIGHT, MicrobatchLoss, ParameterState, StepInputs};
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::plan::{Channel, CheckedPlan};
use crate::threads::{JoinHandle, Sender, bounded, spawn};
use crate::trace::Timeline;

/// Orders that may be on their way to a device.
const WINDOW: usize = IN_FLIGHT;

/// A running pipeline. Dropping it stops and joins its threads.
#[derive(Debug)]
pub struct Runtime {
    requests: Option<Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
}

/// What holds for every step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepRules {
    /// How gradients are clipped, as the engines were made for.
    pub clipping: Option<Clipping>,
    /// What becomes of a step with numbers that are not finite.
    pub on_nan: OnNan,
}

/// What becomes of a step in which a loss is not finite or an activation is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnNan {
    /// It is an error, and the run ends.
    #[default]
    Stop,
    /// Its gradients are dropped. Parameters, the optimizer's moments and its count of updates stay
    /// as they were, and the next step follows.
    Skip,
}

impl fmt::Display for OnNan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnNan::Stop => "stop",
            OnNan::Skip => "skip",
        })
    }
}

/// What one step yielded.
#[derive(Debug, Clone)]
pub struct StepOutcome {
    /// Loss of every microbatch.
    pub losses: Vec<MicrobatchLoss>,
    /// Why nothing was updated, if nothing was.
    pub skipped: Option<Error>,
    /// Norm of all gradients together, before clipping; none without clipping, and NaN where
    /// nothing was updated.
    pub gradient_norm: Option<f64>,
    /// What every device did when, in seconds from the step's start.
    pub timeline: Timeline,
    /// Most bytes that every device has held at once so far.
    pub peak_bytes: Vec<u64>,
}

/// What the caller asks of the scheduler, with the sender of its answer.
enum Request {
    Step { step: u64, inputs: StepInputs, learning_rate: f64, reply: Reply<StepOutcome> },
    Evaluate { plan: CheckedPlan, inputs: StepInputs, reply: Reply<StepOutcome> },
    Parameters(Vec<ParameterId>, Reply<Parameters>),
    State(Vec<ParameterId>, Reply<States>),
    Restore(States, Reply<()>),
}

type Reply<T> = Sender<Result<T>>;

type Parameters = Vec<(ParameterId, DispatchTensor)>;

/// Parameters with the optimizer's state of each.
type States = Vec<(ParameterId, ParameterState)>;

impl Runtime {
    /// Starts the threads of `plan`, with links of the given capacities; the index of an engine is
    /// its device. Under [`Dispatch::Dynamic`] `plan` is any order on the base's placement without
    /// fused backwards, and the capacities are those of its
    /// [`StashLimits`](crate::plan::StashLimits).
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub fn start(
        plan: CheckedPlan,
        dispatch: Dispatch,
        channels: &[Channel],
        mut engines: Vec<Box<dyn Engine>>,
        rules: StepRules,
    ) -> Result<Self> {
        let devices = engines.len();
        assert_eq!(devices, plan.plan().lanes.len(), "one engine per lane");
        let (report, reports) = bounded(devices * WINDOW);
        let microbatches = plan.plan().microbatches as usize;
        let lanes = plan.plan().lanes.iter().map(Vec::len);
        let sums = engines.iter_mut().map(|engine| engine.owner().partial_sums());
        let finish = finish::Finish::new(lanes.zip(sums).collect(), microbatches, rules.clipping);
        let links = link::links(channels, &plan.plan().placement);
        // Should a thread be missing, the others end and are joined as those of any runtime are:
        // what follows is dropped first, and with it all that can give them orders.
        let mut runtime = Self { requests: None, threads: Vec::new() };
        let mut orders = Vec::new();
        for (device, (engine, links)) in engines.into_iter().zip(links).enumerate() {
            let (order, inbox) = bounded(WINDOW);
            orders.push(order);
            let worker = worker::Worker::new(device as u32, engine, plan.clone(), links);
            let report = report.clone();
            let run = move || worker.run(&inbox, &report);
            runtime.threads.push(thread(&format!("device {device}"), run)?);
        }
        // Without capacity: a request is handed over, or refused. One that waited for a scheduler
        // that has ended would keep the sender of its answer, and the caller would wait as well.
        let (requests, inbox) = bounded(0);
        let scheduler = scheduler::Scheduler {
            devices: devices::Devices::new(orders, reports),
            dispatcher: dispatch::Dispatcher::new(&plan, dispatch),
            finish,
            on_nan: rules.on_nan,
            microbatches,
            channels: channels.to_vec(),
            peak_bytes: vec![0; devices],
        };
        runtime.threads.push(thread("scheduler", move || scheduler.run(&inbox))?);
        runtime.requests = Some(requests);
        Ok(runtime)
    }

    /// Runs one step on `inputs`, by microbatch and input.
    ///
    /// # Errors
    ///
    /// The first error of any device; it names the action. The runtime is of no use after it.
    pub fn step(
        &mut self,
        step: u64,
        inputs: StepInputs,
        learning_rate: f64,
    ) -> Result<StepOutcome> {
        self.ask(|reply| Request::Step { step, inputs, learning_rate, reply })
    }

    /// Runs the actions of `plan`, which is forward only and places stages as the plan of the steps
    /// does, on `inputs`, by microbatch and input. Where a number is not finite, the outcome says
    /// which in `skipped`, and nothing is harmed.
    ///
    /// # Errors
    ///
    /// The first error of any device, after which the runtime is of no use.
    pub fn evaluate(&mut self, plan: CheckedPlan, inputs: StepInputs) -> Result<StepOutcome> {
        self.ask(|reply| Request::Evaluate { plan, inputs, reply })
    }

    /// Values of some parameters, as far as they are on a device, in no particular order.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn parameters(
        &mut self,
        of: Vec<ParameterId>,
    ) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.ask(|reply| Request::Parameters(of, reply))
    }

    /// Some parameters, as far as they are on a device, with what the optimizer remembers of them,
    /// in no particular order.
    ///
    /// # Errors
    ///
    /// When a device failed before.
    pub fn state(&mut self, of: Vec<ParameterId>) -> Result<Vec<(ParameterId, ParameterState)>> {
        self.ask(|reply| Request::State(of, reply))
    }

    /// Continues from a state of all parameters.
    ///
    /// # Errors
    ///
    /// When a device fails, or failed before.
    pub fn restore(&mut self, state: Vec<(ParameterId, ParameterState)>) -> Result<()> {
        self.ask(|reply| Request::Restore(state, reply))
    }

    fn ask<T>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T> {
        let gone = || Error::run("the pipeline has stopped").hint("build a new trainer");
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        let (reply, answer) = bounded(1);
        requests.send(request(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The scheduler ends when nobody can ask it any more, the workers when it has ended.
        self.requests = None;
        for thread in self.threads.drain(..) {
            // A panic was already reported as an error, and there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    spawn(name, run).map_err(|error| Error::run(format!("no thread for {name}: {error}")))
}
