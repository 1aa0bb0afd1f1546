//! An engine that is watched: everything that it computes is computed again by the reference, on
//! another thread, and compared.
//!
//! ```text
//!            action, parcel                values of every kernel, sums
//!   worker ------------------> engine ------------------------------------.
//!     ^  '------------------------- the same, and what came of it ------> checker
//!     '-------------------------- what is wrong, if anything <-------------'
//! ```
//!
//! The checker computes every value from those that the engine itself computed before it. So
//! differences do not add up: how far a value may be off is known for one op or kernel at a time,
//! and the first that is further off is the one that is wrong.

mod checker;
mod held;
mod interval;
mod parameters;
mod stage;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use burn_dispatch::DispatchTensor;

use super::{
    Compute, Engine, EngineSetup, Observer, Outcome, OwnParameters, ParameterState, Parcel,
    PartialSums, Shown, StepInputs, Update,
};
use crate::compile::Accumulator;
use crate::error::{Error, Result, panic_message, quietly};
use crate::graph::ParameterId;
use crate::loss::MicrobatchLoss;
use crate::plan::Action;
use checker::Checker;

/// What may wait for the checker: the engine is not far ahead of it, and little memory is held.
const WAITING: usize = 4;

/// What the checker is told, in the order in which the engine does it.
enum Message {
    BeginStep(u64, StepInputs),
    BeginEvaluation(StepInputs),
    Start(Action, Parcel),
    Shown(Shown),
    /// All of the action's values have been shown.
    Played,
    Ended(Action, Parcel, Option<MicrobatchLoss>),
    Sent(Sums),
    Reduced(Sums),
    Norms(Vec<(ParameterId, f64)>),
    Updated {
        update: Update,
        state: States,
        shared: Parameters,
    },
    Undone(States),
    Set(Parameters),
    Restored(States),
    /// Answers with the first difference since the last verdict.
    Verdict,
}

type Sums = Vec<(Accumulator, DispatchTensor)>;
type Parameters = Vec<(ParameterId, DispatchTensor)>;
type States = Vec<(ParameterId, ParameterState)>;

/// An engine with its checker. Whatever is wrong is the error of the call that did it.
pub(super) struct ShadowEngine {
    // Dropped in this order: the checker ends when nobody can tell it anything any more.
    inner: Box<dyn Engine>,
    messages: SyncSender<Message>,
    verdicts: Receiver<Option<Error>>,
    under_way: VecDeque<Action>,
    /// All that its stages use.
    parameters: Vec<ParameterId>,
    _thread: Thread,
}

/// A thread that is joined when it is dropped.
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        // Its panics were verdicts, and there is nobody to tell here.
        drop(self.0.take().map(JoinHandle::join));
    }
}

impl fmt::Debug for ShadowEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShadowEngine")
    }
}

/// `engine`, which was made of `setup` by the device of this name, so that everything it computes
/// is compared with the reference.
///
/// # Errors
///
/// When the engine does not show what it computes, or there is no thread.
pub fn shadowed(
    mut engine: Box<dyn Engine>,
    setup: EngineSetup,
    device: &str,
) -> Result<Box<dyn Engine>> {
    let (messages, inbox) = sync_channel(WAITING);
    let (answer, verdicts) = channel();
    let shown = messages.clone();
    // A checker that has gone is noticed when it is asked.
    let observer = Observer::new(move |part| drop(shown.send(Message::Shown(part))));
    let not_shown =
        |error: Error| Error { problem: format!("{device}: {}", error.problem), ..error };
    engine.observe(observer).map_err(not_shown)?;
    let device = device.to_owned();
    // Several of its stages may use one.
    let used = setup.stages.iter().flat_map(|stage| stage.program.parameters.clone());
    let parameters = used.collect::<BTreeSet<_>>().into_iter().collect();
    let thread = std::thread::Builder::new()
        .name(format!("shadow of {device}"))
        .spawn(move || check(Checker::new(setup, device), &inbox, &answer))
        .map_err(|error| Error::run(format!("no thread for a shadow: {error}")))?;
    let thread = Thread(Some(thread));
    let under_way = VecDeque::new();
    Ok(Box::new(ShadowEngine {
        inner: engine,
        messages,
        verdicts,
        under_way,
        parameters,
        _thread: thread,
    }))
}

