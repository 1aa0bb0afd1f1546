//! What a model needs at least, known from the shapes of its parameters alone: nothing is
//! initialised to find it out.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::engine::{EngineDevice, UpdateRule};
use crate::error::{Error, Result, quietly};
use crate::plan::DeviceMemory;

/// Bytes of a number.
const WIDTH: u128 = size_of::<f32>() as u128;

/// Refuses a model whose parameters, their gradients and the optimizer's tensors the devices cannot
/// hold, by the `limit` of each of them or by what the system gives.
pub(super) fn check_parameters<M: Module>(
    model: &M,
    rule: &UpdateRule,
    devices: &[Box<dyn EngineDevice>],
    limit: Option<u64>,
) -> Result<()> {
    let mut sizes = Sizes::default();
    model.visit(&mut sizes);
    let of_trained = 2 + u128::from(rule.kept_tensors());
    let needed = WIDTH * (of_trained * sizes.trained + sizes.frozen);
    let of_what = format!(
        "{} parameters with their gradients and the optimizer's state take {needed} bytes",
        sizes.trained + sizes.frozen
    );
    let count = devices.len();
    if let Some(limit) = limit
        && needed > u128::from(limit) * count as u128
    {
        let least = needed.div_ceil(count as u128);
        return Err(Error::plan(format!(
            "{of_what}, the limit is {limit} for each of {count} devices"
        ))
        .hint(format!("a limit of more than {least} bytes, or more devices")));
    }
    let all_host = devices.iter().all(|device| device.is_in_host_memory());
    // Initial values are made by the host.
    let on_host = if all_host { needed } else { WIDTH * (sizes.trained + sizes.frozen) };
    if !gives(on_host) {
        return Err(Error::plan(format!("{of_what}, more than this machine has"))
            .hint("a smaller model, or a machine with more memory"));
    }
    Ok(())
}

/// Refuses a plan whose devices in the host's memory need more than the system gives.
pub(super) fn check_host(memory: &[DeviceMemory], devices: &[Box<dyn EngineDevice>]) -> Result<()> {
    let on_host = memory.iter().zip(devices).filter(|(_, device)| device.is_in_host_memory());
    let needed = on_host.map(|(memory, _)| u128::from(memory.peak_bytes())).sum();
    if gives(needed) {
        return Ok(());
    }
    let problem =
        format!("the CPU devices need {needed} bytes together, more than this machine has");
    Err(Error::plan(problem).hint("`recompute(stage)`, smaller microbatches, or a smaller model"))
}

/// Whether the system gives so much memory, which is asked for and given back untouched.
fn gives(bytes: u128) -> bool {
    let asked = usize::try_from(bytes).map(|bytes| Vec::<u8>::new().try_reserve_exact(bytes));
    matches!(asked, Ok(Ok(())))
}

/// How many numbers the float parameters have.
#[derive(Default)]
struct Sizes {
    seen: HashSet<ParamId>,
    trained: u128,
    frozen: u128,
}

impl ModuleVisitor for Sizes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.seen.insert(param.id) {
            let elements: u128 = param.lazy_shape().iter().map(|&size| size as u128).product();
            match is_trained(param) {
                true => self.trained += elements,
                false => self.frozen += elements,
            }
        }
    }
}

/// Whether a parameter requires a gradient. Burn tells that only of a value in training mode: here
/// it is one of a single number, in place of the parameter's own.
fn is_trained<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let probe = AssertUnwindSafe(|| {
        let one = Tensor::<D>::zeros([1; D], &param.lazy_device());
        let one = param.clone().transform_for_load(one, param.id);
        one.valid().to_device(&Device::flex()).train().val().is_require_grad()
    });
    // A mapper of the model's own may want the shape that it knows.
    quietly(probe).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};

    use super::*;

    #[derive(Module, Debug)]
    struct Model {
        base: Linear,
        trained: Linear,
    }

    #[test]
    fn sizes_are_known_without_initialising_and_frozen_parameters_are_told_apart() {
        let device = Device::flex();
        let layer = |inputs: usize| LinearConfig::new(inputs, 1 << 20).init(&device);
        // Terabytes, if they were initialised.
        let model = Model { base: layer(1 << 20).no_grad(), trained: layer(1 << 22) };
        let mut sizes = Sizes::default();
        model.visit(&mut sizes);
        let bias = 1 << 20;
        assert_eq!((sizes.frozen, sizes.trained), ((1 << 40) + bias, (1 << 42) + bias));
    }

    #[test]
    fn a_parameter_that_is_there_is_counted_as_one_that_is_not() {
        let device = Device::flex();
        let layer = LinearConfig::new(3, 4).init(&device);
        let model = Model { base: layer.clone().no_grad(), trained: layer };
        let counted = |model: &Model| {
            let mut sizes = Sizes::default();
            model.visit(&mut sizes);
            (sizes.frozen, sizes.trained)
        };
        let before = counted(&model);
        let _ = (model.base.weight.val(), model.trained.bias.as_ref().map(|bias| bias.val()));
        assert_eq!((counted(&model), before), ((16, 0), (16, 0)));
    }
}
