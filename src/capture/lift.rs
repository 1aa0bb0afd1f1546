//! Tensors of the capture device as part of an autodiff run, so that layers see that they train.
//!
//! Burn does not lift them by itself, since nothing can be differentiated there; but what its
//! layers do in training is what is to be recorded.

use std::collections::HashSet;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_backend::{AutodiffBackend, TensorMetadata};
use burn_capture::CaptureBackend;
use burn_dispatch::DispatchTensor;
use burn_dispatch::backends::Autodiff;

/// The capture device with autodiff around it.
pub(crate) type TrainingCapture = Autodiff<CaptureBackend>;

/// The parameters that are values which the forward pass itself updates, such as the running
/// statistics of batch norm.
pub(super) fn running<M: Module>(model: &M) -> HashSet<ParamId> {
    struct Empty;
    impl ModuleMapper for Empty {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| Tensor::empty([0; D], &value.device()))
        }
    }
    struct Emptied(HashSet<ParamId>);
    impl ModuleVisitor for Emptied {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().shape().num_elements() == 0 {
                self.0.insert(param.id);
            }
        }
    }
    // Only they are shared by all clones of a module. `valid` makes those of the copy its own.
    let copy = model.valid();
    let _ = copy.clone().map(&mut Empty);
    let mut emptied = Emptied(HashSet::new());
    copy.visit(&mut emptied);
    emptied.0
}

/// A copy of the module, with values of its own, of which every float is multiplied by `factor`.
pub(super) fn scaled<M: Module>(model: &M, factor: f64) -> M {
    struct Scale(f64);
    impl ModuleMapper for Scale {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value * self.0)
        }
    }
    model.valid().to_device(&Device::flex()).map(&mut Scale(factor))
}

/// The module with every `running` value moved, to where no usual statistic is and variances stay
/// above 0.
pub(super) fn moved<M: Module>(model: M, running: &HashSet<ParamId>) -> M {
    const DISTANCE: f64 = 0.7310585786;
    struct Move<'a>(&'a HashSet<ParamId>);
    impl ModuleMapper for Move<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let moves = self.0.contains(&param.id);
            if moves { param.map(|value| value + DISTANCE) } else { param }
        }
    }
    model.map(&mut Move(running))
}

/// The module as in training. What is `running` stays as it is: it takes part in no autodiff run.
pub(super) fn lifted<M: Module>(model: M, running: &HashSet<ParamId>) -> M {
    struct Lift<'a>(&'a HashSet<ParamId>);
    impl ModuleMapper for Lift<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.contains(&param.id) { param } else { param.map(lift) }
        }

        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.train()
        }
    }
    model.map(&mut Lift(running))
}

/// A float of the capture device, lifted.
pub(crate) fn lift<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.clone().try_into_primitive::<CaptureBackend>() {
        Ok(inner) => Tensor::from_primitive::<TrainingCapture>(TrainingCapture::from_inner(inner)),
        Err(_) => tensor,
    }
}

/// A tensor of any kind and rank, lifted.
pub(super) fn lift_tensor(tensor: DispatchTensor) -> DispatchTensor {
    // The dimension in the type is not looked at.
    let dtype = tensor.dtype();
    if dtype.is_float() {
        lift(Tensor::<1>::from_dispatch(tensor)).into_dispatch()
    } else if dtype.is_bool() {
        Tensor::<1, Bool>::from_dispatch(tensor).autodiff().into_dispatch()
    } else {
        Tensor::<1, Int>::from_dispatch(tensor).autodiff().into_dispatch()
    }
}
