//! A Burn module to a [`Graph`], and trained parameters back to the module.
//!
//! Architecture invariant: Burn's recorded ops and parameter ids stop here.

mod eager;
mod fuse;
mod lift;
mod lower;
mod merge;
mod parameters;
mod reads;
mod record;
mod verify;

use std::collections::HashSet;

use burn::module::{Module, ParamId};
use burn::tensor::DType;
use burn_ir::RandomOpIr;

use eager::modes_agree;
pub(crate) use eager::{EagerRun, eager_run, is_mean};
pub(crate) use lift::{TrainingCapture, lift};
pub(crate) use parameters::{load, paths, read};
pub(crate) use verify::{norm, verify_gradient, verify_loss, verify_state};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{Graph, prune, verify as verify_graph};
use crate::loss::IntoLoss;
use lower::{Lowered, lower};
use reads::{Answered, of_one_example, record_answering, unknown};
use record::{Mode, Record};

/// A model's graph, and what is needed to prove that it is.
pub(crate) struct Captured {
    /// What the model does in training, and in inference where that is another thing.
    pub graph: Graph,
    /// The numbers that a forward pass in training draws at random, in order.
    pub draws: Vec<RandomOpIr>,
    /// Whether the graph is known in inference.
    pub infers: bool,
    /// The parameters that a forward pass may update by itself.
    pub running: HashSet<ParamId>,
}

/// Records `loss` of `model` on a microbatch like `example`, in training and in inference, and
/// gives it as a [`Graph`].
///
/// The same input gives the same graph, byte for byte.
///
/// # Errors
///
/// When the model has no parameters, the forward pass panics, an op is not known to the graph
/// (the error names it and its module), or the loss is not one float.
pub fn capture<M, B, L, R>(model: &M, loss: &L, example: &B) -> Result<Graph>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    Ok(captured(model, loss, example)?.graph)
}

/// [`capture`], with what proves it.
pub(crate) fn captured<M, B, L, R>(model: &M, loss: &L, example: &B) -> Result<Captured>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    check_floats(example)?;
    let frozen = parameters::frozen(model);
    let running = lift::running(model);
    let graph_of = |record: &Record, mode| -> Result<(Graph, Vec<RandomOpIr>)> {
        check_parameters(record)?;
        let Lowered { graph, draws } = lower(record, &frozen, &running)?;
        verify_graph(&graph)?;
        Ok((prune(&fuse::fuse(&graph, mode)?), draws))
    };
    let recorded = |mode| {
        let answering = |example: &B| record_answering(model, loss, example, mode, &running);
        let Answered { record, last_read } = answering(example)?;
        let (graph, draws) = graph_of(&record, mode)?;
        if let Some(read) = last_read {
            // What was read may decide what is computed.
            for last in [false, true] {
                let other = answering(&of_one_example(example, last));
                let other = other.and_then(|other| graph_of(&other.record, mode));
                if !other.is_ok_and(|(other, _)| other == graph) {
                    return Err(unknown(&read));
                }
            }
        }
        Ok((graph, draws))
    };
    let (training, draws) = recorded(Mode::Training)?;
    let inference = recorded(Mode::Inference).ok().map(|(graph, _)| graph);
    // Without random numbers or states, modes that give one loss are one thing written twice.
    let is_fixed = draws.is_empty() && training.states.is_empty();
    let is_one_thing = is_fixed && inference.is_some() && modes_agree(model, loss, example)?;
    let (graph, infers) = match inference {
        Some(inference) if is_one_thing || inference == training => (inference, true),
        Some(inference) => match merge::merge(&training, &inference, draws.len() as u32)? {
            Some(merged) => (prune(&merged), true),
            None => (training, false),
        },
        None => (training, false),
    };
    verify_graph(&graph)?;
    Ok(Captured { graph, draws, infers, running })
}

fn check_parameters(record: &Record) -> Result<()> {
    if record.parameters.is_empty() {
        return Err(Error::model("the module has no parameters")
            .hint("train a module that holds at least one Param<Tensor<D>>"));
    }
    match record.parameters.iter().find(|parameter| parameter.dtype != DType::F32) {
        Some(parameters::RecordedParameter { path, dtype, .. }) => {
            Err(Error::model(format!("parameter {path} is of {dtype:?}, not of f32"))
                .hint("cast the module to f32"))
        }
        None => Ok(()),
    }
}

/// Floats of other widths are refused before Burn panics on an op that mixes them.
fn check_floats<B: Batch>(example: &B) -> Result<()> {
    for (position, tensor) in example.clone().into_tensors().iter().enumerate() {
        let dtype = burn_backend::TensorMetadata::dtype(tensor);
        if dtype.is_float() && dtype != DType::F32 {
            let problem = format!("tensor {position} of the batch is of {dtype:?}, not of f32");
            return Err(Error::data(problem).hint("cast it to f32"));
        }
    }
    Ok(())
}
