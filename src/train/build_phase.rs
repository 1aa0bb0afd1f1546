//! What building a trainer is at.

use std::fmt;

/// What [`TrainerBuilder::build`](super::TrainerBuilder::build) does, in this order; a large model
/// takes its time in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildPhase {
    /// Initialising the parameters, and recording what the model computes.
    Capture,
    /// Comparing the blocks' loss and gradients with the model's own.
    Verify,
    /// Opening the devices.
    Devices,
    /// Timing every block on every device.
    Profile,
    /// Cutting the model into stages, and searching for a plan.
    Arrange,
    /// Bringing the stages onto the devices; a GPU that is new here measures its fastest tiles.
    Start,
}

impl fmt::Display for BuildPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BuildPhase::Capture => "initialising and capturing the model",
            BuildPhase::Verify => "comparing the captured model with the module",
            BuildPhase::Devices => "opening the devices",
            BuildPhase::Profile => "timing the blocks of the model",
            BuildPhase::Arrange => "cutting the model and planning its step",
            BuildPhase::Start => "preparing the stages on their devices",
        })
    }
}

/// Who wants to know.
pub(super) struct Phases(Option<Box<dyn FnMut(BuildPhase)>>);

impl Phases {
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    pub(super) fn told(listener: impl FnMut(BuildPhase) + 'static) -> Self {
        Self(Some(Box::new(listener)))
    }

    pub(super) fn begin(&mut self, phase: BuildPhase) {
        if let Some(listener) = &mut self.0 {
            listener(phase);
        }
    }
}

impl fmt::Debug for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Phases(a listener)" } else { "Phases(nobody)" })
    }
}
