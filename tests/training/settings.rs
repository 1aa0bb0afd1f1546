//! Settings out of their range are refused before anything is made of the model.

use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use zerobubble::error::ErrorKind;
use zerobubble::train::{AdamW, Momentum, Optimizer, Sgd, Trainer};

fn refusal(optimizer: Optimizer) -> Option<String> {
    let model = LinearConfig::new(3, 1).init(&Device::flex());
    let loss = |model: &burn::nn::Linear, x| model.forward(x).mean();
    let example = Tensor::<2>::ones([2, 3], &Device::flex());
    let builder = Trainer::of(model, loss).devices("cpu").unwrap().optimizer(optimizer);
    builder.build(&example).err().map(|error| {
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(!error.hint.is_empty(), "{error}");
        error.to_string()
    })
}

#[test]
fn what_makes_no_step_of_an_optimizer_is_refused_by_name() {
    let momentum = |factor, dampening| {
        let momentum = Momentum { factor, dampening, nesterov: false };
        Optimizer::from(Sgd { momentum: Some(momentum), ..Sgd::default() })
    };
    let adamw = AdamW::default();
    let rows: [(Optimizer, &str); 17] = [
        (AdamW { beta_1: 1.0, ..adamw }.into(), "beta_1"),
        (AdamW { beta_1: -0.1, ..adamw }.into(), "beta_1"),
        (AdamW { beta_1: f32::NAN, ..adamw }.into(), "beta_1"),
        (AdamW { beta_2: 1.0, ..adamw }.into(), "beta_2"),
        (AdamW { beta_2: f32::INFINITY, ..adamw }.into(), "beta_2"),
        (AdamW { epsilon: 0.0, ..adamw }.into(), "epsilon"),
        (AdamW { epsilon: -1e-5, ..adamw }.into(), "epsilon"),
        (AdamW { epsilon: f32::NAN, ..adamw }.into(), "epsilon"),
        (AdamW { weight_decay: -1.0, ..adamw }.into(), "weight_decay"),
        (AdamW { weight_decay: f32::NAN, ..adamw }.into(), "weight_decay"),
        (AdamW { weight_decay: f32::INFINITY, ..adamw }.into(), "weight_decay"),
        (Sgd { weight_decay: -1e-3, ..Sgd::default() }.into(), "weight_decay"),
        (momentum(-0.5, 0.0), "momentum.factor"),
        (momentum(f32::NAN, 0.0), "momentum.factor"),
        (momentum(f32::INFINITY, 0.0), "momentum.factor"),
        (momentum(0.9, f64::NAN), "momentum.dampening"),
        (momentum(0.9, -1.0), "momentum.dampening"),
    ];
    for (optimizer, name) in rows {
        let refusal = refusal(optimizer).unwrap_or_else(|| panic!("{optimizer:?} is taken"));
        assert!(refusal.contains(name), "{refusal}");
    }
    let edges = [
        AdamW { beta_1: 0.0, beta_2: 0.0, weight_decay: 0.0, ..adamw }.into(),
        momentum(0.0, 0.0),
        momentum(2.0, 1.0),
    ];
    for optimizer in edges {
        assert_eq!(refusal(optimizer), None);
    }
}
