//! What the module computes by itself, in training mode, on one microbatch.

use std::collections::HashSet;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Device, Distribution, Gradients, Int, Tensor, TensorData};
use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use burn_backend::{FloatDType, TensorMetadata};
use burn_dispatch::{Dispatch, DispatchDevice, DispatchTensor};
use burn_flex::FlexDevice;
use burn_ir::RandomOpIr;

use super::Rounding;
use super::lift::moved;
use super::reads::examples;
use crate::batch::{Batch, move_to};
use crate::error::{Error, Result, panic_message, quietly};
use crate::loss::{IntoLoss, Loss, MicrobatchLoss};

/// What the module computed.
pub(crate) struct EagerRun {
    /// Its loss.
    pub loss: MicrobatchLoss,
    /// The loss's gradients, in the order of the module's parameters; none where Burn has none.
    pub gradients: Vec<Option<Vec<f32>>>,
    /// The random numbers that it drew, by draw.
    pub drawn: Vec<DispatchTensor>,
    /// What it made of its running values: position among its parameters, before, and after.
    pub states: Vec<(usize, [Vec<f32>; 2])>,
}

/// Seed of the numbers that the module draws.
const SEED: u64 = 0x5eed;

/// How often a run is repeated whose random numbers another thread of the program took away.
const ATTEMPTS: u32 = 100;

/// Runs `loss` and its backward in training mode on one microbatch, on Burn's Flex device. `draws`
/// are what a forward pass draws at random, `running` the values that it updates by itself.
///
/// Burn's random numbers are one stream of the whole program, which goes on afterwards with a seed
/// that it gave itself.
///
/// # Errors
///
/// When the module panics, or draws other numbers than `draws`.
pub(crate) fn eager_run<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    draws: &[RandomOpIr],
    running: &HashSet<ParamId>,
) -> Result<EagerRun>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let device = Device::flex();
    if draws.is_empty() {
        return run(model, loss, example, &device, running);
    }
    static STREAM: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    let after = number(&device);
    let mut found = None;
    for _ in 0..ATTEMPTS {
        device.seed(SEED);
        let run = run(model, loss, example, &device, running)?;
        let end = number(&device);
        device.seed(SEED);
        let drawn: Vec<DispatchTensor> = draws.iter().map(draw).collect();
        // Both have drawn the same if the streams are at the same place now.
        if end == number(&device) {
            found = Some(EagerRun { drawn, ..run });
            break;
        }
    }
    device.seed(after);
    found.ok_or_else(|| {
        Error::model("the model draws other random numbers when it runs than when it is captured")
            .hint("draw the same tensors in every forward pass, and from Burn alone")
    })
}

/// The `running` values that a forward pass in training updates.
///
/// They are moved before it, since an update can leave a value where it is by chance: the mean of
/// what dropout has emptied is the 0 that batch norm begins with.
///
/// # Errors
///
/// When the module panics.
pub(super) fn updated<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    running: &HashSet<ParamId>,
) -> Result<HashSet<ParamId>>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let device = Device::flex();
    let run = || {
        let model = moved(model.valid().to_device(&device), running).train();
        let before = values(&model, running);
        let tensors = example.clone().into_tensors();
        let mut tensors = tensors.into_iter().map(|tensor| with_autodiff(move_to(tensor, &device)));
        drop(loss(&model, B::from_tensors(&mut tensors)));
        let after = values(&model.valid(), running);
        let changed = before.into_iter().zip(after).filter(|(before, after)| before != after);
        let ids = ids(&model);
        changed.map(|((position, _), _)| ids[position]).collect()
    };
    quietly(AssertUnwindSafe(run)).map_err(panicked)
}

/// Whether the module, which draws nothing, has one loss in training and in inference.
///
/// # Errors
///
/// When the module panics.
pub(super) fn modes_agree<M, B, L, R>(model: &M, loss: &L, example: &B) -> Result<bool>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let device = Device::flex();
    let run = || {
        let model = model.valid().to_device(&device);
        let tensors = || example.clone().into_tensors().into_iter().map(|x| move_to(x, &device));
        let inference = read(loss(&model, B::from_tensors(&mut tensors())).into_loss());
        let model = model.train();
        let mut tensors = tensors().map(with_autodiff);
        let training = read(loss(&model, B::from_tensors(&mut tensors)).into_loss());
        (training, inference)
    };
    let (training, inference) = quietly(AssertUnwindSafe(run)).map_err(panicked)?;
    Ok(training.is_near(inference, 1e-5))
}

