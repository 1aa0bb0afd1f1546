//! A folder of checkpoints, and the tensors in one: what must hold whatever the bytes.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use xxhash_rust::xxh3::xxh3_128;
use zerobubble::error::{Error, ErrorKind};
use zerobubble::plan::ONE_F_ONE_B;
use zerobubble::train::{Checkpoint, Checkpoints, Newest, Trainer};

use super::folder::{self, CHECKSUMS, FILES, File, Files};
use super::memory;

const GOOD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/checkpoint/good");

/// Memory for pieces of files, however small they are, and for every byte of the files.
const PIECES: usize = 1 << 20;
const PER_BYTE: usize = 100;

#[derive(Module, Debug)]
struct Model {
    layer: Linear,
}

fn trainer() -> Trainer<Model, Tensor<2>> {
    let device = Device::flex();
    device.seed(1);
    let model = Model { layer: LinearConfig::new(2, 1).init(&device) };
    let loss = |model: &Model, x: Tensor<2>| model.layer.forward(x).powi_scalar(2).mean();
    let builder = Trainer::of(model, loss).devices("cpu").expect("there is a CPU");
    let builder = builder.schedule(&ONE_F_ONE_B).microbatches(1u32).learning_rate(1e-3);
    builder.build(&Tensor::ones([1, 2], &device)).expect("it can be trained")
}

/// A folder of checkpoints as `resume` reads it: the newest that is whole, put into a trainer.
pub fn folder(input: &[u8]) {
    let files = folder::files(input);
    folder::with(&files, |path| {
        resumed(path, &files);
    });
}

/// The weights of an otherwise good checkpoint: what is read is what the format's own crate reads.
pub fn safetensors(input: &[u8]) {
    thread_local! {
        static REST: Files = folder::files(&fs::read(GOOD).expect("it is there"));
    }
    let mut files = REST.with(Files::clone);
    let name = files.keys().find(|name| name.ends_with(FILES[0])).expect("it is good").clone();
    let bytes = folder::with_length(&name, input);
    files.insert(name, File::Content(bytes.clone()));
    folder::with(&folder::seal(files.clone()), |path| {
        if resumed(path, &files).is_none() {
            return;
        }
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("it was read");
        for (name, tensor) in tensors.iter() {
            let (values, []) = tensor.data().as_chunks::<4>() else { panic!("{name} is torn") };
            assert!(values.iter().all(|value| f32::from_le_bytes(*value).is_finite()), "{name}");
        }
    });
}

/// Whether a checkpoint of the folder could be read, and whether a trainer took it.
fn resumed(path: &Path, files: &Files) -> Option<bool> {
    let size = |(name, file): (&String, &File)| match file {
        File::Content(content) => name.len() + content.len(),
        File::Link(target) => name.len() + target.len(),
    };
    let size: usize = files.iter().map(size).sum();
    let read = || Checkpoints::open(path).and_then(|folder| folder.newest());
    let (found, peak) = memory::peak(read);
    assert!(peak < PIECES + PER_BYTE * size, "{peak} bytes of memory for {size} in files");
    let Newest { checkpoint, skipped } = match found {
        Ok(newest) => newest,
        Err(error) => {
            names_a_file(&error, path);
            return None;
        }
    };
    for error in &skipped {
        assert!(matches!(error.kind, ErrorKind::Data | ErrorKind::NotFinite), "{error}");
        names_a_file(error, path);
    }
    let checkpoint = checkpoint?;
    is_whole(&checkpoint, path);
    thread_local! {
        static TRAINER: RefCell<Trainer<Model, Tensor<2>>> = RefCell::new(trainer());
    }
    Some(TRAINER.with_borrow_mut(|trainer| match trainer.resume(&checkpoint) {
        Ok(told) => {
            assert_eq!(trainer.steps(), checkpoint.step());
            told.iter().for_each(|line| assert!(line.len() < 1000, "{line}"));
            true
        }
        Err(error) => {
            names_a_file(&error, path);
            false
        }
    }))
}

/// An error is short, whatever the file says, and names a file of the folder.
fn names_a_file(error: &Error, folder: &Path) {
    let text = error.to_string();
    let file = error.site.file.as_ref().unwrap_or_else(|| panic!("no file: {text}"));
    assert!(file.starts_with(folder), "{text}");
    let others = text.matches(&*folder.to_string_lossy()).count() * folder.as_os_str().len();
    assert!(text.chars().count() < 1000 + others, "{text}");
}

/// All files are the folder's own, and have the content that the checksums say.
fn is_whole(checkpoint: &Checkpoint, folder: &Path) {
    let path = checkpoint.path();
    assert_eq!(path.parent(), Some(folder));
    assert!(path.symlink_metadata().expect("it is there").is_dir());
    assert!(path.ends_with(format!("step-{:08}", checkpoint.step())));
    let sums = fs::read_to_string(path.join(CHECKSUMS)).expect("it is text");
    for name in FILES {
        let file = path.join(name);
        assert!(file.symlink_metadata().expect("it is there").is_file(), "{name}");
        let line = format!("{:032x}  {name}", xxh3_128(&fs::read(file).expect("it is there")));
        assert!(sums.lines().any(|of| of == line), "{line}");
    }
    checkpoint.note::<serde_json::Value>().expect("anything is a value");
}

pub fn the_good_one_resumes() {
    if env::var_os("ZEROBUBBLE_WRITE_FILES").is_some() {
        fs::write(GOOD, saved()).expect("it can be written");
    }
    let files = folder::files(&fs::read(GOOD).expect("it is there"));
    folder::with(&files, |path| assert_eq!(resumed(path, &files), Some(true)));
}

/// A checkpoint as an input.
fn saved() -> Vec<u8> {
    let scratch = tempfile::tempdir().expect("a folder can be made");
    let checkpoints = Checkpoints::open(scratch.path()).expect("it is empty");
    let mut trainer = trainer();
    trainer.step(Tensor::ones([1, 2], &Device::flex())).expect("it trains");
    let note = serde_json::json!({ "windows_drawn": 1 });
    let path = trainer.save(&checkpoints, &note).expect("it can be saved");
    let mut input = b"sealed".to_vec();
    for name in FILES {
        let mut content = fs::read(path.join(name)).expect("it was saved");
        if name.ends_with(".safetensors") {
            let length: [u8; 8] = content[..8].try_into().expect("it has a length");
            content.insert(8 + u64::from_le_bytes(length) as usize, b'\n');
            content.drain(..8);
        }
        input.extend_from_slice(format!("\n==> step-00000001/{name}\n").as_bytes());
        input.extend_from_slice(&content);
    }
    input
}
