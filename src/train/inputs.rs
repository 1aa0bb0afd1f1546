//! A step's batch, checked and cut into microbatches.

use std::sync::Arc;

use burn::tensor::{Bool, Element, Int, Tensor, TensorData};
use burn_backend::TensorMetadata;
use burn_dispatch::DispatchTensor;

use crate::batch::Batch;
use crate::engine::{StepInputs, host_tensor};
use crate::error::{Error, Result};

/// Cuts every tensor of `batch` along its first dimension into `microbatches` of the example's
/// shapes; integers become 64 bits wide.
///
/// # Errors
///
/// When the batch is not `microbatches` times the example.
pub(super) fn microbatches<B: Batch>(
    batch: B,
    example: &[Vec<usize>],
    microbatches: u32,
) -> Result<StepInputs> {
    let tensors = batch.into_tensors();
    if tensors.len() != example.len() {
        let (found, expected) = (tensors.len(), example.len());
        return Err(Error::data(format!("a batch of {found} tensors, expected {expected}")));
    }
    let count = microbatches as usize;
    let mut inputs = vec![Vec::with_capacity(tensors.len()); count];
    for (position, (tensor, one)) in tensors.into_iter().zip(example).enumerate() {
        let dims = tensor.shape().to_vec();
        let Some((&rows, rest)) = one.split_first() else {
            return Err(Error::data(format!("tensor {position} of the batch has no dimensions"))
                .hint("give every tensor of the batch a first dimension that counts examples"));
        };
        let mut expected = vec![rows * count];
        expected.extend(rest);
        if dims != expected {
            return Err(Error::data(format!(
                "tensor {position} of the batch is {dims:?}, expected {expected:?}: \
                 {count} microbatches of {one:?}"
            ))
            .hint("a batch whose size is the microbatch's times the number of microbatches"));
        }
        let parts = cut(tensor, one, count);
        inputs.iter_mut().zip(parts).for_each(|(microbatch, part)| microbatch.push(part));
    }
    Ok(Arc::new(inputs))
}

/// How many microbatches of the example's shapes a batch has: 1 at least, and rounded down.
pub(super) fn count<B: Batch>(batch: &B, example: &[Vec<usize>]) -> u32 {
    let rows = |shapes: &[Vec<usize>]| shapes.first().and_then(|dims| dims.first().copied());
    let (all, one) = (rows(&shapes(batch)), rows(example));
    all.zip(one).map_or(1, |(all, one)| (all / one.max(1)).max(1) as u32)
}

/// Shapes of the batch's tensors.
pub(super) fn shapes<B: Batch>(batch: &B) -> Vec<Vec<usize>> {
    batch.clone().into_tensors().iter().map(|tensor| tensor.shape().to_vec()).collect()
}

/// The dimension in `Tensor<1>` is not looked at: data and kind are the same for any rank.
fn cut(tensor: DispatchTensor, one: &[usize], count: usize) -> Vec<DispatchTensor> {
    let dtype = tensor.dtype();
    if dtype.is_float() {
        let data = Tensor::<1>::from_dispatch(tensor).into_data();
        parts(&data.iter::<f32>().collect::<Vec<_>>(), one, count)
    } else if dtype.is_bool() {
        let data = Tensor::<1, Bool>::from_dispatch(tensor).into_data();
        parts(&data.iter::<bool>().collect::<Vec<_>>(), one, count)
    } else {
        let data = Tensor::<1, Int>::from_dispatch(tensor).into_data();
        parts(&data.iter::<i64>().collect::<Vec<_>>(), one, count)
    }
}

fn parts<E: Element>(elements: &[E], one: &[usize], count: usize) -> Vec<DispatchTensor> {
    let size = one.iter().product::<usize>();
    (0..count)
        .map(|at| elements[at * size..(at + 1) * size].to_vec())
        .map(|part| host_tensor(TensorData::new(part, one.to_vec())))
        .collect()
}
