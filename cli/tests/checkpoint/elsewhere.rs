//! Runs that go on with other devices, in another order, with another model's habits.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use zerobubble::nn::{Dropout, DropoutConfig};
use zerobubble::plan::{GPIPE, ONE_F_ONE_B, Schedule, ZB_H1, ZB_V};
use zerobubble::train::Checkpoints;
use zerobubble::{AdamW, Momentum, Optimizer, Sgd, Trainer};

use crate::harness::{Folder, Tokens, hash, report, text};

/// A model with a weight on both ends of a pipeline, dropout, and weights that are not trained.
#[derive(Module, Debug)]
struct Tied {
    embedding: Embedding,
    first: Linear,
    dropout: Dropout,
    second: Linear,
    frozen: Linear,
    unused: Param<Tensor<1>>,
}

const VOCABULARY: usize = 11;
const WIDTH: usize = 8;

impl Tied {
    fn new() -> Self {
        let device = Device::flex();
        device.seed(5);
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, WIDTH).init(&device),
            first: LinearConfig::new(WIDTH, WIDTH).init(&device),
            dropout: DropoutConfig::new(0.3).init(),
            second: LinearConfig::new(WIDTH, WIDTH).init(&device),
            frozen: LinearConfig::new(WIDTH, WIDTH).init(&device).no_grad(),
            unused: Param::from_tensor(Tensor::ones([3], &device)),
        }
    }

    fn loss(&self, (tokens, targets): Tokens) -> Tensor<1> {
        let x = self.embedding.forward(tokens);
        let x = self.dropout.forward(self.first.forward(x)).tanh();
        let x = self.second.forward(self.frozen.forward(x).tanh());
        let logits = x.matmul(self.embedding.weight.val().transpose().unsqueeze());
        let [rows, context, _] = logits.dims();
        let logits = logits.reshape([rows * context, VOCABULARY]);
        let targets = targets.reshape([rows * context]);
        burn::nn::loss::CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits, targets)
    }
}

fn batch(step: u64, rows: usize) -> Tokens {
    let tokens = |salt: u64| {
        let token = |at: u64| ((at * at + 7 * step + salt) % VOCABULARY as u64) as i64;
        let values: Vec<i64> = (0..rows as u64 * 4).map(token).collect();
        Tensor::from_data(TensorData::new(values, [rows, 4]), &Device::flex())
    };
    (tokens(0), tokens(3))
}

fn trainer(devices: &str, schedule: Schedule, optimizer: Optimizer) -> Trainer<Tied, Tokens> {
    Trainer::of(Tied::new(), |model: &Tied, batch: Tokens| model.loss(batch))
        .devices(devices)
        .unwrap()
        .schedule(schedule)
        .optimizer(optimizer)
        .learning_rate(0.01)
        .clip_norm(0.7)
        .post_validation(optimizer.moments() == 2)
        .microbatches(3)
        .seed(9)
        .build(&batch(0, 2))
        .unwrap()
}

fn train(trainer: &mut Trainer<Tied, Tokens>, until: u64) {
    while trainer.steps() < until {
        let report = trainer.step(batch(trainer.steps(), 6)).unwrap();
        // What is restored takes the place of what was there.
        for (memory, &measured) in trainer.prediction().memory.iter().zip(&report.peak_bytes) {
            assert!(measured <= memory.fixed_bytes + memory.peak_stash_bytes, "{measured}");
        }
    }
}

/// Trains 3 steps on the first, saves, and 3 more on every other one, which has trained on other
/// data before. The note is what the caller gave.
fn goes_on(first: (&str, Schedule), others: &[(&str, Schedule)], optimizer: Optimizer) {
    let folder =
        Folder::new(&format!("goes-on-{}-{}", first.0.replace(':', "-"), optimizer.moments()));
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    let mut saved = trainer(first.0, first.1, optimizer);
    train(&mut saved, 3);
    let path = saved.save(&checkpoints, &"a note").unwrap();
    let at_save = saved.weights_hash().unwrap();
    train(&mut saved, 6);
    let expected = saved.weights_hash().unwrap();
    for (devices, schedule) in others {
        let newest = checkpoints.newest().unwrap();
        assert!(newest.skipped.is_empty(), "{:?}", newest.skipped);
        let checkpoint = newest.checkpoint.unwrap();
        assert_eq!((checkpoint.path(), checkpoint.step()), (&*path, 3));
        assert_eq!(checkpoint.note::<String>().unwrap(), "a note");
        let mut other = trainer(devices, schedule.clone(), optimizer);
        other.step(batch(50, 6)).unwrap();
        other.resume(&checkpoint).unwrap();
        assert_eq!(other.weights_hash().unwrap(), at_save, "{devices}");
        train(&mut other, 6);
        assert_eq!(other.weights_hash().unwrap(), expected, "{devices}");
    }
}

fn optimizers() -> [Optimizer; 3] {
    let momentum = Some(Momentum::default());
    [AdamW::default().into(), Sgd { momentum, ..Sgd::default() }.into(), Sgd::default().into()]
}

