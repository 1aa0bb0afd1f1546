//! Layers and marks that a training run can use and Burn does not have.
//!
//! Burn's own `Dropout` is captured as it is; [`Dropout`] can also give, eagerly, the numbers of a
//! captured run. [`boundary`] and [`detach`] record themselves.

use std::cell::Cell;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Distribution, Tensor, TensorData};
use burn_capture::CaptureBackend;
use burn_ir::{CustomOpIr, OperationIr, TensorIr};
use burn_router::RouterClient;

use crate::capture::{TrainingCapture, lift};
use crate::random::RunKey;

/// Name under which [`boundary`] is recorded.
pub(crate) const BOUNDARY: &str = "zerobubble.boundary";
/// Name under which [`detach`] is recorded.
pub(crate) const DETACH: &str = "zerobubble.detach";
/// What is recorded and changes no value.
pub(crate) const IDENTITIES: [&str; 2] = [BOUNDARY, DETACH];

/// Configuration of [`Dropout`].
#[derive(Config, Debug)]
pub struct DropoutConfig {
    /// Probability that an element is set to zero during training, in `[0, 1)`.
    pub probability: f64,
}

/// Sets elements to zero at random while training and scales the rest by `1 / (1 - probability)`
/// (Srivastava et al. 2014, "Dropout", section 10, inverted form).
///
/// Captured, it is one op, as Burn's is, whose numbers depend on (seed, step, microbatch, draw).
/// Run eagerly on an autodiff device it draws from Burn's generator, or, inside
/// [`with_dropout_key`], the same numbers as the captured run. Otherwise it is the identity.
#[derive(Module, Debug)]
pub struct Dropout {
    probability: f64,
}

impl DropoutConfig {
    /// The layer.
    ///
    /// # Panics
    ///
    /// Panics when the probability is not in `[0, 1)`.
    pub fn init(&self) -> Dropout {
        let probability = self.probability;
        assert!((0.0..1.0).contains(&probability), "dropout {probability} is not in [0, 1)");
        Dropout { probability }
    }
}

impl Dropout {
    /// Drops elements of `input`, of any shape.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if self.probability == 0.0 {
            return input;
        }
        let device = input.device();
        if !device.is_autodiff() {
            return input;
        }
        let keep = 1.0 - self.probability;
        let mask = match next_dropout_key() {
            Some((key, draw)) => {
                let mut mask = vec![0.0; input.shape().num_elements()];
                key.dropout_mask(draw, self.probability as f32, &mut mask);
                Tensor::from_data(TensorData::new(mask, input.shape()), &device)
            }
            // As Burn's dropout writes it, by which it is recognised.
            None => {
                let mask = input.random_like(Distribution::Bernoulli(keep));
                return input * mask * (1.0 / keep);
            }
        };
        input * mask
    }
}

/// Marks a place where the model may be cut into stages. The identity, in value and gradient.
///
/// When a model has marks, stages are cut at marks only.
pub fn boundary<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    record(input, BOUNDARY)
}

/// The same values, through which no gradient flows: what [`Tensor::detach`] does, which leaves no
/// trace in what is captured.
pub fn detach<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    record(input, DETACH).detach()
}

/// Runs `body` with every [`Dropout`] inside drawing from the numbers that a captured run uses
/// for this seed, step (from 0) and microbatch: those of a forward pass that draws nothing else.
pub fn with_dropout_key<T>(seed: u64, step: u64, microbatch: u32, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<(RunKey, u32)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            NEXT_KEY.set(self.0);
        }
    }
    let key = RunKey { seed, step, microbatch, evaluates: false };
    let _restore = Restore(NEXT_KEY.replace(Some((key, 0))));
    body()
}

thread_local! {
    /// The key, and the next draw.
    static NEXT_KEY: Cell<Option<(RunKey, u32)>> = const { Cell::new(None) };
}

fn next_dropout_key() -> Option<(RunKey, u32)> {
    let (key, draw) = NEXT_KEY.get()?;
    NEXT_KEY.set(Some((key, draw + 1)));
    Some((key, draw))
}

/// Records `input -> output` of the same shape as the custom op `name`; the identity on a device
/// that computes.
fn record<const D: usize>(input: Tensor<D>, name: &'static str) -> Tensor<D> {
    let lifted = input.clone().try_into_primitive::<TrainingCapture>().ok();
    let is_lifted = lifted.is_some();
    let inner = lifted.map(|lifted| lifted.into_primitive());
    let inner = inner.or_else(|| input.clone().try_into_primitive::<CaptureBackend>().ok());
    let Some(captured) = inner else { return input };
    let client = captured.client.clone();
    let input = captured.into_ir();
    let out = TensorIr::uninit(client.create_empty_handle(), input.shape.clone(), input.dtype);
    let op = CustomOpIr::new(name, &[input], &[out]);
    let output = client.register(OperationIr::Custom(op)).remove(0);
    let output = Tensor::from_primitive::<CaptureBackend>(output);
    if is_lifted { lift(output) } else { output }
}
