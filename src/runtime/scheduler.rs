//! The thread that decides: dispatches every lane in its order, each action when the parcel it
//! waits for has been sent.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::worker::{Answer, Order, Parameters, Report, SharedGradients};
use super::{Reply, Request, StepOutcome, WINDOW};
use crate::engine::StepInputs;
use crate::error::{Error, Result};
use crate::plan::{Action, CheckedPlan};
use crate::trace::{Label, Span, Timeline};

/// The lanes and the channels to and from their devices.
pub(super) struct Scheduler {
    lanes: Vec<Vec<Dispatch>>,
    microbatches: usize,
    orders: Vec<Sender<Order>>,
    reports: Receiver<Report>,
    /// Orders that have no report yet, by device.
    under_way: Vec<usize>,
}

/// An action and the one on another device that must be done before it, as lane and position.
struct Dispatch {
    action: Action,
    after: Option<(usize, usize)>,
}

impl Scheduler {
    pub(super) fn new(
        checked: &CheckedPlan,
        orders: Vec<Sender<Order>>,
        reports: Receiver<Report>,
    ) -> Self {
        let plan = checked.plan();
        let position = |action: Action| {
            let lane = plan.placement.device(action.stage).index();
            let at = plan.lanes[lane].iter().position(|&other| other == action);
            (lane, at.expect("a checked plan holds every action"))
        };
        let dispatch = |&action: &Action| {
            let producer = checked.inputs(action).parcel.filter(|_| {
                // Within a lane the order itself sees to it.
                checked.receives(action).is_some()
            });
            Dispatch { action, after: producer.map(position) }
        };
        Self {
            lanes: plan.lanes.iter().map(|lane| lane.iter().map(dispatch).collect()).collect(),
            microbatches: plan.microbatches as usize,
            under_way: vec![0; orders.len()],
            orders,
            reports,
        }
    }

    /// Answers requests until nobody can make any, or a device has failed.
    pub(super) fn run(mut self, requests: &Receiver<Request>, replies: &Sender<Reply>) {
        for request in requests {
            let (reply, failed) = match request {
                Request::Step { step, inputs, learning_rate } => {
                    let outcome = self.step(step, &inputs, learning_rate);
                    let failed = outcome.is_err();
                    (Reply::Step(outcome), failed)
                }
                Request::Parameters => {
                    let parameters = self.parameters();
                    let failed = parameters.is_err();
                    (Reply::Parameters(parameters), failed)
                }
            };
            if failed {
                self.drain();
            }
            if replies.send(reply).is_err() || failed {
                return;
            }
        }
    }

    fn step(&mut self, step: u64, inputs: &StepInputs, learning_rate: f64) -> Result<StepOutcome> {
        let start = Instant::now();
        self.all(|_| Order::Begin { step, inputs: inputs.clone(), start })?;
        let mut outcome = StepOutcome {
            losses: vec![0.0; self.microbatches],
            timeline: Timeline {
                lanes: vec![Vec::new(); self.lanes.len()],
                transfers: vec![Vec::new(); self.lanes.len()],
            },
            peak_bytes: vec![0; self.lanes.len()],
        };
        self.play(&mut outcome)?;
        self.update(learning_rate, &mut outcome)?;
        Ok(outcome)
    }