/// Whether the module's loss of `example` is the mean of the losses of its examples, as far as the
/// losses of parts of it tell; true where they cannot be computed.
pub(crate) fn is_mean<M, B, L, R>(model: &M, loss: &L, example: &B) -> bool
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let device = Device::flex();
    let rows = example.clone().into_tensors().first().map_or(0, |tensor| tensor.shape()[0]);
    if rows < 2 {
        return true;
    }
    let run = || {
        let model = model.valid().to_device(&device);
        let of = |rows: Range<usize>| {
            let part = examples(example, &rows.collect::<Vec<_>>());
            let mut tensors = part.into_tensors().into_iter().map(|x| move_to(x, &device));
            f64::from(read(loss(&model, B::from_tensors(&mut tensors)).into_loss()).value)
        };
        let parts = [rows / 2, 1].map(|cut| (cut, [of(0..cut), of(cut..rows)]));
        ([of(0..rows), of(0..rows)], parts)
    };
    let Ok(([whole, again], parts)) = quietly(AssertUnwindSafe(run)) else { return true };
    // Where chance is in it, or what is no number, losses tell nothing.
    if whole != again || !whole.is_finite() {
        return true;
    }
    parts.into_iter().all(|(cut, [first, second])| {
        let (cut, rows) = (cut as f64, rows as f64);
        let mean = (first * cut + second * (rows - cut)) / rows;
        let largest = [whole, first, second].into_iter().fold(0.0, |max, x: f64| x.abs().max(max));
        // A part of which nothing weighs is no number.
        (whole - mean).abs() <= 1e-3 * largest + 1e-6
    })
}

/// A loss as numbers.
fn read(loss: Loss) -> MicrobatchLoss {
    let number = |tensor: Tensor<1>| tensor.into_scalar::<f32>();
    MicrobatchLoss { value: number(loss.value), weight: loss.weight.map(number) }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Error {
    Error::model(format!("the model panicked on the example: {}", panic_message(&*panic)))
}

/// How far the numbers of `run` are moved when every parameter is moved by a few roundings.
///
/// # Errors
///
/// Those of [`eager_run`].
pub(crate) fn rounding<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    draws: &[RandomOpIr],
    running: &HashSet<ParamId>,
    run: &EagerRun,
) -> Result<Rounding>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let mut rounding = Rounding::default();
    // Chance that is not recorded is no rounding.
    if eager_run(model, loss, example, draws, running)?.loss != run.loss {
        return Ok(rounding);
    }
    for salt in 0..3 {
        let moved = model.valid().to_device(&Device::flex()).map(&mut Move { salt, running });
        rounding.widen(run, &eager_run(&moved, loss, example, draws, running)?);
    }
    Ok(rounding)
}

/// Moves every element of every parameter that is not running up or down by 8 units in the last
/// place.
struct Move<'a> {
    salt: u32,
    running: &'a HashSet<ParamId>,
}

impl ModuleMapper for Move<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.running.contains(&param.id) {
            return param;
        }
        let sign = |at: u32| (at ^ self.salt).wrapping_mul(0x9e37_79b9) >> 31;
        let factor = |at: u32| 1.0 + if sign(at) == 0 { -1.0 } else { 1.0 } * 2f32.powi(-20);
        param.map(|value| {
            let count = value.shape().num_elements() as u32;
            let factors = TensorData::new((0..count).map(factor).collect(), value.shape());
            value.clone() * Tensor::from_data(factors, &value.device())
        })
    }
}