/// The checker's thread.
fn check(mut checker: Checker, inbox: &Receiver<Message>, answer: &Sender<Option<Error>>) {
    let mut wrong: Option<Error> = None;
    for message in inbox {
        if matches!(message, Message::Verdict) {
            if answer.send(wrong.take()).is_err() {
                return;
            }
            continue;
        }
        // What follows from a wrong value is of no interest.
        if wrong.is_none() {
            let judged = quietly(AssertUnwindSafe(|| checker.take(message)));
            wrong =
                judged.unwrap_or_else(|panic| Err(checker.stopped(&panic_message(&*panic)))).err();
        }
    }
}

impl ShadowEngine {
    fn tell(&self, message: Message) -> Result<()> {
        self.messages.send(message).map_err(|_| gone())
    }

    /// Waits for the checker.
    fn verdict(&self) -> Result<()> {
        self.tell(Message::Verdict)?;
        self.verdicts.recv().map_err(|_| gone())?.map_or(Ok(()), Err)
    }

    fn judged(&self, message: Message) -> Result<()> {
        self.tell(message)?;
        self.verdict()
    }

    fn end(&self, action: Action, outcome: Outcome) -> Result<Outcome> {
        self.judged(Message::Ended(action, outcome.parcel.clone(), outcome.loss))?;
        Ok(outcome)
    }
}

fn gone() -> Error {
    Error::run("the thread of a shadow is gone")
}

impl Compute for ShadowEngine {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        self.inner.begin_step(step, inputs)?;
        self.tell(Message::BeginStep(step, inputs.clone()))
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        self.inner.begin_evaluation(inputs)?;
        self.tell(Message::BeginEvaluation(inputs.clone()))
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        self.tell(Message::Start(action, arrived.clone()))?;
        let outcome = self.inner.start(action, arrived);
        if outcome.is_err() {
            // What it failed on may be what it computed.
            self.verdict()?;
        }
        let outcome = outcome?;
        // The verdict comes with the action that it is about.
        self.judged(Message::Played)?;
        match outcome {
            Some(outcome) => self.end(action, outcome).map(Some),
            None => {
                self.under_way.push_back(action);
                Ok(None)
            }
        }
    }

    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let Some(outcome) = self.inner.finish(timeout)? else { return Ok(None) };
        let action = self.under_way.pop_front().expect("an engine ends what it started");
        self.end(action, outcome).map(Some)
    }

    fn sync(&mut self) -> Result<()> {
        self.inner.sync()
    }

    fn peak_bytes(&self) -> u64 {
        self.inner.peak_bytes()
    }
}

impl Engine for ShadowEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

impl OwnParameters for ShadowEngine {
    fn partial_sums(&mut self) -> PartialSums {
        self.inner.owner().partial_sums()
    }

    fn take_partial_sums(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        let sums = self.inner.owner().take_partial_sums()?;
        self.judged(Message::Sent(sums.clone()))?;
        Ok(sums)
    }

    fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        self.inner.owner().reduce(sums)?;
        self.judged(Message::Reduced(sums.to_vec()))
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        let norms = self.inner.owner().squared_norms()?;
        self.judged(Message::Norms(norms.clone()))?;
        Ok(norms)
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        let shared = self.inner.owner().update(update)?;
        let state = self.inner.owner().state(&self.parameters)?;
        self.judged(Message::Updated { update: *update, state, shared: shared.clone() })?;
        Ok(shared)
    }

    fn undo(&mut self) -> Result<()> {
        self.inner.owner().undo()?;
        let state = self.inner.owner().state(&self.parameters)?;
        self.judged(Message::Undone(state))
    }

    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        self.inner.owner().set_parameters(values)?;
        self.judged(Message::Set(values.to_vec()))
    }

    fn parameters(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.inner.owner().parameters(of)
    }

    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        self.inner.owner().state(of)
    }

    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        self.inner.owner().restore(state)?;
        self.judged(Message::Restored(state.to_vec()))
    }
}
