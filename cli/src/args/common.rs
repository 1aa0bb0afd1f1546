//! What both `train` and `compare` are told: the model, its batches, the devices.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use zerobubble::train::Precision;

use super::values::{count, learning_rate, norm};

/// Options of every training.
#[derive(Args)]
pub struct CommonArgs {
    /// Devices of the pipeline: a comma list of cpu or gpu:N, each with an xK if there are K of it
    #[arg(long, value_name = "SPEC", default_value = "auto")]
    pub devices: String,
    /// Sequences in a microbatch
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = count::<usize>(65_536))]
    pub microbatch_size: usize,
    /// Seed of the weights, the batches and the sample
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Transformer blocks
    #[arg(long, value_name = "L", default_value_t = 4, value_parser = count::<usize>(1024))]
    pub layers: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "D", default_value_t = 128, value_parser = count::<usize>(65_536))]
    pub width: usize,
    /// Attention heads in each block
    #[arg(long, value_name = "H", default_value_t = 4, value_parser = count::<usize>(65_536))]
    pub heads: usize,
    /// Characters that the model sees at once
    #[arg(long, value_name = "T", default_value_t = 64, value_parser = count::<usize>(65_536))]
    pub context: usize,
    /// Learning rate of AdamW, the largest one where it changes
    #[arg(long, value_name = "R", default_value_t = 1e-3, value_parser = learning_rate)]
    pub learning_rate: f64,
    /// Clip all gradients by their global norm: multiply them by R / norm where it is above R
    #[arg(long, value_name = "R", value_parser = norm)]
    pub clip_norm: Option<f64>,
    /// Update a device's weights before the norm of all gradients is known, and again where they
    /// are clipped; takes memory for a copy of the weights and the optimizer's state
    #[arg(long, requires = "clip_norm")]
    pub post_validation: bool,
    /// Refuse a plan with which a device would hold more than this
    #[arg(long, value_name = "BYTES", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub memory_limit_per_device: Option<u64>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "PATH",
        help = "Text file or folder to train on [default: zerobubble's own sources]"
    )]
    pub text: Option<PathBuf>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_enum,
        value_name = "flops|measured",
        hide_possible_values = true,
        help = "What makes the stages equally slow: counted flops, or block times measured on \
                every device [default: measured for auto, and where it takes less than a second; \
                else flops]"
    )]
    pub balance: Option<BalanceArg>,
    /// How activations are stored: f16 halves their memory, on GPUs that have it
    #[arg(long, value_name = "f32|f16", default_value_t = Precision::F32)]
    pub activations: Precision,
}

/// Where the costs of blocks come from when the model is cut into stages.
#[derive(Clone, Copy, ValueEnum)]
pub enum BalanceArg {
    /// Count floating point operations.
    Flops,
    /// Run every block on every device and take the time.
    Measured,
}
