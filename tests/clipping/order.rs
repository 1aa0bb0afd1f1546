//! The order in which devices end a step, on engines that only write down what they are told.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zerobubble::engine::{
    Clipping, Compute, Engine, Outcome, OwnParameters, Parcel, StepInputs, Update,
};
use zerobubble::error::{Error, Result};
use zerobubble::graph::ParameterId;
use zerobubble::plan::{Action, CheckedPlan, ONE_F_ONE_B, channel_capacities, check, generate};
use zerobubble::runtime::{Dispatch, OnNan, Runtime, StepRules};

type Value = burn_dispatch::DispatchTensor;

/// What a device did.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Ran(Action),
    Updated { scale: f32, provisional: bool },
    Undid,
}

/// A device with one parameter whose gradient has norm 3 or 4, which makes 5 together.
struct Scribe {
    device: u32,
    events: Arc<Mutex<Vec<(u32, Event)>>>,
    /// Told when it updates.
    updated: Sender<()>,
    /// An action before which it waits for such news of another device.
    gate: Option<(Action, Receiver<()>)>,
}

impl Scribe {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push((self.device, event));
    }
}

impl Compute for Scribe {
    fn begin_step(&mut self, _step: u64, _inputs: &StepInputs) -> Result<()> {
        if let Some((_, news)) = &self.gate {
            news.try_iter().for_each(drop);
        }
        Ok(())
    }

    fn start(&mut self, action: Action, _arrived: Parcel) -> Result<Option<Outcome>> {
        if let Some((gated, news)) = &self.gate
            && *gated == action
        {
            let waited = news.recv_timeout(Duration::from_secs(20));
            waited.map_err(|_| Error::run("the other device does not update"))?;
        }
        self.note(Event::Ran(action));
        Ok(Some(Outcome::default()))
    }
}

impl Engine for Scribe {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}

impl OwnParameters for Scribe {
    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        Ok(vec![(ParameterId(self.device), f64::from(3 + self.device).powi(2))])
    }

    fn update(&mut self, update: &Update) -> Result<Vec<(ParameterId, Value)>> {
        self.note(Event::Updated { scale: update.scale, provisional: update.provisional });
        self.updated.send(()).ok();
        Ok(Vec::new())
    }

    fn undo(&mut self) -> Result<()> {
        self.note(Event::Undid);
        Ok(())
    }
}

fn plan() -> CheckedPlan {
    check(generate(&ONE_F_ONE_B, 2, None, 3).unwrap()).unwrap()
}

/// Two steps of 1f1b on two devices. With `gated`, the first device waits with its last action
/// until the second, which has ended before, has updated.
fn events(clipping: Option<Clipping>, gated: bool) -> Vec<(u32, Event)> {
    let plan = plan();
    let events = Arc::new(Mutex::new(Vec::new()));
    let (updated, news) = channel();
    let (nobody, _) = channel();
    let last = *plan.plan().lanes[0].last().unwrap();
    let scribe = |device, updated, gate| {
        Box::new(Scribe { device, events: events.clone(), updated, gate }) as Box<dyn Engine>
    };
    let gate = gated.then_some((last, news));
    let engines = vec![scribe(0, nobody, gate), scribe(1, updated, None)];
    let channels = channel_capacities(&plan);
    let rules = StepRules { clipping, on_nan: OnNan::Stop };
    let mut runtime = Runtime::start(plan, Dispatch::Planned, &channels, engines, rules).unwrap();
    for step in 0..2 {
        let outcome = runtime.step(step, Arc::new(Vec::new()), 0.1).unwrap();
        assert_eq!(outcome.gradient_norm, clipping.map(|_| 5.0));
    }
    drop(runtime);
    let events = events.lock().unwrap().clone();
    let (first, second) = events.split_at(events.len() / 2);
    for device in 0..2 {
        assert_eq!(end(first, device), end(second, device), "a step leaves nothing behind");
    }
    first.to_vec()
}

fn clipping(max_norm: f64, post_validation: bool) -> Option<Clipping> {
    Some(Clipping { max_norm, post_validation })
}

/// What one device did after its last action.
fn end(events: &[(u32, Event)], device: u32) -> Vec<Event> {
    let own = events.iter().filter(|(of, _)| *of == device).map(|(_, event)| *event);
    own.filter(|event| !matches!(event, Event::Ran(_))).collect()
}

const STANDS: Event = Event::Updated { scale: 1.0, provisional: false };
const MAY_STAND: Event = Event::Updated { scale: 1.0, provisional: true };
const CLIPPED: Event = Event::Updated { scale: 0.5, provisional: false };

#[test]
fn without_clipping_a_device_updates_when_its_own_work_ends() {
    let events = events(None, true);
    assert_eq!(end(&events, 0), [STANDS]);
    assert_eq!(end(&events, 1), [STANDS]);
}

#[test]
fn with_clipping_no_device_updates_before_all_work_ends() {
    for (max_norm, update) in [(10.0, STANDS), (2.5, CLIPPED)] {
        let events = events(clipping(max_norm, false), false);
        let first = events.iter().position(|(_, event)| !matches!(event, Event::Ran(_))).unwrap();
        assert!(events[first..].iter().all(|(_, event)| *event == update), "{events:?}");
        assert_eq!(events[first..].len(), 2);
    }
}

#[test]
fn with_post_validation_a_device_updates_when_its_own_work_ends() {
    let events = events(clipping(10.0, true), true);
    assert_eq!(end(&events, 1), [MAY_STAND]);
    // The last one knows all norms.
    assert_eq!(end(&events, 0), [STANDS]);
}

#[test]
fn an_update_that_turns_out_to_be_clipped_is_undone_and_done_again() {
    // The second device's gradient alone is below the limit of 4.5, both together are not.
    let events = events(clipping(4.5, true), true);
    let scaled = Event::Updated { scale: (4.5f64 / 5.0) as f32, provisional: false };
    assert_eq!(end(&events, 1), [MAY_STAND, Event::Undid, scaled]);
    assert_eq!(end(&events, 0), [scaled]);
}

#[test]
fn a_device_that_knows_that_gradients_are_clipped_waits_for_the_norm() {
    let events = events(clipping(2.5, true), false);
    assert_eq!(end(&events, 1), [CLIPPED]);
    assert_eq!(end(&events, 0), [CLIPPED]);
}