#[test]
fn other_cpu_devices_and_schedules_go_on_with_the_same_bits() {
    let others = [
        ("cpu", Schedule::from(&GPIPE)),
        ("cpux2", Schedule::from(&ONE_F_ONE_B)),
        ("cpux2", Schedule::from(&ZB_V)),
        ("cpux3", Schedule::Dynamic),
    ];
    for optimizer in optimizers() {
        goes_on(("cpux3", Schedule::from(&ZB_H1)), &others, optimizer);
    }
}

#[test]
fn other_queues_and_schedules_go_on_with_the_same_bits() {
    let others = [("gpu:0x2", Schedule::from(&ZB_V)), ("gpu:0x3", Schedule::from(&ONE_F_ONE_B))];
    goes_on(("gpu:0", Schedule::from(&GPIPE)), &others, AdamW::default().into());
    goes_on(("gpu:0x2", Schedule::from(&ZB_H1)), &others[..1], optimizers()[1]);
}

#[test]
fn the_program_goes_on_elsewhere_with_the_same_bits_and_batches() {
    let folder = Folder::new("elsewhere");
    let whole = folder.hash(&["--devices", "cpu", "--steps", "7"]);
    let runs = [
        ("2", ["--devices", "cpux2", "--schedule", "zb-v"]),
        ("5", ["--devices", "cpu", "--schedule", "gpipe"]),
        ("7", ["--devices", "cpux3", "--schedule", "1f1b"]),
    ];
    let mut before = 0;
    for (steps, arguments) in runs {
        let more = ["--resume", "--steps", steps];
        let output = folder.saving(&[&more[..], &arguments].concat()).output().unwrap();
        let report = report(&output);
        assert_eq!(report["steps_before"], before);
        before = steps.parse().unwrap();
        let here = before - report["steps_before"].as_u64().unwrap();
        assert_eq!(report["losses"].as_array().unwrap().len() as u64, here);
        if steps == "7" {
            assert_eq!(hash(&output), whole);
        }
    }
    // Whoever starts it once more gets the same weights, and nothing is trained.
    let again = folder.saving(&["--resume", "--steps", "7"]).output().unwrap();
    assert_eq!((hash(&again), &report(&again)["steps_before"]), (whole, &7.into()));
}

#[test]
fn a_mixture_of_devices_continues_what_a_gpu_saved() {
    let folder = Folder::new("mixture");
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    let optimizer: Optimizer = AdamW::default().into();
    let mut saved = trainer("gpu:0x2", Schedule::from(&ZB_H1), optimizer);
    train(&mut saved, 2);
    saved.save(&checkpoints, &()).unwrap();
    let checkpoint = checkpoints.newest().unwrap().checkpoint.unwrap();
    for devices in ["gpu:0,cpu", "cpu,gpu:0", "cpu"] {
        let mut other = trainer(devices, Schedule::from(&ZB_H1), optimizer);
        other.resume(&checkpoint).unwrap();
        assert_eq!(other.weights_hash().unwrap(), saved.weights_hash().unwrap(), "{devices}");
        train(&mut other, 4);
    }
}

#[test]
fn another_learning_rate_is_told_and_another_model_is_refused() {
    let folder = Folder::new("other-rate");
    let cosine = ["--learning-rate-schedule", "cosine", "--warmup", "3"];
    let first = [&["--devices", "cpu", "--steps", "10"][..], &cosine].concat();
    hash(&folder.saving(&first).output().unwrap());
    let told = |more: &[&str]| {
        let other = Folder::new("other-rate-copy");
        let copy = other.checkpoints().join("step-00000010");
        std::fs::create_dir_all(&copy).unwrap();
        for entry in std::fs::read_dir(folder.checkpoints().join("step-00000010")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let arguments = [&["--devices", "cpu", "--resume"][..], more].concat();
        let output = other.saving(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let lines = text(&output.stderr).lines().map(str::to_owned);
        lines.filter(|line| line.starts_with("saved with ")).collect::<Vec<_>>()
    };
    let rate = "saved with a learning rate of 0.0001 in step 11, continues with ";
    // The end of the cosine is a part of it, as the warm-up and the rate are.
    let rows: [(&[&str], &str); 5] = [
        (&["--steps", "20", "--learning-rate-schedule", "cosine", "--warmup", "3"], rate),
        (&["--steps", "20"], rate),
        (&["--steps", "20", "--warmup", "15"], rate),
        (&["--steps", "20", "--learning-rate-schedule", "cosine"], rate),
        (
            &[
                "--steps",
                "10",
                "--learning-rate-schedule",
                "cosine",
                "--warmup",
                "3",
                "--on-nan=skip",
            ],
            "saved with --on-nan stop, continues with --on-nan skip",
        ),
    ];
    for (more, expected) in rows {
        let told = told(more);
        assert_eq!(told.len(), 1, "{more:?}: {told:?}");
        assert!(told[0].starts_with(expected), "{more:?}: {told:?}");
    }
    let same = ["--steps", "10", "--learning-rate-schedule", "cosine", "--warmup", "3"];
    assert_eq!(told(&same), [""; 0]);
}
