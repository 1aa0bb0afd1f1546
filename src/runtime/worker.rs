//! A device's thread: does what it is told, hands parcels on, reports.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn_dispatch::DispatchTensor;

use super::link::Links;
use super::{Parameters, States};
use crate::compile::Accumulator;
use crate::engine::{Engine, IN_FLIGHT, MicrobatchLoss, Outcome, Parcel, StepInputs, Update};
use crate::error::{Error, Result, of_panic};
use crate::graph::ParameterId;
use crate::plan::{Action, CheckedPlan};
use crate::threads::{Receiver, Sender, TryRecvError, now};

/// What the scheduler tells a device to do. Every order is answered by one report.
pub(super) enum Order {
    /// Compute an action.
    Run(Action),
    /// What comes before or after the actions.
    Do(Duty),
}

/// What a device does besides its actions.
pub(super) enum Duty {
    /// Get ready for a step that starts at `start`.
    Begin { step: u64, inputs: StepInputs, start: Instant },
    /// Get ready for an evaluation.
    BeginEvaluation { inputs: StepInputs, start: Instant },
    /// Send the partial sums of parameters that other devices update.
    SendPartialSums,
    /// Reduce what other devices sent, and give the norms of all gradients if they are asked for.
    Reduce { sums: Sums, norms: bool },
    /// Update the device's parameters.
    Update(Update),
    /// Undo the last update.
    Undo,
    /// Undo the last update, and do this one.
    Redo(Update),
    /// Take parameters that other devices updated.
    Broadcast(Parameters),
    /// Give the device's parameters.
    Parameters(Vec<ParameterId>, Sender<Parameters>),
    /// Give the device's parameters and the optimizer's state of them.
    State(Vec<ParameterId>, Sender<States>),
    /// Continue from a state of all parameters.
    Restore(States),
}

/// A device's answer to an order.
pub(super) struct Report {
    pub device: usize,
    pub answer: Result<Answer>,
}

/// What came of an order.
pub(super) enum Answer {
    Ran(Ran),
    Did(Did),
}

/// What came of an action.
pub(super) struct Ran {
    pub action: Action,
    pub start: f64,
    pub end: f64,
    pub loss: Option<MicrobatchLoss>,
    /// A number that is not finite.
    pub fault: Option<Error>,
    pub transfers: Vec<(f64, f64)>,
}

/// What came of a duty.
pub(super) enum Did {
    Done,
    PartialSums(Sums),
    Reduced { norms: Vec<(ParameterId, f64)>, start: f64, end: f64 },
    Updated { parameters: Parameters, start: f64, end: f64, peak_bytes: u64 },
}

pub(super) type Sums = Vec<(Accumulator, DispatchTensor)>;

/// A device and its ends of the links.
pub(super) struct Worker {
    device: u32,
    engine: Box<dyn Engine>,
    plan: CheckedPlan,
    links: Links,
    /// Parcels between two stages that are both here, by the action that made them.
    own: HashMap<Action, Parcel>,
    /// Actions that the device has not finished, and when they were started.
    under_way: VecDeque<(Action, f64)>,
    start: Instant,
    /// When the device became free.
    free: f64,
}

/// How long a device is waited for when an order may come meanwhile: as much later is the order
/// submitted at worst.
const SHORT: Duration = Duration::from_micros(100);

