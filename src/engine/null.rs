//! An engine that computes nothing: what remains is the runtime's own cost.

use super::{Compute, Engine, Outcome, OwnParameters, Parcel, StepInputs};
use crate::error::Result;
use crate::plan::Action;

/// Accepts every action and yields empty parcels.
#[derive(Debug, Default)]
pub struct NullEngine;

impl Compute for NullEngine {
    fn begin_step(&mut self, _step: u64, _inputs: &StepInputs) -> Result<()> {
        Ok(())
    }

    fn start(&mut self, _action: Action, _arrived: Parcel) -> Result<Option<Outcome>> {
        Ok(Some(Outcome::default()))
    }
}

impl OwnParameters for NullEngine {}

impl Engine for NullEngine {
    fn owner(&mut self) -> &mut dyn OwnParameters {
        self
    }
}