    /// Dispatches all actions and waits for them.
    fn play(&mut self, outcome: &mut StepOutcome) -> Result<()> {
        let mut sent = vec![0; self.lanes.len()];
        let mut done = vec![0; self.lanes.len()];
        let mut open: usize = self.lanes.iter().map(Vec::len).sum();
        while open > 0 {
            for (lane, sent) in sent.iter_mut().enumerate() {
                self.dispatch(lane, sent, &done)?;
            }
            // One blocking wait, then whatever else has come in the meantime.
            let mut report = Some(self.report()?);
            while let Some((device, answer)) = report {
                let Answer::Ran { action, start, end, loss, transfers } = answer else {
                    unreachable!("only actions are under way")
                };
                done[device] += 1;
                open -= 1;
                let span = Span { label: Label::Action(action), start, end };
                outcome.timeline.lanes[device].push(span);
                outcome.timeline.transfers[device].extend(
                    transfers.into_iter().map(|(start, end)| Span {
                        label: Label::Transfer,
                        start,
                        end,
                    }),
                );
                if let Some(loss) = loss {
                    outcome.losses[action.microbatch.index()] = loss;
                }
                report = match self.reports.try_recv() {
                    Ok(report) => Some(self.receive(report)?),
                    Err(_) => None,
                };
            }
        }
        Ok(())
    }

    /// Sends what a lane may do now: the next actions whose parcels are in their links.
    fn dispatch(&mut self, lane: usize, sent: &mut usize, done: &[usize]) -> Result<()> {
        while self.under_way[lane] < WINDOW
            && let Some(next) = self.lanes[lane].get(*sent)
            && next.after.is_none_or(|(other, position)| done[other] > position)
        {
            let action = next.action;
            self.order(lane, Order::Run(action))?;
            *sent += 1;
        }
        Ok(())
    }

    /// Gradients of shared parameters to their owners, the update, new values back.
    fn update(&mut self, learning_rate: f64, outcome: &mut StepOutcome) -> Result<()> {
        let mut shared: SharedGradients = Vec::new();
        for (_, answer) in self.all(|_| Order::TakeShared)? {
            let Answer::Shared(gradients) = answer else { unreachable!("asked for gradients") };
            shared.extend(gradients);
        }
        let mut parameters: Parameters = Vec::new();
        let order = |_| Order::Update { learning_rate, shared: shared.clone() };
        for (device, answer) in self.all(order)? {
            let Answer::Updated { parameters: updated, start, end, peak_bytes } = answer else {
                unreachable!("asked for an update")
            };
            outcome.timeline.lanes[device].push(Span { label: Label::Update, start, end });
            outcome.peak_bytes[device] = peak_bytes;
            parameters.extend(updated);
        }
        if !parameters.is_empty() {
            self.all(|_| Order::Set(parameters.clone()))?;
        }
        Ok(())
    }

    fn parameters(&mut self) -> Result<Parameters> {
        let mut parameters = Vec::new();
        for (_, answer) in self.all(|_| Order::Parameters)? {
            let Answer::Parameters(values) = answer else { unreachable!("asked for parameters") };
            parameters.extend(values);
        }
        Ok(parameters)
    }

    /// Gives every device an order and waits for all answers.
    fn all(&mut self, order: impl Fn(usize) -> Order) -> Result<Vec<(usize, Answer)>> {
        for device in 0..self.orders.len() {
            self.order(device, order(device))?;
        }
        (0..self.orders.len()).map(|_| self.report()).collect()
    }

    fn order(&mut self, device: usize, order: Order) -> Result<()> {
        assert!(self.under_way[device] < WINDOW, "device {device} has its orders");
        self.orders[device].send(order).map_err(|_| gone(device))?;
        self.under_way[device] += 1;
        Ok(())
    }

    fn report(&mut self) -> Result<(usize, Answer)> {
        let report = self.reports.recv().map_err(|_| Error::run("all devices are gone"))?;
        self.receive(report)
    }

    fn receive(&mut self, report: Report) -> Result<(usize, Answer)> {
        self.under_way[report.device] -= 1;
        report.answer.map(|answer| (report.device, answer))
    }

    /// Waits for what is still under way after an error; its results no longer matter.
    fn drain(&mut self) {
        while self.under_way.iter().sum::<usize>() > 0 {
            let Ok(report) = self.reports.recv() else { return };
            self.under_way[report.device] -= 1;
        }
    }
}

fn gone(device: usize) -> Error {
    Error::run(format!("the thread of device {device} is gone"))
}
