//! Optimizer steps over flat slices, in one pass and with Burn's operations in Burn's order.

use multiversion::multiversion;

/// AdamW as `burn_optim::AdamW` without AMSGrad and without cautious weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, scaled by the learning rate.
    pub weight_decay: f32,
}

/// Stochastic gradient descent as `burn_optim::Sgd`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// L2 penalty; 0 leaves the gradient alone.
    pub weight_decay: f32,
}

/// Momentum as `burn_optim::momentum::Momentum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// Share of the velocity kept.
    pub factor: f32,
    /// Share of the gradient dropped, from the second step on.
    pub dampening: f64,
    /// Whether to step along `velocity * factor + gradient`.
    pub nesterov: bool,
}

/// What differs from one step to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate `lr`.
    pub rate: f64,
    /// What every gradient is multiplied by first.
    pub scale: f32,
    /// Counted from 1: the `t` of the formulas.
    pub number: usize,
}

/// One AdamW step on `params`; both moments are 0 before the first.
///
/// Per element, with scaled gradient `g`:
/// `m = m b1 + g (1 - b1)`, `v = v b2 + g g (1 - b2)`,
/// `p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`.
#[multiversion(targets = "simd")]
pub fn adamw(
    config: &AdamW,
    step: &Step,
    params: &mut [f32],
    grads: &[f32],
    moment_1: &mut [f32],
    moment_2: &mut [f32],
) {
    let n = params.len();
    let same = grads.len() == n && moment_1.len() == n && moment_2.len() == n;
    assert!(same, "slices differ in length");
    let AdamW { beta_1, beta_2, epsilon, weight_decay } = *config;
    let (factor_1, factor_2) = (1.0 - beta_1, 1.0 - beta_2);
    let correction_1 = 1.0 - beta_1.powi(step.number as i32);
    let correction_2 = 1.0 - beta_2.powi(step.number as i32);
    let keep = (1.0 - step.rate * weight_decay as f64) as f32;
    let (lr, scale) = (step.rate as f32, step.scale);
    let elements = params.iter_mut().zip(grads).zip(moment_1.iter_mut().zip(moment_2));
    for ((p, &g), (m, v)) in elements {
        let g = g * scale;
        *m = *m * beta_1 + g * factor_1;
        *v = *v * beta_2 + g * g * factor_2;
        let delta = (*m / correction_1) / ((*v / correction_2).sqrt() + epsilon);
        *p = *p * keep - delta * lr;
    }
}

/// One step without momentum, with scaled gradient `g`: `p -= lr (g + wd p)`.
#[multiversion(targets = "simd")]
pub fn sgd(config: &Sgd, step: &Step, params: &mut [f32], grads: &[f32]) {
    assert_eq!(params.len(), grads.len(), "slices differ in length");
    let (lr, scale) = (step.rate as f32, step.scale);
    let penalty = config.weight_decay;
    let elements = params.iter_mut().zip(grads);
    for (p, &g) in elements {
        *p -= decayed(*p, g * scale, penalty) * lr;
    }
}

/// One step with momentum; the velocity is not read on the first.
///
/// Per element, with `g` the scaled gradient plus `wd p`: `v = g` on the first step and
/// `v = g (1 - dampening) + v factor` later, then `p -= lr v`, or `p -= lr (v factor + g)`.
#[multiversion(targets = "simd")]
pub fn sgd_momentum(
    config: &Sgd,
    momentum: &Momentum,
    step: &Step,
    params: &mut [f32],
    grads: &[f32],
    velocity: &mut [f32],
) {
    let n = params.len();
    assert!(grads.len() == n && velocity.len() == n, "slices differ in length");
    let (lr, scale) = (step.rate as f32, step.scale);
    let penalty = config.weight_decay;
    let Momentum { factor, dampening, nesterov } = *momentum;
    let fresh = (1.0 - dampening) as f32;
    let elements = params.iter_mut().zip(grads).zip(velocity);
    for ((p, &g), v) in elements {
        let g = decayed(*p, g * scale, penalty);
        *v = if step.number == 1 { g } else { g * fresh + *v * factor };
        let direction = if nesterov { *v * factor + g } else { *v };
        *p -= direction * lr;
    }
}

