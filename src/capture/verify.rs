//! Proof that the captured graph trains what the module trains.
//!
//! On a capture device Burn's layers act as in inference: dropout and noise vanish and batch norm
//! uses its running statistics, all in silence. So the graph's loss on the example must equal the
//! loss that the module computes eagerly in training mode.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_dispatch::DispatchTensor;

use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message};
use crate::nn::with_dropout_key;

/// Layers of Burn that act differently in training and need a replacement here.
const TRAINING_ONLY: [&str; 5] = ["Dropout", "BatchNorm", "GaussianNoise", "RRelu", "InstanceNorm"];

/// Largest accepted difference, relative to 1 or to the loss if that is larger: the two sides sum
/// in different orders in f32.
const TOLERANCE: f64 = 1e-4;

/// What the module computed by itself.
pub(crate) struct EagerLoss {
    /// The loss in training mode, with dropout keyed by `seed`, step 0, microbatch 0.
    pub loss: f64,
    /// Paths and types of the layers that may act differently in training.
    pub suspects: Vec<String>,
}

/// Runs `loss` in training mode on one microbatch, on Burn's Flex device.
///
/// # Errors
///
/// When the module panics.
pub(crate) fn eager_loss<M, B, L>(model: &M, loss: &L, example: &B, seed: u64) -> Result<EagerLoss>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    let device = Device::flex();
    let run = || {
        let model = model.valid().to_device(&device).train();
        let tensors = example.clone().into_tensors();
        let mut tensors = tensors.into_iter().map(|tensor| with_autodiff(move_to(tensor, &device)));
        let batch = B::from_tensors(&mut tensors);
        let loss = with_dropout_key(seed, 0, 0, || loss(&model, batch));
        loss.into_scalar::<f32>()
    };
    let loss = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        Error::model(format!("the model panicked on the example: {}", panic_message(&*panic)))
    })?;
    Ok(EagerLoss { loss: loss.into(), suspects: suspects(model) })
}

/// `tensor` as part of an autodiff run, so that layers see that they train.
fn with_autodiff(tensor: DispatchTensor) -> DispatchTensor {
    let dtype = burn_backend::TensorMetadata::dtype(&tensor);
    if dtype.is_float() {
        Tensor::<1>::from_dispatch(tensor).autodiff().into_dispatch()
    } else if dtype.is_bool() {
        Tensor::<1, Bool>::from_dispatch(tensor).autodiff().into_dispatch()
    } else {
        Tensor::<1, Int>::from_dispatch(tensor).autodiff().into_dispatch()
    }
}

/// Compares the graph's loss with the module's own.
///
/// # Errors
///
/// Names the layers that train differently, or says that the losses differ.
pub(crate) fn verify_loss(captured: f64, eager: &EagerLoss) -> Result<()> {
    let difference = (captured - eager.loss).abs();
    let both_nan = captured.is_nan() && eager.loss.is_nan();
    if difference <= TOLERANCE * eager.loss.abs().max(1.0) || both_nan {
        return Ok(());
    }
    let problem = format!("its captured loss is {captured}, its loss in training {}", eager.loss);
    if eager.suspects.is_empty() {
        return Err(Error::model(problem).hint("remove what depends on chance or on the device"));
    }
    Err(Error::model(problem)
        .in_module(eager.suspects.join(", "))
        .hint("set its probability to 0, use zerobubble::nn::Dropout, or LayerNorm for BatchNorm"))
}

fn suspects<M: Module>(model: &M) -> Vec<String> {
    #[derive(Default)]
    struct Visitor {
        path: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, container: &str) {
            // The container is the type that has the field `name`: the path so far leads to it.
            let container = container.rsplit(':').next().unwrap_or(container);
            // The dropout of this crate has the same name, but another field.
            let ours = name == "probability";
            if TRAINING_ONLY.contains(&container) && !ours {
                let layer = format!("{} ({container})", self.path.join("."));
                if !self.found.contains(&layer) {
                    self.found.push(layer);
                }
            }
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
    }
    let mut visitor = Visitor::default();
    model.visit(&mut visitor);
    visitor.found
}
