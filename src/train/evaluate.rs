//! Losses without training, on the devices that train.

use burn::module::Module;

use super::Trainer;
use super::inputs;
use crate::batch::Batch;
use crate::engine::MicrobatchLoss;
use crate::error::{Error, Result};
use crate::plan::{check, evaluation};

impl<M: Module, B: Batch> Trainer<M, B> {
    /// The mean loss over a batch of any number of microbatches like the example, as the module
    /// computes it in inference: without dropout, say. The devices of the run compute it, and
    /// nothing changes: neither the weights nor the bits of later steps, nor what a device holds at
    /// most. Where a number is not finite, it is NaN or infinite, and the run may go on.
    ///
    /// # Errors
    ///
    /// When the module does something else in inference than in training, in more than elementwise
    /// ops, reductions and the like; when the batch has other shapes, or a device fails. Only after
    /// an error of a device is the trainer of no further use.
    pub fn evaluate(&mut self, batch: B) -> Result<f64> {
        if !self.infers {
            return Err(Error::model("the module computes other products in inference")
                .hint("compute the loss of `Trainer::model` in Burn"));
        }
        let count = inputs::count(&batch, &self.example);
        let inputs = inputs::microbatches(batch, &self.example, count)?;
        let forward = self.prediction.channels.iter().filter(|of| of.link.is_forward());
        let round = forward.map(|channel| channel.capacity).min().unwrap_or(count);
        let plan = check(evaluation(&self.plan.plan().placement, count, round))?;
        let outcome = self.runtime.evaluate(plan, inputs)?;
        let loss = MicrobatchLoss::mean_of(&outcome.losses);
        // An activation that is NaN need not reach the loss.
        Ok(if outcome.skipped.is_some() && loss.is_finite() { f64::NAN } else { loss })
    }
}
