//! Constants are computed once, on the host, when a stage is loaded.

use std::collections::HashMap;

use burn_dispatch::{DispatchDevice, DispatchTensor};
use burn_flex::FlexDevice;

use super::pool::BufferPool;
use super::{copy, evaluate};
use crate::compile::Program;
use crate::graph::{Graph, Leaf, NodeId, Op};
use crate::random::RunKey;

/// Values of the constants that `program` reads, each dense.
pub(super) fn fold(
    graph: &Graph,
    program: &Program,
    pool: &BufferPool,
) -> Vec<(NodeId, DispatchTensor)> {
    let device = DispatchDevice::Flex(FlexDevice);
    let key = RunKey::default();
    let mut values: HashMap<NodeId, DispatchTensor> = HashMap::new();
    for &id in &program.folded {
        let node = &graph[id];
        let value = match node.op {
            Op::Leaf(Leaf::Constant(constant)) => {
                evaluate::constant(&graph.constants[constant.0 as usize], &device)
            }
            _ => {
                let operands = node.inputs.iter().map(|input| values[input].clone()).collect();
                evaluate::evaluate(node, operands, key)
            }
        };
        values.insert(id, value);
    }
    let read = |&id: &NodeId| (id, copy(&values[&id], pool));
    program.constants.iter().map(read).collect()
}
