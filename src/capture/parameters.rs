//! The parameters of a module: found, read and written in the module's own order.

use std::collections::{HashMap, HashSet};

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};
use burn_backend::TensorMetadata;
use burn_capture::CaptureBackend;
use burn_dispatch::DispatchTensor;
use burn_ir::TensorId;

use super::lift::running;
use crate::batch::move_to;
use crate::error::{Error, Result};
use crate::graph::Shape;

/// A parameter on the capture device.
pub(super) struct RecordedParameter {
    pub id: ParamId,
    pub tensor: TensorId,
    pub path: String,
    pub shape: Shape,
    pub dtype: DType,
}

/// The float parameters of a module that lives on a capture device.
pub(super) fn recorded<M: Module>(model: &M) -> Vec<RecordedParameter> {
    struct Visitor {
        path: Vec<String>,
        found: Vec<RecordedParameter>,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let (shape, dtype) = (Shape(tensor.shape().to_vec()), tensor.dtype());
            if let Ok(tensor) = tensor.try_into_primitive::<CaptureBackend>() {
                let path = self.path.join(".");
                self.found.push(RecordedParameter {
                    id: param.id,
                    tensor: tensor.id(),
                    path,
                    shape,
                    dtype,
                });
            }
        }
    }
    let mut visitor = Visitor { path: Vec::new(), found: Vec::new() };
    model.visit(&mut visitor);
    visitor.found
}

/// The float parameters that do not require a gradient: what was frozen, and running statistics.
pub(super) fn frozen<M: Module>(model: &M) -> HashSet<ParamId> {
    struct Visitor(HashSet<ParamId>);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.val().is_require_grad() {
                self.0.insert(param.id);
            }
        }
    }
    // Burn tells only of a module in training mode which parameters require a gradient.
    let model = model.valid().to_device(&Device::flex()).train();
    let mut visitor = Visitor(HashSet::new());
    model.visit(&mut visitor);
    visitor.0
}

/// Paths of the module's float parameters, each with its position in [`read`]: what the module
/// holds twice has two paths and one position.
pub(crate) fn paths<M: Module>(model: &M) -> Vec<(String, usize)> {
    struct Visitor {
        path: Vec<String>,
        seen: Vec<ParamId>,
        paths: Vec<(String, usize)>,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let position = self.seen.iter().position(|id| *id == param.id).unwrap_or_else(|| {
                self.seen.push(param.id);
                self.seen.len() - 1
            });
            self.paths.push((self.path.join("."), position));
        }
    }
    let mut visitor = Visitor { path: Vec::new(), seen: Vec::new(), paths: Vec::new() };
    model.visit(&mut visitor);
    visitor.paths
}

/// Values of the module's parameters on Burn's host device, each once, in the module's own order.
/// Those that are there already share their memory with the module.
pub(crate) fn read<M: Module>(model: &M) -> Vec<DispatchTensor> {
    read_besides(model, &HashSet::new()).into_iter().flatten().collect()
}

/// The same without those at some positions.
pub(crate) fn read_besides<M: Module>(
    model: &M,
    positions: &HashSet<usize>,
) -> Vec<Option<DispatchTensor>> {
    struct Visitor<'a> {
        positions: &'a HashSet<usize>,
        seen: HashSet<ParamId>,
        values: Vec<Option<DispatchTensor>>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.seen.insert(param.id) {
                let wanted = !self.positions.contains(&self.values.len());
                let value = wanted.then(|| move_to(param.val().into_dispatch(), &Device::flex()));
                self.values.push(value);
            }
        }
    }
    let mut visitor = Visitor { positions, seen: HashSet::new(), values: Vec::new() };
    model.visit(&mut visitor);
    visitor.values
}

