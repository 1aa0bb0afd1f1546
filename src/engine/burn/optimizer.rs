//! The optimizer's state of one parameter, and its update.

use burn_backend::Scalar;
use burn_backend::ops::FloatTensorOps;
use burn_dispatch::{Dispatch, DispatchTensor};

use super::pool::Pool;
use super::{flex, zeros_like};
use crate::engine::{AdamW, Optimizer, Sgd, kernels};

type D = Dispatch;

/// What an optimizer remembers of one parameter.
#[derive(Debug)]
pub(super) struct State {
    /// Updates so far.
    updates: usize,
    moments: Vec<DispatchTensor>,
}

impl State {
    pub(super) fn new(optimizer: &Optimizer, parameter: &DispatchTensor, pool: &Pool) -> Self {
        let moments = (0..optimizer.moments()).map(|_| zeros_like(parameter, pool)).collect();
        Self { updates: 0, moments }
    }

    /// As it was after so many updates.
    pub(super) fn restored(updates: u64, moments: Vec<DispatchTensor>) -> Self {
        Self { updates: updates as usize, moments }
    }

    pub(super) fn updates(&self) -> u64 {
        self.updates as u64
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &DispatchTensor> {
        self.moments.iter()
    }

    pub(super) fn update(
        &mut self,
        optimizer: &Optimizer,
        learning_rate: f64,
        parameter: &mut DispatchTensor,
        gradient: &DispatchTensor,
    ) {
        self.updates += 1;
        let moments = &mut self.moments;
        match optimizer {
            Optimizer::AdamW(adamw) => {
                adamw_step(adamw, learning_rate, self.updates, parameter, gradient, moments);
            }
            Optimizer::Sgd(sgd) => {
                sgd_step(sgd, learning_rate, self.updates, parameter, gradient, moments);
            }
        }
    }
}

fn adamw_step(
    adamw: &AdamW,
    learning_rate: f64,
    step: usize,
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
        return kernels::adamw(&config, learning_rate, step, p, g, m, v);
    }
    let scaled = |x: &DispatchTensor, by: f64| D::float_mul_scalar(x.clone(), Scalar::Float(by));
    let (beta_1, beta_2) = (f64::from(adamw.beta_1), f64::from(adamw.beta_2));
    *first = D::float_add(scaled(first, beta_1), scaled(gradient, 1.0 - beta_1));
    let square = D::float_mul(gradient.clone(), gradient.clone());
    *second = D::float_add(scaled(second, beta_2), scaled(&square, 1.0 - beta_2));
    let mean = scaled(first, 1.0 / (1.0 - beta_1.powi(step as i32)));
    let variance = scaled(second, 1.0 / (1.0 - beta_2.powi(step as i32)));
    let deviation =
        D::float_add_scalar(D::float_sqrt(variance), Scalar::Float(adamw.epsilon.into()));
    let decayed = scaled(parameter, 1.0 - learning_rate * f64::from(adamw.weight_decay));
    *parameter = D::float_sub(decayed, scaled(&D::float_div(mean, deviation), learning_rate));
}

fn sgd_step(
    sgd: &Sgd,
    learning_rate: f64,
    step: usize,
    parameter: &mut DispatchTensor,
    gradient: &DispatchTensor,
    moments: &mut [DispatchTensor],
) {
    let config = kernels::Sgd { weight_decay: sgd.weight_decay };
    let momentum = sgd.momentum.map(|momentum| kernels::Momentum {
        momentum: momentum.factor,
        dampening: momentum.dampening,
        nesterov: momentum.nesterov,
    });
    if let (Some(p), Some(g)) = (flex::slice_mut(parameter), flex::slice(gradient)) {
        match (momentum, moments.first_mut().and_then(flex::slice_mut)) {
            (Some(momentum), Some(velocity)) => {
                kernels::sgd_momentum(&config, &momentum, learning_rate, step, p, g, velocity);
            }
            _ => kernels::sgd(&config, learning_rate, p, g),
        }
        return;
    }
    let scaled = |x: &DispatchTensor, by: f64| D::float_mul_scalar(x.clone(), Scalar::Float(by));
    let penalty = scaled(parameter, sgd.weight_decay.into());
    let mut direction = D::float_add(gradient.clone(), penalty);
    if let (Some(momentum), Some(velocity)) = (momentum, moments.first_mut()) {
        let kept = f64::from(momentum.momentum);
        *velocity = if step == 1 {
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
    *parameter = D::float_sub(parameter.clone(), scaled(&direction, learning_rate));
}
