//! What cannot be saved, and what cannot be continued from.

use std::fs;

use burn::tensor::{Device, Int, Tensor, TensorData};
use zerobubble::error::ErrorKind;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::train::Checkpoints;
use zerobubble::{AdamW, Sgd, Trainer};

use crate::harness::{Folder, Tokens, check_failure, hash, text};

const TWO: [&str; 6] = ["--devices", "cpu", "--checkpoint-every", "1", "--steps", "2"];

#[test]
fn another_run_is_told_apart_by_the_first_option_that_differs() {
    let folder = Folder::new("another-run");
    hash(&folder.saving(&TWO).output().unwrap());
    let refused = |arguments: &[&str], parts: &[&str]| {
        let all = [&["--devices", "cpu", "--resume", "--steps", "4"][..], arguments].concat();
        let output = folder.saving(&all).output().unwrap();
        check_failure(&output, 1, parts);
        assert!(!text(&output.stderr).contains("continuing from "), "{arguments:?}");
        assert_eq!(folder.names(), ["step-00000001", "step-00000002"]);
    };
    let rows = [
        ("--seed", "3", "saved with --seed 0, not 3"),
        ("--layers", "3", "saved with --layers 2, not 3"),
        ("--width", "8", "saved with --width 16, not 8"),
        ("--heads", "4", "saved with --heads 2, not 4"),
        ("--context", "9", "saved with --context 8, not 9"),
        ("--microbatch-size", "2", "saved with --microbatch-size 1, not 2"),
        ("--microbatches", "3", "saved with --microbatches 2, not --microbatches 3"),
        ("--clip-norm", "1", "saved with no --clip-norm, not --clip-norm 1 (try: no --clip-norm,"),
    ];
    for (option, value, problem) in rows {
        refused(&[option, value], &["step-00000002", problem]);
    }
    let text_path = folder.path("text.txt");
    let text = fs::read_to_string(&text_path).unwrap();
    fs::write(&text_path, text.clone() + "more").unwrap();
    refused(&[], &["another text", "text.txt"]);
    fs::write(&text_path, text).unwrap();
    // Without --resume, the checkpoints are not mixed with those of a new run.
    let again = folder.saving(&TWO).output().unwrap();
    check_failure(&again, 1, &["checkpoints", "up to step 2", "--resume"]);
    let resumed = folder.saving(&["--devices", "cpu", "--resume", "--steps", "4"]);
    let whole = folder.hash(&["--devices", "cpu", "--steps", "4"]);
    assert_eq!(hash(&{ resumed }.output().unwrap()), whole);
}

#[test]
fn what_is_said_of_checkpoints_needs_a_folder_for_them() {
    let folder = Folder::new("no-checkpoint");
    for arguments in [&["--resume"][..], &["--checkpoint-every", "5"], &["--checkpoint-keep", "1"]]
    {
        let output = folder.train(arguments).output().unwrap();
        check_failure(&output, 2, &["--checkpoint <DIR>"]);
    }
}

#[test]
fn an_empty_folder_is_resumed_from_the_beginning() {
    let folder = Folder::new("empty");
    let output = folder.saving(&[&TWO[..], &["--resume"]].concat()).output().unwrap();
    let first = text(&output.stderr).lines().next().unwrap();
    assert!(first.starts_with("no checkpoint in ") && first.contains("beginning"), "{first}");
    assert_eq!(hash(&output), folder.hash(&["--devices", "cpu", "--steps", "2"]));
}

#[test]
fn one_folder_is_for_one_run_at_a_time() {
    let folder = Folder::new("two-runs");
    let open = Checkpoints::open(folder.checkpoints()).unwrap();
    check_failure(&folder.saving(&TWO).output().unwrap(), 1, &["another run"]);
    drop(open);
    hash(&folder.saving(&TWO).output().unwrap());
}

#[test]
fn a_folder_that_cannot_be_made_ends_the_run_before_it_starts() {
    let folder = Folder::new("no-folder");
    fs::write(folder.checkpoints(), "a file, below which there are no folders").unwrap();
    let below = folder.checkpoints().join("here");
    let mut command = folder.train(&["--devices", "cpu"]);
    let output = command.arg("--checkpoint").arg(below).output().unwrap();
    check_failure(&output, 1, &["here", "cannot be written"]);
}