/// How long a device is waited for when no order can come.
const LONG: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn new(
        device: u32,
        engine: Box<dyn Engine>,
        plan: CheckedPlan,
        links: Links,
    ) -> Self {
        Self {
            device,
            engine,
            plan,
            links,
            own: HashMap::new(),
            under_way: VecDeque::new(),
            start: now(),
            free: 0.0,
        }
    }

    /// Obeys until the scheduler is gone.
    pub(super) fn run(mut self, orders: &Receiver<Order>, reports: &Sender<Report>) {
        loop {
            // Submitting comes before waiting: the device must not run out of work.
            let order = if self.under_way.is_empty() {
                orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                orders.try_recv()
            };
            let oldest = self.under_way.front().map(|&(action, _)| action);
            let (action, answer) = match order {
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    (oldest, self.guarded(|worker| Ok(worker.finish()?.map(Answer::Ran))))
                }
                Ok(Order::Run(action)) => {
                    let run = |worker: &mut Self| Ok(worker.compute(action)?.map(Answer::Ran));
                    (Some(action), self.guarded(run))
                }
                Ok(Order::Do(duty)) => {
                    (None, self.guarded(|worker| Ok(Some(Answer::Did(worker.obey(duty)?)))))
                }
            };
            // What failed is over, unless it was taken off already.
            let front = self.under_way.front().map(|&(action, _)| action);
            if answer.is_err() && action.is_some() && action == front {
                self.under_way.pop_front();
            }
            let named = |error: Error| match action {
                Some(action) => error.in_action(action),
                None => error,
            };
            let Some(answer) = answer.map_err(named).transpose() else { continue };
            if reports.send(Report { device: self.device as usize, answer }).is_err() {
                return;
            }
        }
    }

    /// Turns a panic into an error.
    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<Option<Answer>>,
    ) -> Result<Option<Answer>> {
        let device = self.device;
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|panic| {
            let error = of_panic(&*panic);
            let problem = format!("device {device}: {}", error.problem);
            Err(Error { problem, ..error })
        })
    }

    fn obey(&mut self, duty: Duty) -> Result<Did> {
        match duty {
            Duty::Begin { step, inputs, start } => {
                (self.start, self.free) = (start, 0.0);
                self.engine.begin_step(step, &inputs)?;
            }
            Duty::BeginEvaluation { inputs, start } => {
                (self.start, self.free) = (start, 0.0);
                self.engine.begin_evaluation(&inputs)?;
            }
            Duty::SendPartialSums => {
                return self.engine.owner().take_partial_sums().map(Did::PartialSums);
            }
            Duty::Reduce { sums, norms } => {
                let start = self.now();
                self.engine.owner().reduce(&sums)?;
                let norms = if norms { self.engine.owner().squared_norms()? } else { Vec::new() };
                return Ok(Did::Reduced { norms, start, end: self.now() });
            }
            Duty::Update(update) => return self.update(&update, false),
            Duty::Undo => self.engine.owner().undo()?,
            Duty::Redo(update) => return self.update(&update, true),
            Duty::Broadcast(values) => self.engine.owner().set_parameters(&values)?,
            // Who asked may be gone, and then nobody misses the answer.
            Duty::Parameters(of, reply) => {
                drop(reply.send(self.engine.owner().parameters(&of)?));
            }
            Duty::State(of, reply) => drop(reply.send(self.engine.owner().state(&of)?)),
            Duty::Restore(state) => self.engine.owner().restore(&state)?,
        }
        Ok(Did::Done)
    }

    fn update(&mut self, update: &Update, again: bool) -> Result<Did> {
        let start = self.now();
        if again {
            self.engine.owner().undo()?;
        }
        let parameters = self.engine.owner().update(update)?;
        let peak_bytes = self.engine.peak_bytes();
        Ok(Did::Updated { parameters, start, end: self.now(), peak_bytes })
    }

    /// Starts an action, and ends it if the device computes at once.
    fn compute(&mut self, action: Action) -> Result<Option<Ran>> {
        let arrived = self.receive(action)?;
        let start = self.now();
        match self.engine.start(action, arrived)? {
            Some(outcome) => self.end(action, start, outcome).map(Some),
            None => {
                self.under_way.push_back((action, start));
                Ok(None)
            }
        }
    }

    /// Ends the oldest action under way, if the device has finished it.
    fn finish(&mut self) -> Result<Option<Ran>> {
        let timeout = if self.under_way.len() < IN_FLIGHT { SHORT } else { LONG };
        let Some(outcome) = self.engine.finish(timeout)? else { return Ok(None) };
        let (action, start) = self.under_way.pop_front().expect("a device ends what it started");
        self.end(action, start, outcome).map(Some)
    }

    fn end(&mut self, action: Action, started: f64, outcome: Outcome) -> Result<Ran> {
        let since = |at: Instant| at.saturating_duration_since(self.start).as_secs_f64();
        let end = outcome.ended.map_or_else(|| self.now(), since);
        // A device that was given an action early began it when it had ended the one before.
        let start = started.max(self.free);
        let start = outcome.seconds.map_or(start, |seconds| start.max(end - seconds));
        self.free = end;
        let transfers =
            outcome.transfers.iter().map(|&(start, end)| (since(start), since(end))).collect();
        self.send(action, outcome.parcel)?;
        let Outcome { loss, fault, .. } = outcome;
        let fault = fault.map(|fault| fault.in_action(action));
        Ok(Ran { action, start, end, loss, fault, transfers })
    }

    fn receive(&mut self, action: Action) -> Result<Parcel> {
        if let Some(link) = self.plan.receives(action) {
            let inbound = self.links.receives.get_mut(&link);
            return inbound
                .and_then(|inbound| inbound.take(action.microbatch))
                .ok_or_else(|| Error::run(format!("link {link} holds no parcel for it")));
        }
        let producer = self.plan.inputs(action).parcel;
        Ok(producer.and_then(|producer| self.own.remove(&producer)).unwrap_or_default())
    }

    fn send(&mut self, action: Action, parcel: Parcel) -> Result<()> {
        match self.plan.sends(action) {
            Some(link) => self.links.sends[&link]
                .try_send((action.microbatch, parcel))
                .map_err(|_| Error::run(format!("link {link} takes no parcel from it"))),
            None => {
                if !parcel.is_empty() {
                    self.own.insert(action, parcel);
                }
                Ok(())
            }
        }
    }

    /// Seconds since the step's start.
    fn now(&self) -> f64 {
        (now() - self.start).as_secs_f64()
    }
}
