//! The gradients that a pipeline computes, to check a model by.

use burn::module::Module;
use burn::tensor::TensorData;

use super::build_phase::Phases;
use super::verified_model::{VerifiedModel, verified_model};
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{Parameter, ParameterId};
use crate::loss::IntoLoss;

/// The gradient of `loss` on `batch` with respect to every parameter, in the module's own order:
/// its path in the module, and its value.
///
/// It is computed as a pipeline computes it that has every block of the model as a stage of its
/// own, on one CPU device, for the whole batch at once. A parameter that the loss does not use, or
/// that does not require a gradient, has the gradient zero. Random numbers are those of seed 0,
/// step 0, microbatch 0.
///
/// Compare it with [`Tensor::backward`](burn::tensor::Tensor::backward) of the same loss to know
/// that a model of your own trains here as it does in Burn.
///
/// # Errors
///
/// Those of [`TrainerBuilder::build`](super::TrainerBuilder::build) that the model is to blame for.
pub fn gradients<M, B, L, R>(model: &M, loss: &L, batch: &B) -> Result<Vec<(String, TensorData)>>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let VerifiedModel { split, runner, .. } =
        verified_model(model, loss, batch, 1, 0, &mut Phases::nobody())?;
    let graph = &split.joint.graph;
    let ids = (0..graph.parameters.len() as u32).map(ParameterId);
    let gradient = |(id, parameter): (ParameterId, &Parameter)| {
        let shape = graph[parameter.node].shape.clone();
        let values = runner.gradient(id, 1.0).unwrap_or_else(|| vec![0.0; shape.elements()]);
        (parameter.path.clone(), TensorData::new(values, shape.0))
    };
    Ok(ids.zip(&graph.parameters).map(gradient).collect())
}
