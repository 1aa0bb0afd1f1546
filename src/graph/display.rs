//! The graph as text, one node a line, fit for a diff.

use std::fmt;

use super::{DType, Graph, Leaf, Node, NodeId, Op, Shape, Values};

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::Int => "int",
            DType::Bool => "bool",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} = {}", self.dtype, self.shape, self.op)?;
        let mut separator = " ";
        for input in &self.inputs {
            write!(f, "{separator}{input}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in self.ids() {
            write!(f, "{id}: {}", self[id])?;
            match self[id].op {
                Op::Leaf(Leaf::Parameter(parameter)) => {
                    let parameter = &self.parameters[parameter.index()];
                    let frozen = if parameter.trained { "" } else { ", frozen" };
                    write!(f, "  # {}{frozen}", parameter.path)?;
                }
                Op::Leaf(Leaf::Constant(constant)) => {
                    let values = &self.constants[constant.0 as usize].values;
                    write!(f, "  # {:016x}", fingerprint(values))?;
                }
                _ => {}
            }
            if self.boundaries.contains(&id) {
                write!(f, "  # boundary")?;
            }
            writeln!(f)?;
        }
        match self.loss {
            Some(loss) if self.weighted => writeln!(f, "weighted loss {loss}"),
            Some(loss) => writeln!(f, "loss {loss}"),
            None => Ok(()),
        }
    }
}

/// Tells constants apart in a printed graph without printing their values.
fn fingerprint(values: &Values) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    match values {
        Values::F32(values) => hasher.update(bytemuck::cast_slice(values)),
        Values::Int(values) => hasher.update(bytemuck::cast_slice(values)),
        Values::Bool(values) => values.iter().for_each(|&value| hasher.update(&[value.into()])),
    }
    hasher.digest()
}
