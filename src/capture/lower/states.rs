//! Values that a forward pass updates by itself, found in its record.

use std::collections::HashSet;

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

/// The updates of the `running` parameters: of each the last tensor of its shape that is made from
/// it, and from which nothing is made. A parameter that is only read has none.
///
/// That it is the update is proved later, by what the module has become after a forward pass.
pub(super) fn updates(record: &Record, running: &HashSet<ParamId>) -> Vec<Update> {
    let read: HashSet<TensorId> =
        record.operations.iter().flat_map(|op| op.inputs()).map(|input| input.id).collect();
    let mut seen = HashSet::new();
    let of = record.parameters.iter().filter(|parameter| running.contains(&parameter.id));
    let mut updates = Vec::new();
    for parameter in of.filter(|parameter| seen.insert(parameter.id)) {
        let mut made = HashSet::from([parameter.tensor]);
        let mut last = None;
        for operation in &record.operations {
            if !operation.inputs().any(|input| made.contains(&input.id)) {
                continue;
            }
            for output in operation.outputs() {
                made.insert(output.id);
                let fits = output.shape.to_vec() == parameter.shape.0;
                if fits && !read.contains(&output.id) && output.id != record.loss {
                    last = Some(output.id);
                }
            }
        }
        if let Some(value) = last {
            updates.push(Update { parameter: parameter.tensor, value });
        }
    }
    updates
}