fn run<M, B, L, R>(
    model: &M,
    loss: &L,
    example: &B,
    device: &Device,
    running: &HashSet<ParamId>,
) -> Result<EagerRun>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> R,
    R: IntoLoss,
{
    let run = || {
        let model = model.valid().to_device(device).train();
        let before = values(&model, running);
        let tensors = example.clone().into_tensors();
        let mut tensors = tensors.into_iter().map(|tensor| with_autodiff(move_to(tensor, device)));
        let loss = loss(&model, B::from_tensors(&mut tensors)).into_loss();
        let gradients = gradients(&model, loss.value.backward());
        let loss = read(loss);
        // `valid` takes over what the forward pass left.
        let after = values(&model.valid(), running);
        let states =
            before.into_iter().zip(after).map(|((at, before), (_, after))| (at, [before, after]));
        EagerRun { loss, gradients, drawn: Vec::new(), states: states.collect() }
    };
    quietly(AssertUnwindSafe(run)).map_err(panicked)
}

/// Ids of the module's float parameters, each once.
fn ids<M: Module>(model: &M) -> Vec<ParamId> {
    struct Visitor(Vec<ParamId>);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.0.contains(&param.id) {
                self.0.push(param.id);
            }
        }
    }
    let mut visitor = Visitor(Vec::new());
    model.visit(&mut visitor);
    visitor.0
}

/// Values of some of the module's parameters, each with its position among all.
fn values<M: Module>(model: &M, of: &HashSet<ParamId>) -> Vec<(usize, Vec<f32>)> {
    struct Visitor<'a> {
        of: &'a HashSet<ParamId>,
        seen: Vec<ParamId>,
        values: Vec<(usize, Vec<f32>)>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.seen.contains(&param.id) {
                return;
            }
            if self.of.contains(&param.id) {
                let values = param.val().into_data().iter::<f32>().collect();
                self.values.push((self.seen.len(), values));
            }
            self.seen.push(param.id);
        }
    }
    let mut visitor = Visitor { of, seen: Vec::new(), values: Vec::new() };
    model.visit(&mut visitor);
    visitor.values
}

/// The next number of the stream.
fn number(device: &Device) -> u64 {
    let whole = Distribution::Uniform(0.0, f64::from(i32::MAX));
    Tensor::<1, Int>::random([1], whole, device).into_data().iter::<i64>().next().unwrap_or(0)
        as u64
}

/// The numbers of one draw, as the graph has them before it makes integers of them: floats.
fn draw(op: &RandomOpIr) -> DispatchTensor {
    type D = Dispatch;
    let device = DispatchDevice::Flex(FlexDevice);
    let (shape, distribution, dtype) = (op.out.shape.clone(), op.distribution, op.out.dtype);
    if dtype.is_float() {
        <D as FloatTensorOps<D>>::float_random(shape, distribution, &device, dtype.into())
    } else {
        let whole = <D as IntTensorOps<D>>::int_random(shape, distribution, &device, dtype.into());
        <D as IntTensorOps<D>>::int_into_float(whole, FloatDType::F32)
    }
}

/// Gradients of the module's parameters, each once; the uses of a parameter that the module holds
/// twice are added.
fn gradients<M: Module>(model: &M, of: Gradients) -> Vec<Option<Vec<f32>>> {
    struct Visitor {
        of: Gradients,
        found: Vec<(ParamId, Option<Vec<f32>>)>,
    }
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad_remove(&mut self.of);
            let gradient = gradient.map(|of| of.into_data().iter::<f32>().collect::<Vec<_>>());
            match self.found.iter_mut().find(|(id, _)| *id == param.id) {
                None => self.found.push((param.id, gradient)),
                Some((_, Some(sum))) => {
                    let more = gradient.unwrap_or_default();
                    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
                Some((_, sum)) => *sum = gradient,
            }
        }
    }
    let mut visitor = Visitor { of, found: Vec::new() };
    model.visit(&mut visitor);
    visitor.found.into_iter().map(|(_, gradient)| gradient).collect()
}

/// `tensor` as part of an autodiff run, so that layers see that they train.
fn with_autodiff(tensor: DispatchTensor) -> DispatchTensor {
    let dtype = tensor.dtype();
    if dtype.is_float() {
        Tensor::<1>::from_dispatch(tensor).autodiff().into_dispatch()
    } else if dtype.is_bool() {
        Tensor::<1, Bool>::from_dispatch(tensor).autodiff().into_dispatch()
    } else {
        Tensor::<1, Int>::from_dispatch(tensor).autodiff().into_dispatch()
    }
}
