//! An engine that computes nothing: what remains is the runtime's own cost.

use burn_dispatch::DispatchTensor;

use super::{Engine, Outcome, ParameterState, Parcel, SharedSums, StepInputs, Update};
use crate::compile::Accumulator;
use crate::error::Result;
use crate::graph::ParameterId;
use crate::plan::Action;

/// Accepts every action and yields empty parcels.
#[derive(Debug, Default)]
pub struct NullEngine;

impl Engine for NullEngine {
    fn begin_step(&mut self, _step: u64, _inputs: &StepInputs) -> Result<()> {
        Ok(())
    }

    fn start(&mut self, _action: Action, _arrived: Parcel) -> Result<Option<Outcome>> {
        Ok(Some(Outcome::default()))
    }

    fn shared_sums(&self) -> SharedSums {
        SharedSums::default()
    }

    fn take_shared_gradients(&mut self) -> Result<Vec<(Accumulator, DispatchTensor)>> {
        Ok(Vec::new())
    }

    fn gather(&mut self, _shared: &[(Accumulator, DispatchTensor)]) -> Result<()> {
        Ok(())
    }

    fn squared_norms(&mut self) -> Result<Vec<(ParameterId, f64)>> {
        Ok(Vec::new())
    }

    fn update(&mut self, _update: &Update) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        Ok(Vec::new())
    }

    fn undo(&mut self) -> Result<()> {
        Ok(())
    }

    fn set_parameters(&mut self, _values: &[(ParameterId, DispatchTensor)]) -> Result<()> {
        Ok(())
    }

    fn parameters(&mut self) -> Result<Vec<(ParameterId, DispatchTensor)>> {
        Ok(Vec::new())
    }

    fn state(&mut self) -> Result<Vec<(ParameterId, ParameterState)>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: &[(ParameterId, ParameterState)]) -> Result<()> {
        Ok(())
    }

    fn peak_bytes(&self) -> u64 {
        0
    }
}
