//! The optimizers' settings. They reproduce Burn's, default values included.

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
}

/// Stochastic gradient descent, as Burn's `Sgd`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Factor of the L2 penalty's gradient.
    pub weight_decay: f32,
    /// Momentum, if any.
    pub momentum: Option<Momentum>,
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
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-5, weight_decay: 1e-4 }
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
    /// Tensors of a parameter's size that the optimizer keeps.
    pub fn moments(&self) -> u64 {
        match self {
            Optimizer::AdamW(_) => 2,
            Optimizer::Sgd(sgd) => sgd.momentum.is_some().into(),
        }
    }
}
