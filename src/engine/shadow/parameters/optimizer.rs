//! What an update makes of a parameter, in f64, and how exact f32 has to be there.

use super::{Difference, Moments, ULP, first_beyond};
use crate::engine::{AdamW, Momentum, Optimizer, Sgd, Update};

/// Numbers, and how far off each may be.
pub(super) struct Near {
    numbers: Vec<f64>,
    widths: Vec<f64>,
}

impl Near {
    pub fn first_beyond(&self, found: &[f64]) -> Option<Difference> {
        first_beyond(found, &self.numbers, &self.widths)
    }
}

/// An update in the making: the value follows from the moments as the device has them.
pub(super) struct Updated<'a> {
    pub moments: Vec<Near>,
    optimizer: &'a Optimizer,
    update: &'a Update,
    before: &'a [f64],
    gradient: Vec<f64>,
    /// Counted from 1.
    number: i32,
}

impl<'a> Updated<'a> {
    pub fn new(
        optimizer: &'a Optimizer,
        update: &'a Update,
        before: &'a [f64],
        gradient: &[f32],
        moments: &Moments,
    ) -> Self {
        let scale = f64::from(update.scale);
        let gradient: Vec<f64> = gradient.iter().map(|&g| f64::from(g) * scale).collect();
        let number = i32::try_from(moments.updates + 1).unwrap_or(i32::MAX);
        let mut updated = Self { moments: Vec::new(), optimizer, update, before, gradient, number };
        updated.moments = match optimizer {
            Optimizer::AdamW(AdamW { beta_1, beta_2, .. }) => {
                let [first, second] = [&moments.tensors[0], &moments.tensors[1]];
                let squares: Vec<f64> = updated.gradient.iter().map(|g| g * g).collect();
                vec![
                    mixed(first, (*beta_1).into(), &updated.gradient),
                    mixed(second, (*beta_2).into(), &squares),
                ]
            }
            Optimizer::Sgd(sgd) => match sgd.momentum {
                Some(momentum) => vec![updated.velocity(sgd, &momentum, &moments.tensors[0])],
                None => Vec::new(),
            },
        };
        updated
    }

    /// `g`, or `p penalty + g` with weight decay, and the sum of the terms' magnitudes.
    fn decayed(&self, sgd: &Sgd) -> Vec<(f64, f64)> {
        let penalty = f64::from(sgd.weight_decay);
        let pairs = self.before.iter().zip(&self.gradient);
        pairs.map(|(p, g)| (p * penalty + g, (p * penalty).abs() + g.abs())).collect()
    }

    fn velocity(&self, sgd: &Sgd, momentum: &Momentum, before: &[f64]) -> Near {
        let factor = f64::from(momentum.factor);
        let fresh = f64::from((1.0 - momentum.dampening) as f32);
        let (fresh, kept) = if self.number == 1 { (1.0, 0.0) } else { (fresh, factor) };
        let all = self.decayed(sgd).into_iter().zip(before);
        all.map(|((g, size), v)| (g * fresh + v * kept, size * fresh.abs() + (v * kept).abs()))
            .map(|(number, size)| (number, 4.0 * ULP * size))
            .collect()
    }

    /// The parameter, with the moments that the device has now.
    pub fn value(&self, moments: &[Vec<f64>]) -> Near {
        let rate = self.update.learning_rate;
        match self.optimizer {
            Optimizer::AdamW(adamw) => self.adamw(adamw, &moments[0], &moments[1]),
            Optimizer::Sgd(sgd) => {
                let step = |(at, (g, size)): (usize, (f64, f64))| match sgd.momentum {
                    None => (g, size),
                    Some(Momentum { nesterov: false, .. }) => {
                        (moments[0][at], moments[0][at].abs())
                    }
                    Some(Momentum { factor, .. }) => {
                        let v = moments[0][at] * f64::from(factor);
                        (v + g, v.abs() + size)
                    }
                };
                let steps = self.decayed(sgd).into_iter().enumerate().map(step);
                let all = steps.zip(self.before);
                all.map(|((step, size), p)| (p - rate * step, p.abs() + (rate * size).abs()))
                    .map(|(number, size)| (number, 4.0 * ULP * size))
                    .collect()
            }
        }
    }

    fn adamw(&self, adamw: &AdamW, first: &[f64], second: &[f64]) -> Near {
        let rate = self.update.learning_rate;
        let epsilon = f64::from(adamw.epsilon);
        let keep = 1.0 - rate * f64::from(adamw.weight_decay);
        let [(c1, off_1), (c2, off_2)] =
            [adamw.beta_1, adamw.beta_2].map(|beta| correction(beta, self.number));
        let element = |((p, m), v): ((&f64, &f64), &f64)| {
            let step = rate * (m / c1) / ((v / c2).sqrt() + epsilon);
            // Half of what the root's operand is off by.
            let relative = off_1 + off_2 / 2.0 + 10.0 * ULP;
            let width = 2.0 * ULP * ((p * keep).abs() + step.abs()) + step.abs() * relative;
            (p * keep - step, width)
        };
        self.before.iter().zip(first).zip(second).map(element).collect()
    }
}

/// `1 - beta^number`, and how far off it may be, relative to it: the power rounds as often as it
/// multiplies, and the difference shows it where the power is nearly 1.
fn correction(beta: f32, number: i32) -> (f64, f64) {
    let power = f64::from(beta).powi(number);
    let rest = 1.0 - power;
    (rest, (f64::from(number) * power + 1.0) * ULP / rest)
}

/// `m beta + g (1 - beta)`.
fn mixed(moment: &[f64], beta: f64, gradient: &[f64]) -> Near {
    let pairs = moment.iter().zip(gradient);
    pairs
        .map(|(m, g)| (m * beta, g * (1.0 - beta)))
        .map(|(kept, fresh)| (kept + fresh, 5.0 * ULP * (kept.abs() + fresh.abs())))
        .collect()
}

impl FromIterator<(f64, f64)> for Near {
    fn from_iter<T: IntoIterator<Item = (f64, f64)>>(pairs: T) -> Self {
        let (numbers, widths) = pairs.into_iter().unzip();
        Self { numbers, widths }
    }
}
