//! Promise: a plan that was searched for, one that is decided while a step runs, and one that was
//! written to a file and read back train to the same bits as 1f1b on one device.

#[path = "common/families.rs"]
mod families;
#[path = "common/tokens.rs"]
mod tokens;

use burn::tensor::Device;
use families::families;
use tokens::{Tokens, tokens};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::{
    CheckedPlan, Family, GPIPE, ONE_F_ONE_B, Schedule, ZB_V, check, generate, read, to_csv,
};
use zerobubble::{Balance, Result, Trainer};

const VOCABULARY: usize = 13;
const CONTEXT: usize = 6;
const ROWS: usize = 2;
const STEPS: u64 = 3;

/// A model with weights that are used twice and dropout.
fn gpt(layers: usize) -> Gpt {
    let config = GptConfig::new(VOCABULARY, CONTEXT, layers, 12, 2);
    config.with_dropout(0.1).with_tied(true).init(&Device::flex())
}

fn batch(step: u64, rows: usize) -> Tokens {
    tokens(step, 0..rows, CONTEXT, VOCABULARY)
}

/// A trainer that makes `schedule` its plan. `microbatches` is `None` where the plan says it.
fn build(
    model: &Gpt,
    devices: &str,
    schedule: impl Into<Schedule>,
    microbatches: Option<u32>,
    limit: Option<u64>,
) -> Result<Trainer<Gpt, Tokens>> {
    Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .devices(devices)?
        .schedule(schedule)
        .microbatches(microbatches)
        .memory_limit_per_device(limit)
        // Measured times differ from run to run, and with them what fits.
        .balance(limit.map(|_| Balance::Flops))
        .learning_rate(1e-2)
        .seed(7)
        .build(&batch(0, ROWS))
}

/// The hash of the weights after a few steps, in which no device held more than was predicted.
fn hash(mut trainer: Trainer<Gpt, Tokens>) -> String {
    let rows = ROWS * trainer.plan().plan().microbatches as usize;
    for step in 0..STEPS {
        let report = trainer.step(batch(step, rows)).unwrap();
        let pairs = report.peak_bytes.iter().zip(&trainer.prediction().memory);
        for (held, predicted) in pairs {
            assert!(*held <= predicted.peak_bytes(), "{held} bytes, {predicted:?}");
        }
    }
    trainer.weights_hash().unwrap()
}

/// The plan as a file gives it back.
fn through_csv(plan: &CheckedPlan) -> Schedule {
    let plan = read(&to_csv(plan)).unwrap();
    assert_eq!(plan.schedule, "csv");
    plan.into()
}

/// Trains on devices of one kind, also by `files` of these families. `several` are specs, with how
/// many devices each of them has.
fn same_bits(model: Gpt, one: &str, several: &[(&str, u32)], files: &[&'static Family]) {
    for microbatches in [1, 3, 8] {
        let asked = Some(microbatches);
        let expected = hash(build(&model, one, &ONE_F_ONE_B, asked, None).unwrap());
        for &(devices, count) in several {
            let what = |schedule: &str| format!("{schedule} on {devices}, m={microbatches}");
            let dynamic = build(&model, devices, Schedule::Dynamic, asked, None).unwrap();
            assert_eq!(hash(dynamic), expected, "{}", what("dynamic"));
            // What 1f1b fits into, auto fits into as well.
            let needed = most_bytes(&build(&model, devices, &ONE_F_ONE_B, asked, None).unwrap());
            for limit in [None, Some(needed)] {
                let auto = build(&model, devices, Schedule::Auto, asked, limit).unwrap();
                assert!(limit.is_none_or(|limit| most_bytes(&auto) <= limit));
                let copy = through_csv(auto.plan());
                assert_eq!(hash(auto), expected, "{}, limit {limit:?}", what("auto"));
                let copy = build(&model, devices, copy, None, None).unwrap();
                assert_eq!(hash(copy), expected, "{}", what("auto from a file"));
            }
            for family in files {
                let plan = check(generate(family, count, None, microbatches).unwrap()).unwrap();
                let copy = build(&model, devices, through_csv(&plan), None, None).unwrap();
                assert_eq!(hash(copy), expected, "{} from a file", what(family.name));
            }
        }
    }
}

/// What the fullest device holds.
fn most_bytes(trainer: &Trainer<Gpt, Tokens>) -> u64 {
    let memory = trainer.prediction().memory.iter();
    memory.map(|device| device.peak_bytes()).max().unwrap()
}

#[test]
fn plans_train_to_the_same_bits_on_cpu_devices() {
    let families: Vec<&Family> = families().collect();
    same_bits(gpt(4), "cpu", &[("cpux2", 2), ("cpux3", 3)], &families);
}

#[test]
fn plans_train_to_the_same_bits_on_queues_of_a_gpu() {
    same_bits(gpt(2), "gpu:0", &[("gpu:0x2", 2)], &[&GPIPE, &ZB_V]);
}
