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
