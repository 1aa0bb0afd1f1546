//! What is there before anything is computed.

use std::fmt;

use crate::graph::{ConstantId, InputId, ParameterId};

/// A node without operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// A tensor of the batch.
    Input(InputId),
    /// A trainable tensor.
    Parameter(ParameterId),
    /// A tensor captured with its values.
    Constant(ConstantId),
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::Input(id) => write!(f, "input {}", id.0),
            Leaf::Parameter(id) => write!(f, "parameter {}", id.0),
            Leaf::Constant(id) => write!(f, "constant {}", id.0),
        }
    }
}
