//! The split as a table: for every block what crosses, what is stashed, and its work.

use std::fmt;

use super::compile;
use crate::graph::NodeId;
use crate::split::Split;

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}  parameters",
            "block", "act. out", "grad. out", "stash B", "stash W", "grad. W", "MFLOP F", "B", "W"
        )?;
        for (index, block) in self.blocks.iter().enumerate() {
            let bytes =
                |ids: &[NodeId]| ids.iter().map(|&id| self.joint.graph[id].bytes()).sum::<u64>();
            let stash = compile(self, index..index + 1).bytes;
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
            writeln!(f, "  {}", self.modules(index))?;
        }
        Ok(())
    }
}

impl Split {
    /// The modules whose parameters a block uses, such as `blocks.0.attention.query ..
    /// blocks.0.attention.output`.
    pub fn modules(&self, block: usize) -> String {
        let module = |position: &crate::graph::ParameterId| {
            let path = &self.joint.graph.parameters[position.index()].path;
            path.rsplit_once('.').map_or(path.as_str(), |(module, _)| module)
        };
        let parameters = &self.blocks[block].parameters;
        match (parameters.first().map(module), parameters.last().map(module)) {
            (Some(first), Some(last)) if first != last => format!("{first} .. {last}"),
            (Some(only), _) => only.to_string(),
            (None, _) => "none".to_string(),
        }
    }
}
