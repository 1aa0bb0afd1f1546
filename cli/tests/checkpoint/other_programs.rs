//! What others read from a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor};
use zerobubble::Trainer;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::train::Checkpoints;

use crate::harness::{Folder, Tokens};

/// Type, shape and little-endian bytes in hex of every tensor, by name.
type Listed = BTreeMap<String, (String, Vec<usize>, String)>;

/// Prints a safetensors file as [`Listed`].
const SCRIPT: &str = "
import json, sys
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1])
print(json.dumps({n: [str(t.dtype), list(t.shape), t.tobytes().hex()] for n, t in tensors.items()}))
";

/// What Python's package finds in a file; none where Python has no such package.
fn by_python(file: &Path) -> Option<Listed> {
    let python = || {
        let mut command = Command::new("python3");
        command.arg("-c");
        command
    };
    let there = python().arg("import numpy, safetensors").output();
    if !there.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let output = python().arg(SCRIPT).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The float parameters of a module.
fn of_module(model: &impl Module) -> Listed {
    #[derive(Default)]
    struct Visitor {
        path: Vec<String>,
        listed: Listed,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes);
            let hex = bytes.map(|byte| format!("{byte:02x}")).collect();
            let row = ("float32".into(), data.shape().to_vec(), hex);
            self.listed.insert(self.path.join("."), row);
        }
    }
    let mut visitor = Visitor::default();
    model.visit(&mut visitor);
    visitor.listed
}

fn trainer(device: &Device) -> Trainer<Gpt, Tokens> {
    let model = GptConfig::new(5, 4, 2, 8, 2).init(device);
    let tokens = || Tensor::<2, Int>::zeros([1, 4], device);
    Trainer::of(model, |model: &Gpt, (a, b): Tokens| model.loss(a, b))
        .devices("cpux2")
        .unwrap()
        .microbatches(2)
        .build(&(tokens(), tokens()))
        .unwrap()
}

#[test]
fn python_reads_the_weights_by_the_names_that_burn_gives() {
    let folder = Folder::new("python");
    let device = Device::flex();
    device.seed(3);
    let mut trainer = trainer(&device);
    let tokens = || Tensor::<2, Int>::ones([2, 4], &device);
    trainer.step((tokens(), tokens())).unwrap();
    let checkpoints = Checkpoints::open(folder.checkpoints()).unwrap();
    let path = trainer.save(&checkpoints, &()).unwrap();
    let Some(weights) = by_python(&path.join("weights.safetensors")) else {
        eprintln!("left out: python3 has no safetensors (try: pip install safetensors numpy)");
        return;
    };
    let model = trainer.model().unwrap();
    let expected = of_module(&model);
    assert_eq!(weights.len(), expected.len());
    for (name, row) in &expected {
        assert_eq!(weights.get(name), Some(row), "{name}");
    }
    let moments = by_python(&path.join("optimizer.safetensors")).unwrap();
    assert_eq!(moments.len(), 2 * expected.len());
    for (name, (kind, shape, _)) in &expected {
        for moment in ["first_moment", "second_moment"] {
            let (found, of, _) = &moments[&format!("{name}.{moment}")];
            assert_eq!((found, of), (kind, shape), "{name}");
        }
    }
}
