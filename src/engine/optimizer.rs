//! The optimizers' settings. They reproduce Burn's, default values included, but for what decays:
//! with [`Decayed::All`] they are Burn's in that as well.

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
