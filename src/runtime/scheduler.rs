//! The thread that decides: dispatches every action when the parcel it waits for has been sent.

use std::time::{Duration, Instant};

use super::devices::Devices;
use super::dispatch::{Dispatcher, Planned};
use super::finish::Finish;
use super::worker::{Answer, Did, Duty, Order, Ran};
use super::{OnNan, Request, StepOutcome};
use crate::engine::{MicrobatchLoss, StepInputs};
use crate::error::{Error, Result};
use crate::plan::{Channel, CheckedPlan, Choice};
use crate::threads::{Receiver, Sender, now};
use crate::trace::{Label, Span, Timeline};

/// What decides about the steps of a run.
pub(super) struct Scheduler {
    pub devices: Devices,
    pub dispatcher: Dispatcher,
    pub finish: Finish,
    pub on_nan: OnNan,
    /// Microbatches of a step.
    pub microbatches: usize,
    /// How many parcels every link holds.
    pub channels: Vec<Channel>,
    /// Most bytes that every device has held, as of the last update.
    pub peak_bytes: Vec<u64>,
}

impl Scheduler {
    /// Answers requests until nobody can make any, or a device has failed.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        for request in requests {
            let goes_on = match request {
                Request::Step { step, inputs, learning_rate, reply } => {
                    let outcome = self.step(step, &inputs, learning_rate);
                    self.answer(&reply, outcome)
                }
                Request::Evaluate { plan, inputs, reply } => {
                    let outcome = self.evaluate(&plan, &inputs);
                    self.answer(&reply, outcome)
                }
                Request::Parameters(of, reply) => {
                    let asked = |reply| Duty::Parameters(of.clone(), reply);
                    let parameters = self.devices.ask(asked);
                    self.answer(&reply, parameters)
                }
                Request::State(of, reply) => {
                    let state = self.devices.ask(|reply| Duty::State(of.clone(), reply));
                    self.answer(&reply, state)
                }
                Request::Restore(state, reply) => {
                    let restored = self.devices.all(|| Duty::Restore(state.clone()));
                    self.answer(&reply, restored)
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Whether there may be another request: no device has failed, and the caller is still there.
    fn answer<T>(&mut self, reply: &Sender<Result<T>>, result: Result<T>) -> bool {
        let failed = result.is_err();
        if failed {
            self.devices.drain();
        }
        reply.send(result).is_ok() && !failed
    }

    fn step(&mut self, step: u64, inputs: &StepInputs, learning_rate: f64) -> Result<StepOutcome> {
        let start = now();
        self.devices.all(|| Duty::Begin { step, inputs: inputs.clone(), start })?;
        let mut outcome = StepOutcome::of(self.microbatches, self.peak_bytes.clone());
        self.dispatcher.begin();
        self.finish.begin(learning_rate);
        let Self { devices, dispatcher, finish, on_nan, .. } = self;
        play(devices, dispatcher, finish, *on_nan, start, &mut outcome)?;
        outcome.gradient_norm = self.finish.gradient_norm();
        outcome.skipped = self.finish.skipped();
        self.peak_bytes.clone_from(&outcome.peak_bytes);
        Ok(outcome)
    }

    /// Runs the actions of `plan`, which is forward only, over the links that there are. What is
    /// not finite is in the outcome and ends nothing.
    fn evaluate(&mut self, plan: &CheckedPlan, inputs: &StepInputs) -> Result<StepOutcome> {
        assert!(plan.is_forward_only(), "an evaluation has no backward work");
        let start = now();
        self.devices.all(|| Duty::BeginEvaluation { inputs: inputs.clone(), start })?;
        let plan_of = plan.plan();
        let microbatches = plan_of.microbatches as usize;
        let mut outcome = StepOutcome::of(microbatches, self.peak_bytes.clone());
        let mut dispatcher = Dispatcher::Planned(Planned::new(plan, &self.channels));
        let mut finish = Finish::of_evaluation(microbatches, plan_of.lanes.iter().map(Vec::len));
        let devices = &mut self.devices;
        play(devices, &mut dispatcher, &mut finish, OnNan::Skip, start, &mut outcome)?;
        outcome.skipped = finish.skipped();
        Ok(outcome)
    }
}

/// Dispatches all actions, and the duties after them, and waits for them.
fn play(
    devices: &mut Devices,
    dispatcher: &mut Dispatcher,
    finish: &mut Finish,
    on_nan: OnNan,
    start: Instant,
    outcome: &mut StepOutcome,
) -> Result<()> {
    loop {
        let mut wait = None;
        for device in 0..devices.count() {
            let until = dispatch(devices, dispatcher, finish, device, start)?;
            wait = [wait, until].into_iter().flatten().min();
        }
        if finish.is_over() {
            return Ok(());
        }
        // One blocking wait, then whatever else has come in the meantime.
        let mut report = match wait {
            None => Some(devices.report()?),
            Some(until) => devices.report_before(until)?,
        };
        while let Some((device, answer)) = report {
            match take(dispatcher, finish, outcome, device, answer) {
                Some(fault) if on_nan == OnNan::Stop => return Err(fault),
                Some(fault) => finish.skip(fault),
                None => {}
            }
            report = devices.report_now()?;
        }
    }
}

/// Sends what a device may do now. If it has to be asked again although nothing happens, says
/// when.
fn dispatch(
    devices: &mut Devices,
    dispatcher: &mut Dispatcher,
    finish: &mut Finish,
    device: usize,
    start: Instant,
) -> Result<Option<Instant>> {
    while devices.takes_orders(device) {
        match dispatcher.next(device, (now() - start).as_secs_f64()) {
            Choice::Run(action) => devices.order(device, Order::Run(action))?,
            Choice::Wait(until) => return Ok(Some(start + Duration::from_secs_f64(until))),
            Choice::Idle => break,
        }
    }
    while devices.takes_orders(device)
        && let Some(duty) = finish.next(device)
    {
        devices.order(device, Order::Do(duty))?;
    }
    Ok(None)
}

/// Takes what a device says. Gives what of it is not finite.
fn take(
    dispatcher: &mut Dispatcher,
    finish: &mut Finish,
    outcome: &mut StepOutcome,
    device: usize,
    answer: Answer,
) -> Option<Error> {
    match answer {
        Answer::Ran(ran) => {
            outcome.note_action(device, &ran);
            dispatcher.end(device, ran.action, ran.start, ran.end);
            finish.ended(device);
            let weightless = ran.loss.and_then(|loss| finish.weigh(ran.action.microbatch, loss));
            ran.fault.or(weightless)
        }
        Answer::Did(did) => {
            outcome.note_duty(device, &did);
            finish.answered(device, did).err()
        }
    }
}

impl StepOutcome {
    /// Of a step that has not begun.
    fn of(microbatches: usize, peak_bytes: Vec<u64>) -> Self {
        let lanes = vec![Vec::new(); peak_bytes.len()];
        Self {
            losses: vec![MicrobatchLoss { value: 0.0, weight: None }; microbatches],
            skipped: None,
            gradient_norm: None,
            timeline: Timeline { transfers: lanes.clone(), lanes },
            peak_bytes,
        }
    }

    fn note_action(&mut self, device: usize, ran: &Ran) {
        let Ran { action, start, end, .. } = *ran;
        let label = Label::Action(action);
        self.timeline.lanes[device].push(Span { label, start, end });
        let transfer = |&(start, end): &(f64, f64)| Span { label: Label::Transfer, start, end };
        self.timeline.transfers[device].extend(ran.transfers.iter().map(transfer));
        if let Some(loss) = ran.loss {
            self.losses[action.microbatch.index()] = loss;
        }
    }

    fn note_duty(&mut self, device: usize, did: &Did) {
        let span = |&start, &end| Span { label: Label::Update, start, end };
        match did {
            // Without norms it is the update's first part and is over in no time.
            Did::Reduced { norms, start, end } if !norms.is_empty() => {
                self.timeline.lanes[device].push(span(start, end));
            }
            Did::Updated { start, end, peak_bytes, .. } => {
                self.timeline.lanes[device].push(span(start, end));
                self.peak_bytes[device] = *peak_bytes;
            }
            Did::Reduced { .. } | Did::PartialSums(_) | Did::Done => {}
        }
    }
}
