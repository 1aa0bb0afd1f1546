//! Weight decay is for matrices, unless it is asked for all.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, SgdConfig, decay};
use burn::tensor::{Device, Tensor};
use zerobubble::gpt::Gpt;
use zerobubble::plan::{INTERLEAVED_1F1B, ZB_H1, ZB_V};
use zerobubble::{AdamW, Decayed, Optimizer, Sgd};

use super::{ROWS, assert_close, batch, builder, gpt, steps};

/// So large that a parameter on the wrong side would be far off.
const DECAY: f32 = 3.0;

const STEPS: u64 = 4;

/// Burn's eager training with two optimizers: one for matrices, one for the rest.
fn eager(model: &Gpt, mut matrices: Step, mut rest: Step) -> Gpt {
    let device = Device::flex();
    let mut model = model.clone().to_device(&device).train();
    for number in 0..STEPS {
        let mut accumulator = GradientsAccumulator::new();
        for microbatch in 0..3 {
            let (tokens, targets) = batch(number, microbatch * ROWS..(microbatch + 1) * ROWS);
            let grads = (model.loss(tokens, targets) / 3.0).backward();
            accumulator.accumulate(&model, GradientsParams::from_grads(grads, &model));
        }
        let (of_matrices, of_rest) = by_dimensions(&model, accumulator.grads());
        model = rest(matrices(model, of_matrices), of_rest);
    }
    model.valid()
}

type Step = Box<dyn FnMut(Gpt, GradientsParams) -> Gpt>;

/// The gradients of parameters of two dimensions or more, and the others.
fn by_dimensions(model: &Gpt, gradients: GradientsParams) -> (GradientsParams, GradientsParams) {
    struct Sorter(GradientsParams, GradientsParams, GradientsParams);
    impl ModuleVisitor for Sorter {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.remove::<D>(param.id) {
                let side = if D < 2 { &mut self.2 } else { &mut self.1 };
                side.register(param.id, gradient);
            }
        }
    }
    let mut sorter = Sorter(gradients, GradientsParams::new(), GradientsParams::new());
    model.visit(&mut sorter);
    (sorter.1, sorter.2)
}

fn adamw(decay: f32) -> Step {
    let mut adamw = AdamWConfig::new().with_weight_decay(decay).init();
    Box::new(move |model, gradients| adamw.step(1e-2, model, gradients))
}

fn sgd(decay: f32) -> Step {
    let penalty = decay::WeightDecayConfig::new(decay);
    let mut sgd = SgdConfig::new().with_weight_decay(Some(penalty)).init();
    Box::new(move |model, gradients| sgd.step(1e-2, model, gradients))
}

fn trained(model: &Gpt, devices: &str, optimizer: impl Into<Optimizer>) -> (Gpt, String) {
    let builder = builder(model, devices).optimizer(optimizer).schedule(&ZB_H1);
    let mut trainer = builder.build(&batch(0, 0..ROWS)).unwrap();
    steps(&mut trainer, 0..STEPS);
    let hash = trainer.weights_hash().unwrap();
    (trainer.into_module().unwrap(), hash)
}

#[test]
fn weight_decay_spares_biases_and_gains_unless_it_is_for_all() {
    let model = gpt(0.0);
    for decayed in [Decayed::Matrices, Decayed::All] {
        let rest = if decayed == Decayed::All { DECAY } else { 0.0 };
        let optimizers: [(Optimizer, Gpt); 2] = [
            (
                AdamW { weight_decay: DECAY, decayed, ..AdamW::default() }.into(),
                eager(&model, adamw(DECAY), adamw(rest)),
            ),
            (
                Sgd { weight_decay: DECAY, decayed, momentum: None }.into(),
                eager(&model, sgd(DECAY), sgd(rest)),
            ),
        ];
        for (optimizer, burns) in optimizers {
            assert_close(&trained(&model, "cpux3", optimizer).0, &burns, 1e-4);
            assert_close(&trained(&model, "gpu:0x2", optimizer).0, &burns, 1e-3);
        }
    }
}

#[test]
fn a_gpu_decays_to_the_same_bits_whatever_else_is_in_its_memory() {
    let model = gpt(0.1);
    let optimizer = AdamW { weight_decay: 0.1, ..AdamW::default() };
    let (_, expected) = trained(&model, "gpu:0", optimizer);
    assert_eq!(trained(&model, "gpu:0x3", optimizer).1, expected);
    for family in [&INTERLEAVED_1F1B, &ZB_V] {
        let builder = builder(&model, "gpu:0x2").optimizer(optimizer).schedule(family);
        let mut trainer = builder.build(&batch(0, 0..ROWS)).unwrap();
        steps(&mut trainer, 0..STEPS);
        assert_eq!(trainer.weights_hash().unwrap(), expected, "{family}");
    }
}
