//! Proof that the captured graph trains what the module trains.
//!
//! On a capture device Burn's layers act as in inference: dropout and noise vanish and batch norm
//! uses its running statistics, all in silence. So the graph's loss on the example must equal the
//! loss that the module computes eagerly in training mode.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor};
use burn_dispatch::DispatchTensor;

use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message};
use crate::nn::with_dropout_key;

/// Layers of Burn that act differently in training and need a replacement here.
const TRAINING_ONLY: [&str; 4] = ["Dropout", "BatchNorm", "GaussianNoise", "RRelu"];

/// Largest accepted difference, relative to 1 or to the loss if that is larger: the two sides sum
/// in different orders in f32.
const TOLERANCE: f64 = 1e-4;

/// Largest accepted difference of a gradient, relative to its norm.
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// What the module computed by itself.
pub(crate) struct EagerLoss {
    /// The loss in training mode, with dropout keyed by `seed`, step 0, microbatch 0.
    pub loss: f64,
    /// Its gradients, in the order of the module's parameters; none where Burn has none.
    pub gradients: Vec<Option<Vec<f32>>>,
    /// Paths and types of the layers that may act differently in training.
    pub suspects: Vec<String>,
}

/// Runs `loss` and its backward in training mode on one microbatch, on Burn's Flex device.
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
        let gradients = gradients(&model, &loss.backward());
        (loss.into_scalar::<f32>(), gradients)
    };
    let (loss, gradients) = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        Error::model(format!("the model panicked on the example: {}", panic_message(&*panic)))
    })?;
    Ok(EagerLoss { loss: loss.into(), gradients, suspects: suspects(model) })
}

/// Gradients of the module's parameters, each once; the uses of a parameter that the module holds
/// twice are added.
fn gradients<M: Module>(model: &M, of: &Gradients) -> Vec<Option<Vec<f32>>> {
    struct Visitor<'a> {
        of: &'a Gradients,
        found: Vec<(ParamId, Option<Vec<f32>>)>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.of);
            let gradient = gradient.map(|of| of.into_data().iter::<f32>().collect::<Vec<_>>());
            match self.found.iter_mut().find(|(id, _)| *id == param.id) {
                None => self.found.push((param.id, gradient)),
                Some((_, Some(sum))) => {
                    let more = gradient.unwrap_or_default();
                    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
                Some((_, sum)) => *sum = gradient,
            }
        }
    }
    let mut visitor = Visitor { of, found: Vec::new() };
    model.visit(&mut visitor);
    visitor.found.into_iter().map(|(_, gradient)| gradient).collect()
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
    if difference <= TOLERANCE * eager.loss.abs().max(1.0) {
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

/// Compares a gradient of the graph with the module's own: `path` names the parameter, `largest`
/// is the norm of the module's largest gradient.
///
/// # Errors
///
/// When they differ though the losses do not: something that changes gradients alone, such as
/// `detach`, leaves no record.
pub(crate) fn verify_gradient(
    path: &str,
    captured: &[f32],
    eager: Option<&[f32]>,
    largest: f64,
) -> Result<()> {
    let difference = match eager {
        Some(eager) => norm(captured.iter().zip(eager).map(|(a, b)| a - b)),
        None => norm(captured.iter().copied()),
    };
    let size = eager.map_or(0.0, |eager| norm(eager.iter().copied()));
    if difference <= GRADIENT_TOLERANCE * (size + 0.01 * largest) {
        return Ok(());
    }
    let problem = format!("its captured gradient differs from Burn's by {difference}, of {size}");
    Err(Error::model(problem)
        .in_module(path)
        .hint("no detach in forward: it is not recorded; freeze parameters instead"))
}

/// Euclidean length.
pub(crate) fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
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
