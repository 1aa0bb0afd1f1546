//! The optimizers' settings. They reproduce Burn's, default values included, but for what decays:
//! with [`Decayed::All`] they are Burn's in that as well.

use crate::error::{Error, Result};

/// How parameters are updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, "Decoupled Weight Decay
/// Regularization", algorithm 2), as Burn's `AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradient.
    pub beta_1: f32,
    /// Decay of the mean of its square.
    pub beta_2: f32,
    /// Added to the root of the second mean.
    pub epsilon: f32,
    /// Share of a weight that a step of learning rate 1 takes away.
    pub weight_decay: f32,
    /// What the weight decay is for.
    pub decayed: Decayed,
}

/// Stochastic gradient descent, as Burn's `Sgd`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Factor of the L2 penalty's gradient.
    pub weight_decay: f32,
    /// What the penalty is for.
    pub decayed: Decayed,
    /// Momentum, if any.
    pub momentum: Option<Momentum>,
}

/// The parameters that weight decay is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decayed {
    /// Those of two dimensions or more. Biases and the gains of norms have one: they are few, and
    /// to make them small does not make the model simpler.
    #[default]
    Matrices,
    /// All of them, as Burn does.
    All,
}

/// Momentum, as Burn's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    /// Share of the velocity that is kept.
    pub factor: f32,
    /// Share of the gradient that is left out, from the second step on.
    pub dampening: f64,
    /// Nesterov's variant.
    pub nesterov: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-5,
            weight_decay: 1e-4,
            decayed: Decayed::Matrices,
        }
    }
}

impl Default for Momentum {
    fn default() -> Self {
        Self { factor: 0.9, dampening: 0.1, nesterov: false }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::AdamW(AdamW::default())
    }
}

impl From<AdamW> for Optimizer {
    fn from(adamw: AdamW) -> Self {
        Self::AdamW(adamw)
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Self::Sgd(sgd)
    }
}

impl Optimizer {
    /// Whether a step with these settings is one.
    ///
    /// # Errors
    ///
    /// The first that is out of its range.
    pub fn check(&self) -> Result<()> {
        let (range, not_negative) = ("0 or more, and below 1", "a finite number, 0 or more");
        let share = |value: f64| (0.0..1.0).contains(&value);
        let finite = |value: f64| value.is_finite() && value >= 0.0;
        let rows = match *self {
            Optimizer::AdamW(AdamW { beta_1, beta_2, epsilon, weight_decay, .. }) => vec![
                ("beta_1", f64::from(beta_1), share(beta_1.into()), range),
                ("beta_2", f64::from(beta_2), share(beta_2.into()), range),
                (
                    "epsilon",
                    f64::from(epsilon),
                    epsilon.is_finite() && epsilon > 0.0,
                    "a finite number above 0",
                ),
                (
                    "weight_decay",
                    f64::from(weight_decay),
                    finite(weight_decay.into()),
                    not_negative,
                ),
            ],
            Optimizer::Sgd(Sgd { weight_decay, momentum, .. }) => {
                let Momentum { factor, dampening, .. } = momentum.unwrap_or_default();
                let decay = f64::from(weight_decay);
                vec![
                    ("weight_decay", decay, finite(decay), not_negative),
                    ("momentum.factor", factor.into(), finite(factor.into()), not_negative),
                    ("momentum.dampening", dampening, finite(dampening), not_negative),
                ]
            }
        };
        match rows.into_iter().find(|(_, _, usable, _)| !usable) {
            Some((name, value, _, expected)) => {
                Err(Error::config(format!("a {name} of {value} in the optimizer")).hint(expected))
            }
            None => Ok(()),
        }
    }

    /// What updates a parameter of so many dimensions: the same without weight decay, where it is
    /// not for that parameter.
    pub fn of(self, dimensions: usize) -> Self {
        let spared = |decayed| decayed == Decayed::Matrices && dimensions < 2;
        match self {
            Optimizer::AdamW(adamw) if spared(adamw.decayed) => {
                Optimizer::AdamW(AdamW { weight_decay: 0.0, ..adamw })
            }
            Optimizer::Sgd(sgd) if spared(sgd.decayed) => {
                Optimizer::Sgd(Sgd { weight_decay: 0.0, ..sgd })
            }
            decayed => decayed,
        }
    }

    /// Tensors of a parameter's size that the optimizer keeps.
    pub fn moments(&self) -> u64 {
        match self {
            Optimizer::AdamW(_) => 2,
            Optimizer::Sgd(sgd) => sgd.momentum.is_some().into(),
        }
    }
}
