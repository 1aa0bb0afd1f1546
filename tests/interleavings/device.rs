//! A device that takes as long as a seed says, and fails where it is told to.

use std::collections::{HashMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zerobubble::compile::Accumulator;
use zerobubble::engine::{
    Compute, DispatchTensor, Engine, IN_FLIGHT, Outcome, OwnParameters, ParameterState, Parcel,
    PartialSums, StepInputs, Update,
};
use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::graph::ParameterId;
use zerobubble::plan::Action;

use crate::model::{Share, tensor, word};
use crate::world::{self, Random, What};

/// Something that goes wrong in the call of a number, counted from 0.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    pub call: usize,
    pub place: Place,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    Action(Action),
    /// What a device does besides its actions, by the name of the engine's method.
    Duty(usize, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    Fails,
    /// It fails when it is asked whether it has ended, on a device that does not compute at once.
    FailsLater,
    Panics,
    /// A number that is not finite.
    NotFinite,
}

/// All that goes wrong in a run.
#[derive(Debug, Default)]
pub struct Troubles {
    pub list: Vec<Trouble>,
    /// The call that is made.
    pub call: AtomicUsize,
}

/// What an error about a trouble says.
pub fn problem(number: usize) -> String {
    format!("trouble {number} is met")
}

impl Troubles {
    fn find(&self, place: Place, may: impl Fn(How) -> bool) -> Option<(usize, How)> {
        let call = self.call.load(Ordering::Relaxed);
        let here = |trouble: &Trouble| trouble.call == call && trouble.place == place;
        let mut list = self.list.iter().enumerate();
        let found = list.find(|(_, trouble)| here(trouble) && may(trouble.how));
        found.map(|(number, trouble)| (number, trouble.how))
    }
}

struct UnderWay {
    action: Action,
    arrived: Option<u64>,
    time: Duration,
    end: Instant,
}

pub struct FakeDevice {
    number: usize,
    share: Share,
    troubles: Arc<Troubles>,
    random: Random,
    /// How long an action takes, about.
    pace: Duration,
    /// What is under way; none on a device that computes at once.
    queue: Option<VecDeque<UnderWay>>,
    /// What such a device keeps for the next stage, which is on it too.
    own: HashMap<Action, u64>,
    /// After an error it can do nothing more.
    has_failed: bool,
}

impl FakeDevice {
    pub fn new(number: usize, share: Share, troubles: Arc<Troubles>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let pace = Duration::from_nanos(random.of(&[0, 1_000, 50_000, 3_000_000]));
        let queue = random.once_in(2).then(VecDeque::new);
        Self {
            number,
            share,
            troubles,
            random,
            pace,
            queue,
            own: HashMap::new(),
            has_failed: false,
        }
    }

    fn time(&mut self) -> Duration {
        // One in sixteen is late.
        let factor = if self.random.once_in(16) { 20 } else { 1 };
        self.pace * (self.random.below(4) as u32 * factor)
    }

    /// Besides actions a device does one thing at a time.
    fn duty(&mut self, name: &'static str) -> Result<Option<Error>> {
        assert!(self.queue.as_ref().is_none_or(VecDeque::is_empty), "all actions have ended");
        let time = self.time();
        world::sleep(time);
        self.meet(Place::Duty(self.number, name), |_| true)
    }

    /// Meets what there is at a place; gives a number that is not finite.
    fn meet(&mut self, place: Place, may: impl Fn(How) -> bool) -> Result<Option<Error>> {
        if self.has_failed {
            return Err(Error::run("the device has failed before"));
        }
        let Some((number, how)) = self.troubles.find(place, may) else { return Ok(None) };
        world::note(What::Trouble(number));
        self.has_failed = how != How::NotFinite;
        match how {
            How::Fails | How::FailsLater => Err(Error::run(problem(number))),
            // As a panic does, but nothing is printed.
            How::Panics => resume_unwind(Box::new(problem(number))),
            How::NotFinite => Ok(Some(Error::new(ErrorKind::NotFinite, problem(number)))),
        }
    }

    fn end(&mut self, action: Action, arrived: Option<u64>) -> Outcome {
        let own = arrived.or_else(|| self.own.remove(&action.alone(action.work)));
        let (mut parcel, loss) = self.share.play(action, own);
        let next = self.share.next_on_device(action).filter(|_| self.queue.is_some());
        if let Some(next) = next {
            self.own.extend(parcel.take().map(|parcel| (next, parcel)));
        }
        let parcel = parcel.map(tensor).into_iter().collect();
        Outcome { parcel, loss, ..Outcome::default() }
    }
}

impl Compute for FakeDevice {
    fn begin_step(&mut self, step: u64, inputs: &StepInputs) -> Result<()> {
        self.duty("begin_step")?;
        self.share.begin(Some(step), inputs);
        Ok(())
    }

    fn begin_evaluation(&mut self, inputs: &StepInputs) -> Result<()> {
        self.duty("begin_evaluation")?;
        self.share.begin(None, inputs);
        Ok(())
    }

    fn start(&mut self, action: Action, arrived: Parcel) -> Result<Option<Outcome>> {
        assert!(arrived.len() <= 1, "a parcel has one tensor");
        let arrived = arrived.first().map(word);
        let time = self.time();
        let at_once = self.queue.is_none();
        let may = |how| at_once || !matches!(how, How::FailsLater | How::NotFinite);
        let fault = self.meet(Place::Action(action), may)?;
        let Some(queue) = &mut self.queue else {
            world::sleep(time);
            return Ok(Some(Outcome { fault, ..self.end(action, arrived) }));
        };
        assert!(queue.len() < IN_FLIGHT, "{action} is one too many under way");
        let free = queue.back().map_or_else(world::now, |last| last.end.max(world::now()));
        queue.push_back(UnderWay { action, arrived, time, end: free + time });
        Ok(None)
    }

    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let queue = self.queue.as_mut().expect("a device that computes at once is not asked");
        let oldest = queue.front().expect("an action is under way");
        let UnderWay { action, arrived, time, end } = *oldest;
        world::sleep(end.saturating_duration_since(world::now()).min(timeout));
        if world::now() < end && !world::is_stuck() {
            return Ok(None);
        }
        queue.pop_front();
        let may = |how| matches!(how, How::FailsLater | How::NotFinite);
        let fault = self.meet(Place::Action(action), may)?;
        let (seconds, ended) = (Some(time.as_secs_f64()), Some(end));
        Ok(Some(Outcome { fault, seconds, ended, ..self.end(action, arrived) }))
    }

    fn peak_bytes(&self) -> u64 {
        1000 + self.number as u64
    }
}

