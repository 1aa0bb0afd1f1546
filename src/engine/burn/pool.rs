//! Memory of values that are no longer needed, for values to come.
//!
//! A stage's actions make the same sizes over and over, so after its first microbatches an engine
//! takes all its memory from here: nothing is asked of the system and no page is touched for the
//! first time.

use std::collections::HashMap;

use burn_dispatch::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn_std::sync::Arc;

/// Float buffers by their number of elements.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: HashMap<usize, Vec<Vec<f32>>>,
}

impl Pool {
    /// A buffer of `elements` floats of any value.
    pub(super) fn take(&mut self, elements: usize) -> Vec<f32> {
        let free = self.free.get_mut(&elements).and_then(Vec::pop);
        free.unwrap_or_else(|| vec![0.0; elements])
    }

    /// Takes back the memory of `tensor` if nothing else holds it.
    pub(super) fn give(&mut self, tensor: DispatchTensor) {
        let DispatchTensorKind::Flex(BackendTensor::Float(tensor)) = tensor.kind else { return };
        let memory = tensor.data_arc();
        drop(tensor);
        let Ok(bytes) = Arc::try_unwrap(memory) else { return };
        if let Ok(buffer) = bytes.try_into_vec::<f32>() {
            self.free.entry(buffer.len()).or_default().push(buffer);
        }
    }
}
