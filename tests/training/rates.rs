//! The learning rate of every step is that of the scheduler.

use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrSchedulerConfig;
use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
use burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use burn::module::ParamGroup;
use zerobubble::error::ErrorKind;
use zerobubble::gpt::Gpt;
use zerobubble::train::Trainer;

use super::{ROWS, Tokens, batch, builder, gpt, steps};

fn warm_up_and_cosine() -> SequentialLrSchedulerConfig {
    let warm_up = LinearLrSchedulerConfig::new(0.002, 0.01, 2);
    let cosine = CosineAnnealingLrSchedulerConfig::new(0.01, 4);
    SequentialLrSchedulerConfig::new(vec![warm_up.into(), cosine.into()], vec![2])
}

fn rates(trainer: &mut Trainer<Gpt, Tokens>, steps: u64) -> Vec<f64> {
    let step = |step| trainer.step(batch(step, 0..3 * ROWS)).unwrap().learning_rate;
    (0..steps).map(step).collect()
}

#[test]
fn burns_schedulers_give_the_rate_of_every_step() {
    let model = gpt(0.0);
    let build = || builder(&model, "cpux2").learning_rate(warm_up_and_cosine().init().unwrap());
    let mut trainer = build().build(&batch(0, 0..ROWS)).unwrap();
    let found = rates(&mut trainer, 6);
    let half = 0.005 * (1.0 + std::f64::consts::FRAC_PI_4.cos());
    for (found, expected) in found.iter().zip([0.002, 0.006, 0.01, half, 0.005, 0.01 - half]) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
    let mut by_hand = builder(&model, "cpu").build(&batch(0, 0..ROWS)).unwrap();
    for (step, rate) in (0..).zip(found) {
        by_hand.set_learning_rate(rate);
        steps(&mut by_hand, step..step + 1);
    }
    assert_eq!(trainer.weights_hash().unwrap(), by_hand.weights_hash().unwrap());
    trainer.set_learning_rate(0.5);
    assert_eq!(rates(&mut trainer, 2), [0.5, 0.5]);
}

#[test]
fn a_scheduler_of_ones_own_is_taken_as_well() {
    /// Every rate is half of the one before.
    #[derive(Clone)]
    struct Halved(f64);
    impl LrScheduler for Halved {
        fn step(&mut self) -> f64 {
            self.0 /= 2.0;
            self.0
        }

        fn to_record(&self) -> burn::lr_scheduler::LrSchedulerRecord {
            Default::default()
        }

        fn load_record(&mut self, _record: burn::lr_scheduler::LrSchedulerRecord) {}
    }
    let builder = builder(&gpt(0.0), "cpu").learning_rate(Halved(0.08));
    let mut trainer = builder.build(&batch(0, 0..ROWS)).unwrap();
    assert_eq!(rates(&mut trainer, 3), [0.04, 0.02, 0.01]);
}

#[test]
fn rates_for_some_parameters_only_and_rates_that_are_none_are_refused() {
    let model = gpt(0.0);
    let noam = NoamLrSchedulerConfig::new(0.1).init().unwrap();
    assert!(builder(&model, "cpu").learning_rate(noam).build(&batch(0, 0..ROWS)).is_ok());
    let groups = ModuleLrSchedulerConfig::new(0.01.into())
        .with_group(ParamGroup::all(), 0.02)
        .init()
        .unwrap();
    for builder in [
        builder(&model, "cpu").learning_rate(groups),
        builder(&model, "cpu").learning_rate(f64::NAN),
        builder(&model, "cpu").learning_rate(-1.0),
    ] {
        let Err(error) = builder.build(&batch(0, 0..ROWS)) else { panic!("it is taken") };
        assert_eq!(error.kind, ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("learning rate"), "{error}");
    }
}
