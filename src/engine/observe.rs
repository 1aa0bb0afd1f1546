//! What an engine shows of what it computes.

use std::fmt;

use burn_dispatch::DispatchTensor;

use crate::compile::Accumulator;
use crate::graph::NodeId;

/// Part of what an action computes, in memory of its own.
#[derive(Debug, Clone)]
pub enum Shown {
    /// What arrived for the action, or all that one kernel wrote; ascending. What an op only views
    /// and what a kernel keeps for itself is not among it.
    Values(Vec<(NodeId, DispatchTensor)>),
    /// The sums of gradients of the action's stage as they are after its W.
    Sums(Vec<(Accumulator, DispatchTensor)>),
}

/// Looks at what an engine computes.
pub struct Observer(Box<dyn FnMut(Shown) + Send>);

impl Observer {
    /// Calls `look` with everything that is shown.
    pub fn new(look: impl FnMut(Shown) + Send + 'static) -> Self {
        Self(Box::new(look))
    }

    /// Shows a part.
    pub fn show(&mut self, shown: Shown) {
        (self.0)(shown);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