/// A copy of the module with `values`, in the order of [`read`], in place of its parameters; where
/// there is none, a parameter stays as it is. Values on the module's device share their memory with
/// the copy.
///
/// # Errors
///
/// When `values` are not as many, or not of the shapes, as the module has.
pub(crate) fn load<M: Module>(model: &M, values: Vec<Option<DispatchTensor>>) -> Result<M> {
    struct Mapper {
        values: std::vec::IntoIter<Option<DispatchTensor>>,
        /// Of those that came before: the module may hold one more than once.
        taken: HashMap<ParamId, Option<DispatchTensor>>,
        mismatch: Option<String>,
    }
    impl Mapper {
        fn mismatch(&mut self, expected: &[usize], found: &str) {
            self.mismatch.get_or_insert(format!("expected {expected:?}, got {found}"));
        }
    }
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let old = param.val();
            if !self.taken.contains_key(&param.id) {
                let next = self.values.next();
                let shape = old.shape().to_vec();
                let value = match next {
                    None => {
                        self.mismatch(&shape, "nothing");
                        None
                    }
                    Some(Some(value)) if value.shape().to_vec() != shape => {
                        self.mismatch(&shape, &format!("{:?}", value.shape()));
                        None
                    }
                    Some(value) => {
                        value.map(|value| move_to(value, &old.device().without_autodiff()))
                    }
                };
                self.taken.insert(param.id, value);
            }
            let Some(value) = self.taken[&param.id].clone() else { return param };
            param.map(|old| {
                let value = Tensor::from_dispatch(value);
                let value = if old.is_autodiff() { value.autodiff() } else { value };
                if old.is_require_grad() { value.require_grad() } else { value }
            })
        }
    }
    let mut mapper = Mapper { values: values.into_iter(), taken: HashMap::new(), mismatch: None };
    let model = separate(model).map(&mut mapper);
    match mapper.mismatch {
        Some(mismatch) => {
            Err(Error::model(format!("parameters do not fit the module: {mismatch}")))
        }
        None => Ok(model),
    }
}

/// The module without the values of some parameters, by their positions in [`read`]: what has
/// taken them over has the only ones. Running values, which clones of the module share, stay.
pub(crate) fn emptied<M: Module>(model: M, positions: &HashSet<usize>) -> M {
    struct Mapper<'a> {
        positions: &'a HashSet<usize>,
        running: HashSet<ParamId>,
        seen: Vec<ParamId>,
    }
    impl ModuleMapper for Mapper<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let position = self.seen.iter().position(|id| *id == param.id).unwrap_or_else(|| {
                self.seen.push(param.id);
                self.seen.len() - 1
            });
            if self.running.contains(&param.id) || !self.positions.contains(&position) {
                return param;
            }
            param.map(|value| {
                // One number, seen everywhere.
                let device = value.device();
                let empty = Tensor::<D>::zeros([1; D], &device).expand(value.shape());
                if value.is_require_grad() { empty.require_grad() } else { empty }
            })
        }
    }
    let running = running(&model);
    model.map(&mut Mapper { positions, running, seen: Vec::new() })
}

/// A copy of the module that shares no running values with it, as clones do.
fn separate<M: Module>(model: &M) -> M {
    #[derive(Default)]
    struct Found {
        flags: HashMap<ParamId, bool>,
        /// Whether a parameter is on an autodiff device, and whether it requires a gradient.
        lifted: HashMap<ParamId, (bool, bool)>,
    }
    impl ModuleVisitor for Found {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            self.lifted.insert(param.id, (value.is_autodiff(), value.is_require_grad()));
        }

        fn visit_flag(&mut self, flag: &Param<Flag>) {
            self.flags.insert(flag.id, flag.is_enabled());
        }
    }
    impl ModuleMapper for Found {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.lifted[&param.id] {
                (true, requires) => param.map(|value| value.autodiff().set_require_grad(requires)),
                (false, _) => param,
            }
        }

        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            let enabled = self.flags[&flag.id];
            flag.with_value(enabled)
        }
    }
    if running(model).is_empty() {
        return model.clone();
    }
    let mut found = Found::default();
    model.visit(&mut found);
    // `valid` makes running values of its own.
    model.valid().map(&mut found)
}