/// No file may become longer than the weights are, as if the disk were full after them.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_and_leaves_the_older_checkpoints() {
    let folder = Folder::new("full");
    hash(&folder.saving(&TWO).output().unwrap());
    let weights = folder.checkpoints().join("step-00000002/weights.safetensors");
    let blocks = fs::metadata(weights).unwrap().len() / 512 + 2;
    let more = ["--devices", "cpu", "--resume", "--checkpoint-every", "1", "--steps", "4"];
    let command = folder.saving(&more);
    let mut limited = std::process::Command::new("sh");
    // The signal for it would end the run before it could say anything.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    limited.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    let output = limited.output().unwrap();
    check_failure(&output, 1, &["optimizer.safetensors: cannot be written: "]);
    assert_eq!(folder.names(), ["step-00000001", "step-00000002"]);
    let resumed = hash(&folder.saving(&more).output().unwrap());
    assert_eq!(resumed, folder.hash(&["--devices", "cpu", "--steps", "4"]));
}

/// A trainer that was left as it was made.
struct Made {
    layers: usize,
    width: usize,
    seed: u64,
    microbatches: u32,
    rows: usize,
    sgd: bool,
    clip_norm: Option<f64>,
}

const MADE: Made =
    Made { layers: 2, width: 8, seed: 0, microbatches: 2, rows: 1, sgd: false, clip_norm: None };

impl Made {
    fn trainer(&self) -> Trainer<Gpt, Tokens> {
        let device = Device::flex();
        device.seed(1);
        let model = GptConfig::new(5, 4, self.layers, self.width, 2).init(&device);
        let tokens = || {
            let zeros = vec![0i64; self.rows * 4];
            Tensor::<2, Int>::from_data(TensorData::new(zeros, [self.rows, 4]), &device)
        };
        let builder = Trainer::of(model, |model: &Gpt, (a, b): Tokens| model.loss(a, b))
            .devices("cpu")
            .unwrap()
            .seed(self.seed)
            .clip_norm(self.clip_norm)
            .microbatches(self.microbatches);
        let builder = match self.sgd {
            true => builder.optimizer(Sgd::default()),
            false => builder.optimizer(AdamW::default()),
        };
        builder.build(&(tokens(), tokens())).unwrap()
    }
}

#[test]
fn a_checkpoint_of_another_model_or_setting_is_refused_with_the_first_difference() {
    let folder = Folder::new("another-model");
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    MADE.trainer().save(&checkpoints, &()).unwrap();
    let checkpoint = checkpoints.newest().unwrap().checkpoint.unwrap();
    let rows = [
        (Made { layers: 3, ..MADE }, "blocks.2."),
        (Made { layers: 1, ..MADE }, "it has blocks.1."),
        (Made { width: 16, ..MADE }, "in it, [5, 16] in the trainer"),
        (Made { seed: 4, ..MADE }, "saved with `seed(0)`, not `seed(4)`"),
        (Made { microbatches: 3, ..MADE }, "saved with `microbatches(2)`, not `microbatches(3)`"),
        (Made { rows: 2, ..MADE }, "saved with microbatches of shape [[1, 4], [1, 4]]"),
        (Made { sgd: true, ..MADE }, "not optimizer Sgd"),
        (
            Made { clip_norm: Some(0.1), ..MADE },
            "saved with `clip_norm(None)`, not `clip_norm(0.1)`",
        ),
    ];
    for (made, expected) in rows {
        let mut trainer = made.trainer();
        let before = trainer.weights_hash().unwrap();
        let error = trainer.resume(&checkpoint).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Data);
        let line = error.to_string();
        assert!(line.contains(expected) && line.contains("(try: "), "{line}");
        assert!(line.contains("step-00000000") && !line.contains('\n'), "{line}");
        // It is as it was, and can go on.
        assert_eq!(trainer.weights_hash().unwrap(), before);
    }
    assert!(checkpoint.note::<String>().is_err());
}

#[test]
fn only_the_last_checkpoints_are_kept() {
    let folder = Folder::new("kept");
    let mut trainer = MADE.trainer();
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap().keep(2);
    let tokens = || Tensor::<2, Int>::zeros([2, 4], &Device::flex());
    for _ in 0..4 {
        trainer.step((tokens(), tokens())).unwrap();
        trainer.save(&checkpoints, &()).unwrap();
    }
    assert_eq!(folder.names(), ["step-00000003", "step-00000004"]);
    // Once more at the same step takes the place of the first.
    trainer.save(&checkpoints, &"again").unwrap();
    assert_eq!(folder.names(), ["step-00000003", "step-00000004"]);
    let newest = checkpoints.newest().unwrap().checkpoint.unwrap();
    assert_eq!(newest.note::<String>().unwrap(), "again");
}
