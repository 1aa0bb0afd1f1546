//! The blocks of a split as a table.

use std::fmt;

use super::compile;
use crate::graph::NodeId;
use crate::split::Split;

/// Prints as a table: for every block of a split what crosses, what is stashed when the block is a
/// stage by itself, and its work.
#[derive(Debug, Clone, Copy)]
pub struct BlockTable<'a>(pub &'a Split);

impl fmt::Display for BlockTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(split) = self;
        writeln!(
            f,
            "{:>5} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}  parameters",
            "block", "act. out", "grad. out", "stash B", "stash W", "grad. W", "MFLOP F", "B", "W"
        )?;
        for (index, block) in split.blocks.iter().enumerate() {
            let bytes =
                |ids: &[NodeId]| ids.iter().map(|&id| split.joint.graph[id].bytes()).sum::<u64>();
            let stash = compile(split, index..index + 1).bytes;
            write!(
                f,
                "{index:>5} {:>10} {:>10} {:>10} {:>10} {:>10}",
                bytes(&block.activations_out),
                bytes(&block.gradients_out),
                stash.forward_for_b,
                stash.forward_for_w,
                stash.backward_for_w
            )?;
            for flops in block.flops.0 {
                write!(f, " {:>8.1}", flops / 1e6)?;
            }
            writeln!(f, "  {}", split.modules(index))?;
        }
        Ok(())
    }
}
