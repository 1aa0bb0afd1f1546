//! The optimizer's state of one parameter, and its update.

use burn_backend::ops::FloatTensorOps;
use burn_backend::{Scalar, TensorMetadata};
use burn_dispatch::{Dispatch, DispatchTensor};

use super::pool::BufferPool;
use super::{flex, zeros_like};
use crate::engine::kernels::Step;
use crate::engine::{AdamW, Optimizer, Sgd, Update, UpdateRule, kernels};

type D = Dispatch;

/// What an optimizer remembers of one parameter.
#[derive(Debug)]
pub(super) struct State {
    optimizer: Optimizer,
    /// Updates so far.
    updates: usize,
    moments: Vec<DispatchTensor>,
    /// The parameter and the moments before the last provisional update; none where updates stand.
    before: Option<Vec<DispatchTensor>>,
}

impl State {
    pub(super) fn new(rule: &UpdateRule, parameter: &DispatchTensor, pool: &BufferPool) -> Self {
        let optimizer = rule.optimizer.of(parameter.shape().num_dims());
        let zeros = |count: u64| (0..count).map(|_| zeros_like(parameter, pool)).collect();
        let moments = optimizer.moments();
        let before = rule.may_undo().then(|| zeros(1 + moments));
        Self { optimizer, updates: 0, moments: zeros(moments), before }
    }

    /// Continues as it was after so many updates.
    pub(super) fn restore(&mut self, updates: u64, moments: Vec<DispatchTensor>) {
        (self.updates, self.moments) = (updates as usize, moments);
    }

    pub(super) fn updates(&self) -> u64 {
        self.updates as u64
    }

    pub(super) fn moments(&self) -> &[DispatchTensor] {
        &self.moments
    }

    /// All that is held.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &DispatchTensor> {
        self.moments.iter().chain(self.before.iter().flatten())
    }

    /// Keeps everything as it is, for [`State::undo`].
    pub(super) fn keep(&mut self, parameter: &DispatchTensor) {
        let before = self.before.as_mut().expect("the rule has provisional updates");
        let now = std::iter::once(parameter).chain(&self.moments);
        for (before, now) in before.iter_mut().zip(now) {
            match (flex::slice_mut(before), flex::slice(now)) {
                (Some(before), Some(now)) => before.copy_from_slice(now),
                // Other devices' tensors do not change: an update makes new ones.
                _ => *before = now.clone(),
            }
        }
    }

    /// Takes back the last update, before which everything was kept.
    pub(super) fn undo(&mut self, parameter: &mut DispatchTensor) {
        let before = self.before.as_mut().expect("the rule has provisional updates");
        let now = std::iter::once(parameter).chain(&mut self.moments);
        before.iter_mut().zip(now).for_each(|(before, now)| std::mem::swap(before, now));
        self.updates -= 1;
    }

    pub(super) fn update(
        &mut self,
        update: &Update,
        parameter: &mut DispatchTensor,
        gradient: &DispatchTensor,
    ) {
        self.updates += 1;
        let step = Step { rate: update.learning_rate, scale: update.scale, number: self.updates };
        let moments = &mut self.moments;
        match &self.optimizer {
            Optimizer::AdamW(adamw) => adamw_step(adamw, &step, parameter, gradient, moments),
            Optimizer::Sgd(sgd) => sgd_step(sgd, &step, parameter, gradient, moments),
        }
    }
}

fn adamw_step(
    adamw: &AdamW,
    step: &Step,
    parameter: &mut DispatchTensor,
    gradient: &DispatchTensor,
    moments: &mut [DispatchTensor],
) {
    let [first, second] = moments else { unreachable!("AdamW has two moments") };
    if let (Some(p), Some(g), Some(m), Some(v)) = (
        flex::slice_mut(parameter),
        flex::slice(gradient),
        flex::slice_mut(first),
        flex::slice_mut(second),
    ) {
        let config = kernels::AdamW {
            beta_1: adamw.beta_1,
            beta_2: adamw.beta_2,
            epsilon: adamw.epsilon,
            weight_decay: adamw.weight_decay,
        };
        return kernels::adamw(&config, step, p, g, m, v);
    }
    let scaled = |x: &DispatchTensor, by: f64| D::float_mul_scalar(x.clone(), Scalar::Float(by));
    let (beta_1, beta_2) = (f64::from(adamw.beta_1), f64::from(adamw.beta_2));
    let gradient = &scaled(gradient, step.scale.into());
    *first = D::float_add(scaled(first, beta_1), scaled(gradient, 1.0 - beta_1));
    let square = D::float_mul(gradient.clone(), gradient.clone());
    *second = D::float_add(scaled(second, beta_2), scaled(&square, 1.0 - beta_2));
    let mean = scaled(first, 1.0 / (1.0 - beta_1.powi(step.number as i32)));
    let variance = scaled(second, 1.0 / (1.0 - beta_2.powi(step.number as i32)));
    let deviation =
        D::float_add_scalar(D::float_sqrt(variance), Scalar::Float(adamw.epsilon.into()));
    let decayed = scaled(parameter, 1.0 - step.rate * f64::from(adamw.weight_decay));
    *parameter = D::float_sub(decayed, scaled(&D::float_div(mean, deviation), step.rate));
}

fn sgd_step(
    sgd: &Sgd,
    step: &Step,
    parameter: &mut DispatchTensor,
    gradient: &DispatchTensor,
    moments: &mut [DispatchTensor],
) {
    let config = kernels::Sgd { weight_decay: sgd.weight_decay };
    let momentum = sgd.momentum.map(|momentum| kernels::Momentum {
        factor: momentum.factor,
        dampening: momentum.dampening,
        nesterov: momentum.nesterov,
    });
    if let (Some(p), Some(g)) = (flex::slice_mut(parameter), flex::slice(gradient)) {
        match (momentum, moments.first_mut().and_then(flex::slice_mut)) {
            (Some(momentum), Some(velocity)) => {
                kernels::sgd_momentum(&config, &momentum, step, p, g, velocity);
            }
            _ => kernels::sgd(&config, step, p, g),
        }
        return;
    }
    let scaled = |x: &DispatchTensor, by: f64| D::float_mul_scalar(x.clone(), Scalar::Float(by));
    let penalty = scaled(parameter, sgd.weight_decay.into());
    let mut direction = D::float_add(scaled(gradient, step.scale.into()), penalty);
    if let (Some(momentum), Some(velocity)) = (momentum, moments.first_mut()) {
        let kept = f64::from(momentum.factor);
        *velocity = if step.number == 1 {
            direction.clone()
        } else {
            D::float_add(scaled(velocity, kept), scaled(&direction, 1.0 - momentum.dampening))
        };
        direction = if momentum.nesterov {
            D::float_add(direction, scaled(velocity, kept))
        } else {
            velocity.clone()
        };
    }
    *parameter = D::float_sub(parameter.clone(), scaled(&direction, step.rate));
}