impl OwnParameters for FakeDevice {
    fn partial_sums(&mut self) -> PartialSums {
        self.share.partial_sums()
    }

    fn take_partial_sums(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        self.duty("take_partial_sums")?;
        Ok(self.share.take_partial_sums())
    }

    fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        self.duty("reduce")?;
        self.share.reduce(sums);
        Ok(())
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        let fault = self.duty("squared_norms")?;
        let mut norms = self.share.squared_norms();
        if fault.is_some() {
            norms[0].1 = f64::NAN;
        }
        Ok(norms)
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.duty("update")?;
        Ok(self.share.update(update))
    }

    fn undo(&mut self) -> Result<()> {
        self.duty("undo")?;
        self.share.undo();
        Ok(())
    }

    fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        self.duty("set_parameters")?;
        self.share.set_parameters(values);
        Ok(())
    }

    fn parameters(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        self.duty("parameters")?;
        let all = self.share.parameters().into_iter();
        Ok(all.filter(|(id, _)| of.contains(id)).collect())
    }

    fn state(&mut self, of: &[ParameterId]) -> Result<Vec<(ParameterId, ParameterState)>> {
        self.duty("state")?;
        Ok(self.share.state().into_iter().filter(|(id, _)| of.contains(id)).collect())
    }

    fn restore(&mut self, state: &[(ParameterId, ParameterState)]) -> Result<()> {
        self.duty("restore")?;
        self.share.restore(state);
        Ok(())
    }
}

impl Engine for FakeDevice {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}
