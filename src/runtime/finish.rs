//! The end of a step, decided device by device. It knows no channel: duties come out, answers go
//! in.
//!
//! ```text
//!  actions --> send sums --> reduce, norm --> update --------------------------> broadcast
//!  (a lane)    (to owners)   (when all sums   |  when the norm of all is known   of shared
//!                             are there)      |                                  parameters
//!                                             '- or at once, and where gradients
//!                                                turn out to be clipped, again
//! ```
//!
//! A device goes on when what it needs is there, whatever other devices still do. Without clipping
//! that is all. Clipping makes the update wait for the gradients of all devices. Post-validation
//! (Qi et al. 2023, section 4) takes that wait away: the norm is summed up as devices end, and who
//! finds the sum so far within the limit updates, to be undone from a snapshot if the sum of all is
//! above it.

use super::Parameters;
use super::worker::{Did, Duty, Sums};
use crate::engine::{Clipping, MicrobatchLoss, PartialSums, Update};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::ParameterId;
use crate::plan::MicrobatchId;

/// How far all devices have come with the end of a step.
pub(super) struct Finish {
    clipping: Option<Clipping>,
    /// Actions of every lane, and the partial sums that its device sends and awaits.
    lanes: Vec<(usize, PartialSums)>,
    learning_rate: f64,
    /// What every microbatch weighs, where losses have weights and as far as they are known.
    weights: Vec<Option<f64>>,
    /// How many of them are not known.
    unweighed: usize,
    devices: Vec<Device>,
    sums: Sums,
    norms: Vec<(ParameterId, f64)>,
    /// The norm of all gradients, when it is known.
    norm: Option<f64>,
    /// Why the step ends without an update, if it does.
    skipped: Option<Error>,
    /// Whether there is an update at all: an evaluation ends with its actions.
    updates: bool,
}

/// One device's way through the end of a step.
#[derive(Clone)]
struct Device {
    /// Actions that have not ended.
    actions: usize,
    done: Done,
    /// Whether what was done last has been answered.
    answered: bool,
    /// New values that other devices use, of the last update.
    values: Parameters,
}

/// What a device was told last.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Done {
    Actions,
    Sent,
    Reduced,
    /// An update that is undone if gradients are clipped.
    Provisional,
    Undone,
    Update,
    Broadcast,
}

impl Finish {
    pub(super) fn new(
        lanes: Vec<(usize, PartialSums)>,
        microbatches: usize,
        clipping: Option<Clipping>,
    ) -> Self {
        Self {
            clipping,
            lanes,
            learning_rate: 0.0,
            weights: vec![None; microbatches],
            unweighed: microbatches,
            devices: Vec::new(),
            sums: Vec::new(),
            norms: Vec::new(),
            norm: None,
            skipped: None,
            updates: true,
        }
    }

    /// Of an evaluation of so many microbatches, with so many actions in every lane.
    pub(super) fn of_evaluation(microbatches: usize, lanes: impl Iterator<Item = usize>) -> Self {
        let lanes = lanes.map(|actions| (actions, PartialSums::default())).collect();
        let mut finish = Self { updates: false, ..Self::new(lanes, microbatches, None) };
        finish.begin(0.0);
        finish
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate;
        let device = |&(actions, _): &(usize, PartialSums)| Device {
            actions,
            done: Done::Actions,
            answered: true,
            values: Vec::new(),
        };
        self.devices = self.lanes.iter().map(device).collect();
        self.weights.fill(None);
        self.unweighed = self.weights.len();
        self.sums.clear();
        self.norms.clear();
        self.norm = None;
        self.skipped = None;
    }

    /// Counts an action of a device's lane as ended.
    pub(super) fn ended(&mut self, device: usize) {
        self.devices[device].actions -= 1;
    }

    /// Counts the weight of a microbatch. Gives what is wrong if none of a step weighs anything.
    pub(super) fn weigh(&mut self, of: MicrobatchId, loss: MicrobatchLoss) -> Option<Error> {
        self.weights[of.index()] = Some(loss.weight?.into());
        self.unweighed = self.unweighed.saturating_sub(1);
        let nothing = self.unweighed == 0 && self.weight() == Some(0.0);
        nothing.then(|| {
            Error::new(ErrorKind::NotFinite, "the weights of all microbatches are 0")
                .hint("a batch of which something counts")
        })
    }

    /// What gradients are multiplied by for the step's weight. All losses are known before a lane
    /// ends: no B begins before the loss of its microbatch is known.
    fn per_weight(&self) -> f64 {
        self.weight().map_or(1.0, |weight| 1.0 / weight)
    }

    /// The sum of the weights that are known, by ascending microbatch in whichever order they came.
    fn weight(&self) -> Option<f64> {
        self.weights.iter().copied().flatten().reduce(|sum, weight| sum + weight)
    }

    /// Ends the step without an update; provisional ones are undone.
    ///
    /// No other can have been made: no B begins before the loss of its microbatch is known, so a
    /// loss comes before any lane has ended, and a norm before any update that it is for.
    pub(super) fn skip(&mut self, fault: Error) {
        let stands = |device: &Device| matches!(device.done, Done::Update | Done::Broadcast);
        assert!(!self.devices.iter().any(stands), "an update came before {fault}");
        self.skipped.get_or_insert(fault);
    }

    /// Takes what came of a duty.
    ///
    /// # Errors
    ///
    /// When the norm of all gradients turns out not to be finite.
    pub(super) fn answered(&mut self, device: usize, answer: Did) -> Result<()> {
        self.devices[device].answered = true;
        match answer {
            Did::PartialSums(sums) => self.sums.extend(sums),
            Did::Reduced { norms, .. } => {
                self.norms.extend(norms);
                if self.devices.iter().all(Device::has_reduced) && self.clipping.is_some() {
                    self.norm = Some(norm(&mut self.norms)? * self.per_weight().abs());
                }
            }
            Did::Updated { parameters, .. } => self.devices[device].values = parameters,
            Did::Done => {}
        }
        Ok(())
    }

