//! A device's thread: does what it is told, hands parcels on, reports.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use burn_dispatch::DispatchTensor;
use crossbeam_channel::{Receiver, Sender};

use super::link::Links;
use crate::compile::Accumulator;
use crate::engine::{Engine, Parcel, StepInputs};
use crate::error::{Error, Result};
use crate::graph::ParameterId;
use crate::plan::{Action, CheckedPlan};

/// What the scheduler tells a device to do. Every order is answered by one report.
pub(super) enum Order {
    /// Get ready for a step that starts at `start`.
    Begin { step: u64, inputs: StepInputs, start: Instant },
    /// Compute an action.
    Run(Action),
    /// Give the gradients of parameters that other devices update.
    TakeShared,
    /// Update the device's parameters.
    Update { learning_rate: f64, shared: SharedGradients },
    /// Take parameters that other devices updated.
    Set(Parameters),
    /// Give the device's parameters.
    Parameters,
}

/// A device's answer to an order.
pub(super) struct Report {
    pub device: usize,
    pub answer: Result<Answer>,
}

/// What came of an order.
pub(super) enum Answer {
    Done,
    Ran { action: Action, start: f64, end: f64, loss: Option<f32> },
    Shared(SharedGradients),
    Updated { parameters: Parameters, start: f64, end: f64, peak_bytes: u64 },
    Parameters(Parameters),
}

pub(super) type SharedGradients = Vec<(Accumulator, DispatchTensor)>;
pub(super) type Parameters = Vec<(ParameterId, DispatchTensor)>;

/// A device and its ends of the links.
pub(super) struct Worker {
    device: u32,
    engine: Box<dyn Engine>,
    plan: CheckedPlan,
    links: Links,
    /// Parcels between two stages that are both here, by the action that made them.
    own: HashMap<Action, Parcel>,
    start: Instant,
}

impl Worker {
    pub(super) fn new(
        device: u32,
        engine: Box<dyn Engine>,
        plan: CheckedPlan,
        links: Links,
    ) -> Self {
        Self { device, engine, plan, links, own: HashMap::new(), start: Instant::now() }
    }

    /// Obeys until the scheduler is gone.
    pub(super) fn run(mut self, orders: &Receiver<Order>, reports: &Sender<Report>) {
        for order in orders {
            let action = match order {
                Order::Run(action) => Some(action),
                _ => None,
            };
            let answer = catch_unwind(AssertUnwindSafe(|| self.obey(order)))
                .unwrap_or_else(|panic| {
                    let message = crate::error::panic_message(&*panic);
                    Err(Error::run(format!("device {} panicked: {message}", self.device)))
                })
                .map_err(|error| match action {
                    Some(action) => error.in_action(action),
                    None => error,
                });
            if reports.send(Report { device: self.device as usize, answer }).is_err() {
                return;
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<Answer> {
        match order {
            Order::Begin { step, inputs, start } => {
                self.start = start;
                self.engine.begin_step(step, &inputs).map(|()| Answer::Done)
            }
            Order::Run(action) => self.compute(action),
            Order::TakeShared => self.engine.take_shared_gradients().map(Answer::Shared),
            Order::Update { learning_rate, shared } => {
                let start = self.now();
                let parameters = self.engine.update(learning_rate, &shared)?;
                let peak_bytes = self.engine.peak_bytes();
                Ok(Answer::Updated { parameters, start, end: self.now(), peak_bytes })
            }
            Order::Set(values) => self.engine.set_parameters(&values).map(|()| Answer::Done),
            Order::Parameters => self.engine.parameters().map(Answer::Parameters),
        }
    }

    fn compute(&mut self, action: Action) -> Result<Answer> {
        let arrived = self.receive(action)?;
        let start = self.now();
        let outcome = self.engine.run(action, arrived)?;
        let end = self.now();
        self.send(action, outcome.parcel)?;
        Ok(Answer::Ran { action, start, end, loss: outcome.loss })
    }

    fn receive(&mut self, action: Action) -> Result<Parcel> {
        if let Some(link) = self.plan.receives(action) {
            return self.links.receives[&link]
                .try_recv()
                .map_err(|_| Error::run(format!("link {link} holds no parcel for it")));
        }
        let producer = self.plan.inputs(action).parcel;
        Ok(producer.and_then(|producer| self.own.remove(&producer)).unwrap_or_default())
    }

    fn send(&mut self, action: Action, parcel: Parcel) -> Result<()> {
        match self.plan.sends(action) {
            Some(link) => self.links.sends[&link]
                .try_send(parcel)
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
        self.start.elapsed().as_secs_f64()
    }
}
