//! Values that a forward pass updates by itself, found in its record.

use std::collections::{HashMap, HashSet};

use burn::module::ParamId;
use burn_ir::TensorId;

use crate::capture::record::Record;

/// What a forward pass makes of a running value.
pub(super) struct Update {
    /// The parameter's tensor.
    pub parameter: TensorId,
    /// Its next value.
    pub value: TensorId,
}

/// The updates of the parameters that are `updated`: of each the tensor of its shape that is made
/// from it in the fewest ops, and from which nothing is made. No two have one.
///
/// That it is the update is proved later, by what the module has become after a forward pass.
pub(super) fn updates(record: &Record, updated: &HashSet<ParamId>) -> Vec<Update> {
    let read: HashSet<TensorId> =
        record.operations.iter().flat_map(|op| op.inputs()).map(|input| input.id).collect();
    let mut seen = HashSet::new();
    let of = record.parameters.iter().filter(|parameter| updated.contains(&parameter.id));
    let mut candidates = Vec::new();
    for (order, parameter) in of.filter(|parameter| seen.insert(parameter.id)).enumerate() {
        // How many ops away from the parameter every tensor is.
        let mut made = HashMap::from([(parameter.tensor, 0)]);
        for operation in &record.operations {
            let nearest = operation.inputs().filter_map(|input| made.get(&input.id)).min();
            let Some(&nearest) = nearest else { continue };
            for output in operation.outputs() {
                made.insert(output.id, nearest + 1);
                let fits = output.shape.to_vec() == parameter.shape.0;
                if fits && !read.contains(&output.id) && output.id != record.loss {
                    candidates.push((nearest + 1, order, parameter.tensor, output.id));
                }
            }
        }
    }
    candidates.sort_by_key(|&(distance, order, _, _)| (distance, order));
    let (mut parameters, mut values) = (HashSet::new(), HashSet::new());
    let mut updates = Vec::new();
    for (_, order, parameter, value) in candidates {
        if !parameters.contains(&parameter) && values.insert(value) {
            parameters.insert(parameter);
            updates.push((order, Update { parameter, value }));
        }
    }
    updates.sort_by_key(|(order, _)| *order);
    updates.into_iter().map(|(_, update)| update).collect()
}
