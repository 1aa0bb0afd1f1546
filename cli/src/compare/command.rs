//! A variant -> the command that trains by it.

use zerobubble::train::{Precision, Recompute, Variant};

use crate::args::{BalanceArg, CommonArgs};
use crate::report::quoted;

/// `train` with the variant and the options of the comparison.
pub fn train(args: &CommonArgs, variant: &Variant) -> String {
    let mut words = vec!["zerobubble".to_owned(), "train".to_owned()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("devices", args.devices.clone());
    option("schedule", variant.schedule.to_string());
    variant.chunks.into_iter().for_each(|chunks| option("chunks", chunks.to_string()));
    variant.microbatches.into_iter().for_each(|of| option("microbatches", of.to_string()));
    if variant.recompute != Recompute::None {
        option("recompute", variant.recompute.to_string());
    }
    option("microbatch-size", args.microbatch_size.to_string());
    option("layers", args.layers.to_string());
    option("width", args.width.to_string());
    option("heads", args.heads.to_string());
    option("context", args.context.to_string());
    option("learning-rate", args.learning_rate.to_string());
    option("seed", args.seed.to_string());
    args.clip_norm.into_iter().for_each(|norm| option("clip-norm", norm.to_string()));
    let limit = args.memory_limit_per_device;
    limit.into_iter().for_each(|bytes| option("memory-limit-per-device", bytes.to_string()));
    match args.balance {
        Some(BalanceArg::Flops) => option("balance", "flops".to_owned()),
        Some(BalanceArg::Measured) => option("balance", "measured".to_owned()),
        None => {}
    }
    if args.activations != Precision::F32 {
        option("activations", args.activations.to_string());
    }
    if let Some(text) = &args.text {
        option("text", text.display().to_string());
    }
    if args.post_validation {
        words.push("--post-validation".to_owned());
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