#[inline(always)]
fn decayed(p: f32, g: f32, penalty: f32) -> f32 {
    if penalty == 0.0 { g } else { p * penalty + g }
}

#[cfg(test)]
mod tests {
    use super::super::testing::values;
    use super::*;
    use proptest::prelude::*;

    /// `burn_optim::AdamW::step`, one tensor operation a line.
    fn burn_adamw(
        c: &AdamW,
        lr: f64,
        time: i32,
        state: &mut Option<(f32, f32)>,
        p: f32,
        g: f32,
    ) -> f32 {
        let factor_1 = 1.0 - c.beta_1;
        let factor_2 = 1.0 - c.beta_2;
        let (moment_1, moment_2) = match *state {
            Some((m, v)) => (m * c.beta_1 + g * factor_1, v * c.beta_2 + (g * g) * factor_2),
            None => (g * factor_1, (g * g) * factor_2),
        };
        *state = Some((moment_1, moment_2));
        let corrected_1 = moment_1 / (1f32 - c.beta_1.powi(time));
        let corrected_2 = moment_2 / (1f32 - c.beta_2.powi(time));
        let delta = corrected_1 / (corrected_2.sqrt() + c.epsilon);
        let decay_rate = lr * (c.weight_decay as f64);
        let decayed = if decay_rate == 0.0 { p } else { p * (1.0 - decay_rate) as f32 };
        decayed - delta * lr as f32
    }

    /// `burn_optim::Sgd::step`, one tensor operation a line.
    fn burn_sgd(
        c: &Sgd,
        m: Option<&Momentum>,
        lr: f64,
        state: &mut Option<f32>,
        p: f32,
        g: f32,
    ) -> f32 {
        let mut grad = if c.weight_decay == 0.0 { g } else { p * c.weight_decay + g };
        if let Some(m) = m {
            let velocity = match *state {
                Some(v) => grad * (1.0 - m.dampening) as f32 + v * m.factor,
                None => grad,
            };
            grad = if m.nesterov { velocity * m.factor + grad } else { velocity };
            *state = Some(velocity);
        }
        p - grad * lr as f32
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn adamw_is_burns_bit_for_bit(n in 0usize..70, decay: bool, scale in 0.1f32..=1.0) {
            let weight_decay = if decay { 0.1 } else { 0.0 };
            let config = AdamW { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay };
            let mut params = values(n, 1);
            let mut want = params.clone();
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let mut states = vec![None; n];
            for step in 1..6 {
                let grads = values(n, 10 + step as u64);
                let this = Step { rate: 0.01, scale, number: step };
                adamw(&config, &this, &mut params, &grads, &mut m, &mut v);
                for i in 0..n {
                    let (state, g) = (&mut states[i], grads[i] * scale);
                    want[i] = burn_adamw(&config, 0.01, step as i32, state, want[i], g);
                }
                assert_eq!(params, want, "step {step}");
            }
        }

        #[test]
        fn sgd_is_burns_bit_for_bit(
            n in 0usize..70,
            decay: bool,
            nesterov: bool,
            scale in 0.1f32..=1.0,
        ) {
            let config = Sgd { weight_decay: if decay { 0.05 } else { 0.0 } };
            let momentum = Momentum { factor: 0.9, dampening: 0.1, nesterov };
            let (mut plain, mut params) = (values(n, 1), values(n, 1));
            let (mut want_plain, mut want) = (plain.clone(), plain.clone());
            let mut velocity = vec![f32::NAN; n];
            let mut states = vec![None; n];
            for step in 1..6 {
                let grads = values(n, 10 + step as u64);
                let this = Step { rate: 0.02, scale, number: step };
                sgd(&config, &this, &mut plain, &grads);
                sgd_momentum(&config, &momentum, &this, &mut params, &grads, &mut velocity);
                for i in 0..n {
                    let (plain, g) = (want_plain[i], grads[i] * scale);
                    want_plain[i] = burn_sgd(&config, None, 0.02, &mut None, plain, g);
                    let state = &mut states[i];
                    want[i] = burn_sgd(&config, Some(&momentum), 0.02, state, want[i], g);
                }
                assert_eq!(plain, want_plain, "step {step}");
                assert_eq!(params, want, "step {step}");
            }
        }
    }
}
