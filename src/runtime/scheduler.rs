//! The thread that decides: dispatches every action when the parcel it waits for has been sent.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::dispatch::{Dispatch, Dispatcher};
use super::finish::Finish;
use super::worker::{Answer, Order, Parameters, Report};
use super::{OnNan, Reply, Request, States, StepOutcome, WINDOW};
use crate::engine::StepInputs;
use crate::error::{Error, Result};
use crate::plan::{Channel, CheckedPlan, Choice};
use crate::trace::{Label, Span, Timeline};

/// What decides, and the channels to and from the devices.
pub(super) struct Scheduler {
    dispatcher: Dispatcher,
    finish: Finish,
    microbatches: usize,
    pub(super) channels: Vec<Channel>,
    pub(super) orders: Vec<Sender<Order>>,
    reports: Receiver<Report>,
    /// Most bytes that every device has held, as of the last update.
    peak_bytes: Vec<u64>,
    /// Orders that have no report yet, by device.
    pub(super) under_way: Vec<usize>,
}

impl Scheduler {
    pub(super) fn new(
        plan: &CheckedPlan,
        dispatch: Dispatch,
        (finish, channels): (Finish, Vec<Channel>),
        orders: Vec<Sender<Order>>,
        reports: Receiver<Report>,
    ) -> Self {
        Self {
            dispatcher: Dispatcher::new(plan, dispatch),
            finish,
            microbatches: plan.plan().microbatches as usize,
            peak_bytes: vec![0; orders.len()],
            under_way: vec![0; orders.len()],
            channels,
            orders,
            reports,
        }
    }

