//! Proof that a graph is well-formed: SSA, well-typed, complete.

use super::{DType, Facts, Graph, Leaf, Op};
use crate::error::{Error, Result};

/// Checks what [`Graph::push`] guarantees, on a graph from anywhere: operands come before their
/// uses, every shape and type follows from its op's rule, leaves and tables name each other, and
/// the loss is one float. Gives what later passes need to know of it.
///
/// # Errors
///
/// Names the first node that breaks a rule.
pub fn verify(graph: &Graph) -> Result<Facts> {
    for id in graph.ids() {
        let node = &graph[id];
        let at = |error: Error| error.in_op(format!("{id} {}", node.op));
        if let Some(later) = node.inputs.iter().find(|&&input| input >= id) {
            return Err(at(Error::model(format!("uses {later} before it is computed"))));
        }
        let known = match node.op {
            Op::Leaf(Leaf::Input(input)) => graph.inputs.get(input.0 as usize) == Some(&id),
            Op::Leaf(Leaf::Parameter(parameter)) => {
                graph.parameters.get(parameter.index()).is_some_and(|known| known.node == id)
                    && node.dtype == DType::F32
            }
            Op::Leaf(Leaf::Constant(constant)) => {
                graph.constants.get(constant.0 as usize).is_some_and(|known| {
                    known.shape == node.shape && known.values.dtype() == node.dtype
                })
            }
            _ => {
                let operands: Vec<_> = node.inputs.iter().map(|&input| &graph[input]).collect();
                node.op.output(&operands).map_err(at)? == (node.shape.clone(), node.dtype)
            }
        };
        if !known {
            return Err(at(Error::model("its declared shape, type or table entry is wrong")));
        }
    }
    let floats = if graph.weighted { 2 } else { 1 };
    match graph.loss {
        Some(loss) if graph[loss].dtype == DType::F32 && graph[loss].shape.elements() == floats => {
            Ok(Facts::of(graph))
        }
        Some(loss) => Err(Error::model(format!("the loss is {}", graph[loss]))
            .hint("return one float: the mean over the microbatch")),
        None => Err(Error::model("the graph has no loss")),
    }
}
