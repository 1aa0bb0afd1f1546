//! What a training step consumes: tensors, or tuples of tensors, whose first dimension counts
//! examples.

use burn::tensor::kind::Basic;
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_dispatch::DispatchTensor;

/// A tensor or tuple of tensors that a model's loss is computed from.
///
/// Implement it for a type of your own by passing its tensors on in one fixed order.
pub trait Batch: Clone {
    /// The tensors, in order.
    fn into_tensors(self) -> Vec<DispatchTensor>;

    /// The batch made of `tensors`, which come in the order of [`Batch::into_tensors`].
    fn from_tensors(tensors: &mut impl Iterator<Item = DispatchTensor>) -> Self;
}

impl<const D: usize, K: Basic> Batch for Tensor<D, K> {
    fn into_tensors(self) -> Vec<DispatchTensor> {
        vec![self.into_dispatch()]
    }

    fn from_tensors(tensors: &mut impl Iterator<Item = DispatchTensor>) -> Self {
        Tensor::from_dispatch(tensors.next().expect("a batch has as many tensors as it gave"))
    }
}

macro_rules! tuple {
    ($($name:ident)+) => {
        impl<$($name: Batch),+> Batch for ($($name,)+) {
            fn into_tensors(self) -> Vec<DispatchTensor> {
                #[expect(non_snake_case, reason = "one variable for each type")]
                let ($($name,)+) = self;
                let mut tensors = Vec::new();
                $(tensors.extend($name.into_tensors());)+
                tensors
            }

            fn from_tensors(tensors: &mut impl Iterator<Item = DispatchTensor>) -> Self {
                ($($name::from_tensors(tensors),)+)
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);

/// `tensor`, whatever its rank and kind, on another device.
pub(crate) fn move_to(tensor: DispatchTensor, device: &Device) -> DispatchTensor {
    let dtype = burn_backend::TensorMetadata::dtype(&tensor);
    // The dimension in the type is not looked at: moving is the same for every rank.
    if dtype.is_float() {
        let tensor = Tensor::<1>::from_dispatch(tensor).without_autodiff();
        tensor.to_device(device).into_dispatch()
    } else if dtype.is_bool() {
        let tensor = Tensor::<1, Bool>::from_dispatch(tensor).without_autodiff();
        tensor.to_device(device).into_dispatch()
    } else {
        let tensor = Tensor::<1, Int>::from_dispatch(tensor).without_autodiff();
        tensor.to_device(device).into_dispatch()
    }
}
