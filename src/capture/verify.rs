//! Proof that the captured graph trains what the module trains: on the example, its loss and its
//! gradients are those that the module computes eagerly in training mode, with the same random
//! numbers.

use super::EagerRun;
use crate::error::{Error, Result};
use crate::loss::MicrobatchLoss;

/// Largest accepted difference, relative to 1 or to the loss if that is larger: the two sides sum
/// in different orders in f32.
const TOLERANCE: f64 = 1e-4;

/// Largest accepted difference of a gradient, relative to its norm.
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// A gradient so small next to the loss is the rounding of one that is zero: no change of the
/// parameter by its own size would move the loss.
const NOTHING: f64 = 1e-7;

/// How many times the difference that rounding makes is accepted.
const SPREAD: f64 = 10.0;

/// A mean of values that are about 1 may be 0, and then it is all rounding.
const LEAST_STATE: f64 = 1e-2;

/// What the graph computed. A model may be large, so its numbers are asked for one parameter at a
/// time, by the order of the module's parameters.
pub(crate) struct CapturedRun<'a> {
    /// Its loss.
    pub loss: MicrobatchLoss,
    /// The loss's gradient; none where it has none.
    pub gradient: &'a dyn Fn(usize) -> Option<Vec<f32>>,
    /// The parameter afterwards; none where it does not use it.
    pub parameter: &'a dyn Fn(usize) -> Option<Vec<f32>>,
}

/// How far a run's numbers are moved by what rounding may do to its parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounding {
    loss: f64,
    /// Norms, in the order of the module's parameters.
    gradients: Vec<f64>,
    /// The same of running values, in the order of [`EagerRun::states`].
    states: Vec<f64>,
}

impl Rounding {
    /// The larger of what is known and the difference of two runs.
    pub(crate) fn widen(&mut self, run: &EagerRun, moved: &EagerRun) {
        self.gradients.resize(run.gradients.len(), 0.0);
        let difference = f64::from(run.loss.value) - f64::from(moved.loss.value);
        self.loss = self.loss.max(difference.abs());
        for (norm, pair) in
            self.gradients.iter_mut().zip(run.gradients.iter().zip(&moved.gradients))
        {
            if let (Some(a), Some(b)) = pair {
                *norm = norm.max(distance(a, b));
            }
        }
        self.states.resize(run.states.len(), 0.0);
        for (norm, pair) in self.states.iter_mut().zip(run.states.iter().zip(&moved.states)) {
            let ((_, [_, a]), (_, [_, b])) = pair;
            *norm = norm.max(distance(a, b));
        }
    }

    fn of_gradient(&self, parameter: usize) -> f64 {
        SPREAD * self.gradients.get(parameter).copied().unwrap_or(0.0)
    }

    fn of_state(&self, state: usize) -> f64 {
        SPREAD * self.states.get(state).copied().unwrap_or(0.0)
    }
}

/// Compares what the graph computed with what the module computed: `paths` name its parameters.
///
/// # Errors
///
/// The first difference that is beyond what rounding explains.
pub(crate) fn verify(
    paths: &[&str],
    captured: &CapturedRun,
    eager: &EagerRun,
    rounding: &Rounding,
) -> Result<()> {
    verify_loss(captured.loss, eager, rounding)?;
    let sizes = eager.gradients.iter().flatten().map(|of| norm(of.iter().copied()));
    let largest = sizes.fold(0.0, f64::max);
    for (at, path) in paths.iter().enumerate() {
        let (of, eager) = ((captured.gradient)(at), eager.gradients[at].as_deref());
        let nothing = NOTHING * f64::from(captured.loss.value).abs();
        verify_gradient(path, of.as_deref(), eager, largest, rounding.of_gradient(at) + nothing)?;
    }
    for (state, (at, [before, after])) in eager.states.iter().enumerate() {
        let now = (captured.parameter)(*at);
        let now = now.as_ref().unwrap_or(before);
        verify_state(paths[*at], now, after, rounding.of_state(state))?;
    }
    Ok(())
}

fn verify_loss(captured: MicrobatchLoss, eager: &EagerRun, rounding: &Rounding) -> Result<()> {
    let difference = (f64::from(captured.value) - f64::from(eager.loss.value)).abs();
    if captured.is_near(eager.loss, TOLERANCE) || difference <= SPREAD * rounding.loss {
        return Ok(());
    }
    let problem = format!("its captured loss is {captured}, its loss in training {}", eager.loss);
    Err(Error::model(problem).hint("remove what depends on chance or on the device"))
}

/// Something that changes gradients alone, such as `detach`, leaves no record. `largest` is the
/// norm of the module's largest gradient, `rounding` the difference that is nothing.
fn verify_gradient(
    path: &str,
    captured: Option<&[f32]>,
    eager: Option<&[f32]>,
    largest: f64,
    rounding: f64,
) -> Result<()> {
    let difference = match (captured, eager) {
        (Some(captured), Some(eager)) => distance(captured, eager),
        (one, other) => one.or(other).map_or(0.0, |one| norm(one.iter().copied())),
    };
    let size = eager.map_or(0.0, |eager| norm(eager.iter().copied()));
    if difference <= GRADIENT_TOLERANCE * (size + 0.01 * largest) + rounding {
        return Ok(());
    }
    let problem = format!("its captured gradient differs from Burn's by {difference}, of {size}");
    Err(Error::model(problem)
        .in_module(path)
        .hint("zerobubble::nn::detach in place of Tensor::detach, which leaves no trace"))
}

/// A running value may be updated by something that is not recorded, or in more than one place.
fn verify_state(path: &str, captured: &[f32], eager: &[f32], rounding: f64) -> Result<()> {
    let size = norm(eager.iter().copied()).max(LEAST_STATE);
    let difference = distance(captured, eager);
    if difference <= GRADIENT_TOLERANCE * size + rounding {
        return Ok(());
    }
    let problem = format!(
        "what a forward pass makes of this running value is not known: it differs from Burn's by \
         {difference}, of {size}"
    );
    Err(Error::model(problem)
        .in_module(path)
        .hint("update it with tensor ops from its own value, once per forward pass"))
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    norm(a.iter().zip(b).map(|(a, b)| a - b))
}

/// Euclidean length.
fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}
