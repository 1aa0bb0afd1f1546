//! Promise: what cannot work is one clear error that says where, what was expected and what to
//! try; nothing panics and nothing hangs.

use burn::tensor::{Device, Int, Tensor, TensorData};
use zerobubble::error::ErrorKind;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::StageId;
use zerobubble::train::TrainerBuilder;
use zerobubble::{Error, Result, Trainer};

const VOCABULARY: i64 = 7;
const CONTEXT: usize = 4;
const ROWS: usize = 2;

type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

fn tokens(rows: usize, columns: usize, largest: i64) -> Tensor<2, Int> {
    let values: Vec<i64> = (0..(rows * columns) as i64).map(|at| at % (largest + 1)).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
}

fn batch(rows: usize) -> Tokens {
    (tokens(rows, CONTEXT, VOCABULARY - 1), tokens(rows, CONTEXT, VOCABULARY - 1))
}

fn builder() -> TrainerBuilder<Gpt, Tokens, impl Fn(&Gpt, Tokens) -> Tensor<1>> {
    let device = Device::flex();
    device.seed(1);
    let model = GptConfig::new(VOCABULARY as usize, CONTEXT, 2, 8, 2).init(&device);
    Trainer::of(model, |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
        .devices("cpux2")
        .unwrap()
        .microbatches(3)
}

#[track_caller]
fn check<T>(result: Result<T>, kind: ErrorKind, expected: &[&str]) -> Error {
    let Err(error) = result else { panic!("it worked") };
    let text = error.to_string();
    assert_eq!(error.kind, kind, "{text}");
    assert!(!text.contains('\n'), "{text}");
    for part in expected.iter().chain(&["try: "]) {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    error
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let build = |builder: TrainerBuilder<_, _, _>| builder.build(&batch(ROWS));
    check(build(builder().microbatches(0)), ErrorKind::Config, &["0 microbatches"]);
    check(build(builder().learning_rate(f64::NAN)), ErrorKind::Config, &["NaN"]);
    check(build(builder().devices("cpux9").unwrap()), ErrorKind::Config, &["9 stages", "blocks"]);
    check(build(builder().burn_devices(Vec::new())), ErrorKind::Config, &["no devices"]);
    check(builder().devices("cpu,tpu"), ErrorKind::Config, &["'tpu'", "cpux2"]);
    let limited = builder().memory_limit_per_device(1000);
    check(build(limited), ErrorKind::Plan, &["1000"]);
}

#[test]
fn a_batch_that_is_not_so_many_microbatches_is_refused_and_the_next_one_trains() {
    let mut trainer = builder().build(&batch(ROWS)).unwrap();
    let divides_not = trainer.step(batch(ROWS * 3 + 1));
    check(divides_not, ErrorKind::Data, &["[7, 4]", "[6, 4]", "3 microbatches"]);
    let other_shape = (tokens(ROWS * 3, CONTEXT + 1, 1), tokens(ROWS * 3, CONTEXT, 1));
    check(trainer.step(other_shape), ErrorKind::Data, &["tensor 0", "[6, 5]"]);
    trainer.step(batch(ROWS * 3)).unwrap();
}

#[test]
fn a_token_outside_of_the_vocabulary_ends_the_run_with_the_action_that_met_it() {
    let mut trainer = builder().build(&batch(ROWS)).unwrap();
    let bad = (tokens(ROWS * 3, CONTEXT, VOCABULARY), tokens(ROWS * 3, CONTEXT, 1));
    let Err(error) = trainer.step(bad) else { panic!("it worked") };
    assert_eq!(error.site.action.map(|action| action.stage), Some(StageId(0)), "{error}");
    assert!(error.to_string().contains("index 7"), "{error}");
    check(trainer.step(batch(ROWS * 3)), ErrorKind::Run, &["stopped"]);
}

#[test]
fn an_example_outside_of_the_vocabulary_is_refused_before_the_first_step() {
    let example = (tokens(ROWS, CONTEXT, VOCABULARY), tokens(ROWS, CONTEXT, 1));
    let Err(error) = builder().build(&example) else { panic!("it worked") };
    assert_eq!(error.kind, ErrorKind::Model, "{error}");
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_the_first_stage_that_saw_it() {
    let mut trainer = builder().learning_rate(1e30).build(&batch(ROWS)).unwrap();
    let error = (0..5).find_map(|_| trainer.step(batch(ROWS * 3)).err()).expect("it diverges");
    let error = check::<()>(Err(error), ErrorKind::NotFinite, &["step ", "stage "]);
    assert!(error.site.step.is_some_and(|step| step >= 2), "{error}");
    assert_eq!(error.site.stage, error.site.action.map(|action| action.stage));
}
