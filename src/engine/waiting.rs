//! An engine that computes nothing and takes its time: a device on paper, with a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Compute, Engine, Outcome, OwnParameters, Parcel, StepInputs};
use crate::error::Result;
use crate::plan::Action;

/// How long an action takes that begins so long after the step began.
pub type Time = Box<dyn Fn(Action, Duration) -> Duration + Send>;

/// How much later than asked an operating system ends a sleep, about: so long before its end an
/// action is waited for awake.
const LATE: Duration = Duration::from_micros(70);

/// Yields an empty parcel after each action's time.
///
/// As a device with a queue does, it begins an action when the one before has ended, not when the
/// thread has woken up from waiting for that; what it says to have taken is by that clock. It
/// sleeps meanwhile, so many of them fit on one core.
pub struct WaitingEngine {
    time: Time,
    step: Instant,
    /// When the actions under way end, and what they take.
    under_way: VecDeque<(Instant, Duration)>,
    /// When the last of them ends.
    free: Instant,
}

impl WaitingEngine {
    /// A device whose actions take `time`.
    pub fn new(time: Time) -> Self {
        let now = Instant::now();
        Self { time, step: now, under_way: VecDeque::new(), free: now }
    }
}

impl Compute for WaitingEngine {
    fn begin_step(&mut self, _step: u64, _inputs: &StepInputs) -> Result<()> {
        self.step = Instant::now();
        Ok(())
    }

    fn start(&mut self, action: Action, _arrived: Parcel) -> Result<Option<Outcome>> {
        let begin = self.free.max(Instant::now());
        let time = (self.time)(action, begin.saturating_duration_since(self.step));
        self.free = begin + time;
        self.under_way.push_back((self.free, time));
        Ok(None)
    }

    fn finish(&mut self, timeout: Duration) -> Result<Option<Outcome>> {
        let Some(&(end, time)) = self.under_way.front() else { return Ok(None) };
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        std::thread::sleep(left(end).saturating_sub(LATE).min(timeout));
        if left(end) > LATE {
            return Ok(None);
        }
        while !left(end).is_zero() {
            std::thread::yield_now();
        }
        self.under_way.pop_front();
        let seconds = Some(time.as_secs_f64());
        Ok(Some(Outcome { seconds, ended: Some(end), ..Outcome::default() }))
    }
}

impl OwnParameters for WaitingEngine {}

impl Engine for WaitingEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}