    /// What `device` is to do now, if anything.
    pub(super) fn next(&mut self, device: usize) -> Option<Duty> {
        let Device { actions, done, answered, .. } = self.devices[device];
        if actions > 0 || !answered || !self.updates {
            return None;
        }
        let (done, duty) = match done {
            Done::Provisional if self.skipped.is_some() => (Done::Undone, Duty::Undo),
            _ if self.skipped.is_some() => return None,
            Done::Actions if self.lanes[device].1.sent.is_empty() => self.reduce(device)?,
            Done::Actions => (Done::Sent, Duty::SendPartialSums),
            Done::Sent => self.reduce(device)?,
            Done::Reduced => self.update()?,
            Done::Provisional => self.validate()?,
            Done::Update => self.broadcast()?,
            Done::Broadcast | Done::Undone => return None,
        };
        self.devices[device].done = done;
        self.devices[device].answered = false;
        Some(duty)
    }

    /// Whether all is done.
    pub(super) fn is_over(&self) -> bool {
        if self.skipped.is_some() || !self.updates {
            let left = |device: &Device| device.actions == 0 && device.done != Done::Provisional;
            return self.devices.iter().all(|device| device.answered && left(device));
        }
        let set = self.devices.iter().any(|device| !device.values.is_empty());
        let last = |device: &Device| match device.done {
            Done::Update => !set,
            Done::Provisional => !set && self.factor() == Some(1.0),
            done => done == Done::Broadcast,
        };
        self.devices.iter().all(|device| device.answered && last(device))
    }

    /// The norm of all gradients, with clipping; NaN in a step without an update.
    pub(super) fn gradient_norm(&self) -> Option<f64> {
        let none = self.skipped.as_ref().and(self.clipping);
        none.map_or(self.norm, |_| Some(f64::NAN))
    }

    /// Why nothing was updated, if nothing was.
    pub(super) fn skipped(&self) -> Option<Error> {
        self.skipped.clone()
    }

    fn reduce(&self, device: usize) -> Option<(Done, Duty)> {
        let mut awaited = self.lanes[device].1.awaited.iter();
        let all = awaited.all(|sum| self.sums.iter().any(|(of, _)| of == sum));
        let reduce = || Duty::Reduce {
            sums: if self.lanes[device].1.awaited.is_empty() {
                Vec::new()
            } else {
                self.sums.clone()
            },
            norms: self.clipping.is_some(),
        };
        all.then(|| (Done::Reduced, reduce()))
    }

    /// An update when its scale is known, or before.
    fn update(&self) -> Option<(Done, Duty)> {
        let learning_rate = self.learning_rate;
        if let Some(factor) = self.factor() {
            let update = Update { learning_rate, scale: self.scale(factor), provisional: false };
            return Some((Done::Update, Duty::Update(update)));
        }
        let clipping = self.clipping.filter(|clipping| clipping.post_validation)?;
        let so_far = self.norms.iter().map(|(_, square)| square).sum::<f64>().sqrt();
        let so_far = so_far * self.per_weight().abs();
        let within = so_far <= clipping.max_norm;
        let update = Update { learning_rate, scale: self.scale(1.0), provisional: true };
        within.then_some((Done::Provisional, Duty::Update(update)))
    }

    /// What follows a provisional update when the norm is known.
    fn validate(&self) -> Option<(Done, Duty)> {
        let factor = self.factor()?;
        if factor == 1.0 {
            return self.broadcast();
        }
        let (learning_rate, scale) = (self.learning_rate, self.scale(factor));
        let update = Update { learning_rate, scale, provisional: false };
        Some((Done::Update, Duty::Redo(update)))
    }

    /// The new values of shared parameters, when every device's update stands.
    fn broadcast(&self) -> Option<(Done, Duty)> {
        let factor = self.factor()?;
        let stands = |device: &Device| match device.done {
            Done::Update => device.answered,
            Done::Provisional => device.answered && factor == 1.0,
            done => done == Done::Broadcast,
        };
        let values: Parameters =
            self.devices.iter().flat_map(|device| device.values.clone()).collect();
        let due = !values.is_empty() && self.devices.iter().all(stands);
        due.then_some((Done::Broadcast, Duty::Broadcast(values)))
    }

    /// What gradients are multiplied by that are clipped by this factor.
    fn scale(&self, factor: f32) -> f32 {
        (f64::from(factor) * self.per_weight()) as f32
    }

    /// What clipping multiplies gradients by, when that is known.
    fn factor(&self) -> Option<f32> {
        match self.clipping {
            None => Some(1.0),
            Some(clipping) => self.norm.map(|norm| clipping.scale(norm)),
        }
    }
}

impl Device {
    fn has_reduced(&self) -> bool {
        match self.done {
            Done::Actions | Done::Sent => false,
            Done::Reduced => self.answered,
            Done::Provisional | Done::Undone | Done::Update | Done::Broadcast => true,
        }
    }
}

/// The norm of all gradients from the squares of each one's, summed in the order of the parameters:
/// the same wherever they are.
fn norm(squares: &mut [(ParameterId, f64)]) -> Result<f64> {
    squares.sort_unstable_by_key(|(parameter, _)| *parameter);
    let norm = squares.iter().map(|(_, square)| square).sum::<f64>().sqrt();
    if norm.is_finite() {
        return Ok(norm);
    }
    Err(Error::new(ErrorKind::NotFinite, format!("the norm of the gradients is {norm}"))
        .hint("a smaller learning rate"))
}
