//! A Burn module to a [`Graph`], and trained parameters back to the module.
//!
//! Architecture invariant: Burn's recorded ops and parameter ids stop here.

mod copies;
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

use copies::without_copies;
use eager::modes_agree;
pub(crate) use eager::{EagerRun, eager_run, is_mean, rounding};
pub(crate) use lift::{TrainingCapture, lift};
use parameters::RecordedParameter;
pub(crate) use parameters::{emptied, load, paths, read, read_besides};
pub(crate) use verify::{CapturedRun, Rounding, verify};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{Graph, prune, verify as verify_graph};
use crate::loss::IntoLoss;
use lower::{Lowered, lower};
use reads::{of_one_example, record_answering, unknown};
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
    let updated = if running.is_empty() {
        HashSet::new()
    } else {
        eager::updated(model, loss, example, &running)?
    };
    let recorded = |mode| -> Result<(Graph, Vec<RandomOpIr>)> {
        let lowered = |model: &M, example: &B| -> Result<(Lowered, Option<String>)> {
            let answered = record_answering(model, loss, example, mode, &running)?;
            check_parameters(&answered.record)?;
            let lowered = lower(&answered.record, &frozen, &updated)?;
            verify_graph(&lowered.readable.graph)?;
            Ok((lowered, answered.last_read))
        };
        let (Lowered { readable, draws }, last_read) = lowered(model, example)?;
        // What the model reads, of the batch or of itself, may decide what it computes, and may end
        // up as a constant.
        let others = [(false, 1.25), (true, 0.75)];
        let others = others.map(|(last, factor)| {
            lowered(&lift::scaled(model, factor), &of_one_example(example, last))
        });
        let others = others.into_iter().map(|other| Ok(other?.0.readable));
        let graph = match others.collect::<Result<Vec<_>>>() {
            Ok(others) => without_copies(&readable, &others)?,
            Err(_) => None,
        };
        let graph = match graph {
            Some(graph) => graph,
            None if lowered(model, example)?.0.readable.graph != readable.graph => {
                return Err(changes_outside());
            }
            None => {
                let read = last_read.unwrap_or_else(|| "its batch or its parameters".into());
                return Err(unknown(&read));
            }
        };
        Ok((prune(&fuse::fuse(&graph, mode)?), draws))
    };
    let (training, draws) = recorded(Mode::Training)?;
    check_states(&training)?;
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

/// Why a model cannot be captured that is another one at its second capture.
fn changes_outside() -> Error {
    let problem = "it computes something else every time: a value from outside of the module and \
                   its batch changes, and would be fixed as it was";
    Error::model(problem).hint("give it as a tensor of the batch")
}

/// Refuses a loss that depends on a running value which the forward pass updates: the backward pass
/// of a microbatch would find what later ones have made of it.
fn check_states(graph: &Graph) -> Result<()> {
    let mut needed = vec![false; graph.nodes.len()];
    graph.loss.iter().for_each(|loss| needed[loss.index()] = true);
    for id in graph.ids().rev() {
        if needed[id.index()] {
            graph[id].inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    for state in &graph.states {
        let parameter = &graph.parameters[state.parameter.index()];
        if needed[parameter.node.index()] {
            let problem = "the loss depends on a running value that the forward pass updates";
            return Err(Error::model(problem)
                .in_module(parameter.path.clone())
                .hint("compute the loss from the microbatch's own value, as batch norm does"));
        }
    }
    Ok(())
}

fn check_parameters(record: &Record) -> Result<()> {
    if record.parameters.is_empty() {
        return Err(Error::model("the module has no parameters")
            .hint("train a module that holds at least one Param<Tensor<D>>"));
    }
    for (at, RecordedParameter { id, path, .. }) in record.parameters.iter().enumerate() {
        if let Some(first) = record.parameters[..at].iter().find(|first| first.id == *id) {
            let problem = format!("{} and {path} are one parameter by their id", first.path);
            return Err(Error::model(problem).in_module(path.clone()).hint(
                "a clone of a layer trains by itself in Burn: make two layers, or use one twice",
            ));
        }
    }
    match record.parameters.iter().find(|parameter| parameter.dtype != DType::F32) {
        Some(RecordedParameter { path, dtype, .. }) => {
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
