//! The example model: a small GPT made of Burn's own layers, with an optional tied head.

use burn::config::Config;
use burn::module::Module;
use burn::nn::attention::{
    MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::nn::{Dropout, DropoutConfig};

/// Sizes of a [`Gpt`].
#[derive(Config, Debug)]
pub struct GptConfig {
    /// Number of distinct tokens.
    pub vocabulary: usize,
    /// Tokens in one sequence.
    pub context: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream; a multiple of `heads`.
    pub width: usize,
    /// Attention heads in each block.
    pub heads: usize,
    /// Probability of dropping an element of each residual branch.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Use the token embedding as the weight of the output layer.
    #[config(default = false)]
    pub tied: bool,
}

/// Decoder-only transformer over token ids (pre-norm, learned positions).
#[derive(Module, Debug)]
pub struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    dropout: Dropout,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Option<Linear>,
}

/// Attention and feed-forward, each added to the residual stream.
#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    feed_forward_norm: LayerNorm,
    up: Linear,
    gelu: Gelu,
    down: Linear,
    dropout: Dropout,
}

impl GptConfig {
    /// A freshly initialised model on `device`; seed the device first for a reproducible one.
    pub fn init(&self, device: &Device) -> Gpt {
        let head = LinearConfig::new(self.width, self.vocabulary).with_bias(false);
        Gpt {
            tokens: EmbeddingConfig::new(self.vocabulary, self.width)
                .with_initializer(burn::nn::Initializer::Normal { mean: 0.0, std: 0.02 })
                .init(device),
            positions: EmbeddingConfig::new(self.context, self.width)
                .with_initializer(burn::nn::Initializer::Normal { mean: 0.0, std: 0.02 })
                .init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            blocks: (0..self.layers).map(|_| self.init_block(device)).collect(),
            norm: LayerNormConfig::new(self.width).init(device),
            head: (!self.tied).then(|| head.init(device)),
        }
    }

    fn init_block(&self, device: &Device) -> Block {
        Block {
            attention_norm: LayerNormConfig::new(self.width).init(device),
            attention: MultiHeadAttentionConfig::new(self.width, self.heads)
                .with_dropout(0.0)
                .init(device),
            feed_forward_norm: LayerNormConfig::new(self.width).init(device),
            up: LinearConfig::new(self.width, 4 * self.width).init(device),
            gelu: Gelu::new(),
            down: LinearConfig::new(4 * self.width, self.width).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

impl Gpt {
    /// Logits for the next token at every position.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, sequence]`
    /// - output: `[batch, sequence, vocabulary]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, sequence] = tokens.dims();
        let device = tokens.device();
        let positions = Tensor::arange(0..sequence as i64, &device).unsqueeze::<2>();
        let mask = generate_autoregressive_mask(batch, sequence, &device);
        let embedded = self.tokens.forward(tokens) + self.positions.forward(positions);
        let mut x = self.dropout.forward(embedded);
        for block in &self.blocks {
            x = block.forward(x, mask.clone());
        }
        let x = self.norm.forward(x);
        match &self.head {
            Some(head) => head.forward(x),
            None => x.matmul(self.tokens.weight.val().transpose().unsqueeze()),
        }
    }

    /// Mean cross-entropy of predicting `targets`, in nats per token.
    ///
    /// # Shapes
    ///
    /// - tokens and targets: `[batch, sequence]`
    /// - output: `[1]`
    pub fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<2, Int>) -> Tensor<1> {
        let logits = self.forward(tokens);
        let [batch, sequence, vocabulary] = logits.dims();
        CrossEntropyLossConfig::new().init(&logits.device()).forward(
            logits.reshape([batch * sequence, vocabulary]),
            targets.reshape([batch * sequence]),
        )
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>, mask: Tensor<3, Bool>) -> Tensor<3> {
        let input = MhaInput::self_attn(self.attention_norm.forward(x.clone())).mask_attn(mask);
        let x = x + self.dropout.forward(self.attention.forward(input).context);
        let hidden = self.up.forward(self.feed_forward_norm.forward(x.clone()));
        let branch = self.down.forward(self.gelu.forward(hidden));
        x + self.dropout.forward(branch)
    }
}
