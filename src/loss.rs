//! What the loss of a microbatch is.

use burn::tensor::Tensor;

/// The loss of a microbatch: a mean over its examples, or a sum with its weight.
#[derive(Debug, Clone)]
pub struct Loss {
    pub(crate) value: Tensor<1>,
    pub(crate) weight: Option<Tensor<1>>,
}

impl Loss {
    /// A sum of losses and the sum of their weights, each one float. What is minimised is the sum
    /// over the weight of a step's whole batch, however it is cut into microbatches: with the
    /// number of tokens that count as the weight, say. No gradient flows through the weight.
    pub fn weighted(sum: Tensor<1>, weight: Tensor<1>) -> Self {
        Self { value: sum, weight: Some(weight) }
    }
}

/// What a loss closure may return: the mean over a microbatch, a pair of a sum and its weight, or a
/// [`Loss`].
pub trait IntoLoss {
    /// The loss.
    fn into_loss(self) -> Loss;
}

impl IntoLoss for Loss {
    fn into_loss(self) -> Loss {
        self
    }
}

impl IntoLoss for Tensor<1> {
    fn into_loss(self) -> Loss {
        Loss { value: self, weight: None }
    }
}

impl IntoLoss for (Tensor<1>, Tensor<1>) {
    fn into_loss(self) -> Loss {
        let (sum, weight) = self;
        Loss::weighted(sum, weight)
    }
}

/// What a microbatch adds to a step's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MicrobatchLoss {
    /// A mean over the microbatch, or a sum with a weight.
    pub value: f32,
    /// What the sum's terms weigh together; none for a mean.
    pub weight: Option<f32>,
}

impl MicrobatchLoss {
    /// From the elements that a stage computes: one, or two of a weighted loss.
    pub(crate) fn of(elements: &[f32]) -> Self {
        Self { value: elements[0], weight: elements.get(1).copied() }
    }

    /// Whether the two differ by at most `tolerance`, relative to 1 or to what is larger.
    pub(crate) fn is_near(self, other: Self, tolerance: f64) -> bool {
        let near = |a: f32, b: f32| {
            let (a, b) = (f64::from(a), f64::from(b));
            (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
        };
        let weights = match (self.weight, other.weight) {
            (Some(a), Some(b)) => near(a, b),
            (a, b) => a == b,
        };
        near(self.value, other.value) && weights
    }

    /// Whether it is a number.
    pub fn is_finite(self) -> bool {
        self.value.is_finite() && self.weight.is_none_or(f32::is_finite)
    }

    /// The mean of the microbatch; 0 where nothing weighs.
    pub fn mean(self) -> f32 {
        match self.weight {
            Some(0.0) => 0.0,
            Some(weight) => self.value / weight,
            None => self.value,
        }
    }

    /// The mean of a whole batch: over the microbatches, or of all that weighs. Zero has no sign:
    /// the loss of what is certain is -0.0, the negative of ln(1).
    pub fn mean_of(losses: &[Self]) -> f64 {
        let sum = losses.iter().fold(0.0, |sum, loss| sum + f64::from(loss.value));
        let weights = losses.iter().filter_map(|loss| loss.weight).map(f64::from);
        let weight = if losses.iter().any(|loss| loss.weight.is_some()) {
            weights.sum()
        } else {
            losses.len() as f64
        };
        sum / weight
    }
}

impl std::fmt::Display for MicrobatchLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.weight {
            Some(weight) => write!(f, "{} of weight {weight}", self.value),
            None => self.value.fmt(f),
        }
    }
}