    /// Answers requests until nobody can make any, or a device has failed.
    pub(super) fn run(mut self, requests: &Receiver<Request>, replies: &Sender<Reply>) {
        for request in requests {
            let (reply, failed) = match request {
                Request::Step { step, inputs, learning_rate, on_nan } => {
                    let outcome = self.step(step, &inputs, learning_rate, on_nan);
                    let failed = outcome.is_err();
                    (Reply::Step(outcome), failed)
                }
                Request::Evaluate { plan, inputs } => {
                    let evaluated = self.evaluate(&plan, &inputs);
                    let failed = evaluated.is_err();
                    let losses = evaluated.and_then(|of| of.fault.map_or(Ok(of.losses), Err));
                    (Reply::Evaluated(losses), failed)
                }
                Request::Parameters => {
                    let parameters = self.parameters();
                    let failed = parameters.is_err();
                    (Reply::Parameters(parameters), failed)
                }
                Request::State => {
                    let state = self.state();
                    let failed = state.is_err();
                    (Reply::State(state), failed)
                }
                Request::Restore(state) => {
                    let restored = self.all(|_| Order::Restore(state.clone())).map(drop);
                    let failed = restored.is_err();
                    (Reply::Restored(restored), failed)
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

    fn step(
        &mut self,
        step: u64,
        inputs: &StepInputs,
        learning_rate: f64,
        on_nan: OnNan,
    ) -> Result<StepOutcome> {
        let start = Instant::now();
        self.all(|_| Order::Begin { step, inputs: inputs.clone(), start })?;
        let mut outcome = StepOutcome {
            losses: vec![0.0; self.microbatches],
            skipped: None,
            gradient_norm: None,
            timeline: Timeline {
                lanes: vec![Vec::new(); self.orders.len()],
                transfers: vec![Vec::new(); self.orders.len()],
            },
            peak_bytes: self.peak_bytes.clone(),
        };
        self.dispatcher.begin();
        self.finish.begin(learning_rate);
        self.play(start, on_nan, &mut outcome)?;
        outcome.gradient_norm = self.finish.gradient_norm();
        outcome.skipped = self.finish.skipped();
        self.peak_bytes.clone_from(&outcome.peak_bytes);
        Ok(outcome)
    }

    /// Dispatches all actions and the updates after them, and waits for them.
    fn play(&mut self, start: Instant, on_nan: OnNan, outcome: &mut StepOutcome) -> Result<()> {
        loop {
            let mut wait = None;
            for device in 0..self.orders.len() {
                let until = self.dispatch(device, start)?;
                wait = [wait, until].into_iter().flatten().min();
            }
            if self.finish.is_over() {
                return Ok(());
            }
            // One blocking wait, then whatever else has come in the meantime.
            let mut report = match wait {
                None => Some(self.report()?),
                Some(until) => self.report_before(until)?,
            };
            while let Some((device, answer)) = report {
                record(outcome, device, &answer);
                let fault = match answer {
                    Answer::Ran { action, start, end, fault, .. } => {
                        self.dispatcher.end(device, action, start, end);
                        self.finish.ended(device);
                        fault
                    }
                    answer => self.finish.answered(device, answer).err(),
                };
                match fault {
                    Some(fault) if on_nan == OnNan::Stop => return Err(fault),
                    Some(fault) => self.finish.skip(fault),
                    None => {}
                }
                report = match self.reports.try_recv() {
                    Ok(report) => Some(self.receive(report)?),
                    Err(_) => None,
                };
            }
        }
    }

    /// Sends what a device may do now. If it has to be asked again although nothing happens, says
    /// when.
    fn dispatch(&mut self, device: usize, start: Instant) -> Result<Option<Instant>> {
        while self.under_way[device] < WINDOW {
            match self.dispatcher.next(device, start.elapsed().as_secs_f64()) {
                Choice::Run(action) => self.order(device, Order::Run(action))?,
                Choice::Wait(until) => return Ok(Some(start + Duration::from_secs_f64(until))),
                Choice::Idle => break,
            }
        }
        while self.under_way[device] < WINDOW
            && let Some(order) = self.finish.next(device)
        {
            self.order(device, order)?;
        }
        Ok(None)
    }

    fn parameters(&mut self) -> Result<Parameters> {
        let mut parameters = Vec::new();
        for (_, answer) in self.all(|_| Order::Parameters)? {
            let Answer::Parameters(values) = answer else { unreachable!("asked for parameters") };
            parameters.extend(values);
        }
        Ok(parameters)
    }

    fn state(&mut self) -> Result<States> {
        let mut states = States::new();
        for (_, answer) in self.all(|_| Order::State)? {
            let Answer::State(of) = answer else { unreachable!("asked for the state") };
            states.extend(of);
        }
        Ok(states)
    }

    /// Gives every device an order and waits for all answers.
    pub(super) fn all(&mut self, order: impl Fn(usize) -> Order) -> Result<Vec<(usize, Answer)>> {
        for device in 0..self.orders.len() {
            self.order(device, order(device))?;
        }
        (0..self.orders.len()).map(|_| self.report()).collect()
    }

    pub(super) fn order(&mut self, device: usize, order: Order) -> Result<()> {
        assert!(self.under_way[device] < WINDOW, "device {device} has its orders");
        self.orders[device].send(order).map_err(|_| gone(device))?;
        self.under_way[device] += 1;
        Ok(())
    }

    pub(super) fn report(&mut self) -> Result<(usize, Answer)> {
        let report = self.reports.recv().map_err(|_| Error::run("all devices are gone"))?;
        self.receive(report)
    }

    /// The next report, if it comes before a moment.
    fn report_before(&mut self, moment: Instant) -> Result<Option<(usize, Answer)>> {
        match self.reports.recv_deadline(moment) {
            Ok(report) => self.receive(report).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::run("all devices are gone")),
        }
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

/// Notes in the step's outcome what a device says.
fn record(outcome: &mut StepOutcome, device: usize, answer: &Answer) {
    let mut note = |label, start, end| {
        outcome.timeline.lanes[device].push(Span { label, start, end });
    };
    match answer {
        Answer::Ran { action, start, end, loss, transfers, .. } => {
            note(Label::Action(*action), *start, *end);
            let transfer = |&(start, end): &(f64, f64)| Span { label: Label::Transfer, start, end };
            outcome.timeline.transfers[device].extend(transfers.iter().map(transfer));
            if let Some(loss) = loss {
                outcome.losses[action.microbatch.index()] = *loss;
            }
        }
        // Without norms it is the update's first part and is over in no time.
        Answer::Reduced { norms, start, end } if !norms.is_empty() => {
            note(Label::Update, *start, *end);
        }
        Answer::Updated { start, end, peak_bytes, .. } => {
            note(Label::Update, *start, *end);
            outcome.peak_bytes[device] = *peak_bytes;
        }
        _ => {}
    }
}

fn gone(device: usize) -> Error {
    Error::run(format!("the thread of device {device} is gone"))
}
