//! Burn's own gradients on Flex, and how far ours are from them.

#[path = "numbers.rs"]
mod drawn;
#[path = "values.rs"]
mod held;

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use zerobubble::batch::Batch;
use zerobubble::nn::with_dropout_key;
use zerobubble::{Sgd, Trainer};

pub use drawn::numbers;
use held::values;

/// Largest accepted difference of an element, relative to 1 or to the largest element of its
/// tensor if that is larger.
pub const TOLERANCE: f64 = 1e-5;

/// Compares the gradient of every parameter with Burn's. `batch` makes the batch on a device.
pub fn compare<M, B, L>(model: &M, loss: &L, batch: impl Fn(&Device) -> B) -> Result<(), String>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    let flex = Device::flex();
    let ours = zerobubble::gradients(model, loss, &batch(&flex)).map_err(|e| e.to_string())?;
    let burns = burns_gradients(model, loss, batch(&flex.autodiff()));
    assert_eq!(ours.len(), burns.len(), "as many gradients as parameters");
    for ((path, ours), burns) in ours.iter().zip(&burns) {
        close(ours, burns).map_err(|difference| format!("gradient of {path}: {difference}"))?;
    }
    Ok(())
}

/// Compares the gradient of every parameter on a GPU with that on the CPU: one step of learning
/// rate 1 takes exactly the gradient off the parameter, but for one rounding.
pub fn compare_on_gpu<M, B, L>(
    model: &M,
    loss: &L,
    batch: impl Fn(&Device) -> B,
) -> Result<(), String>
where
    M: Module,
    B: Batch,
    L: Fn(&M, B) -> Tensor<1>,
{
    let example = batch(&Device::flex());
    let expected = zerobubble::gradients(model, loss, &example).map_err(|e| e.to_string())?;
    let step = || {
        let mut trainer = Trainer::of(model.clone(), |model: &M, batch: B| loss(model, batch))
            .devices("gpu:0")?
            .optimizer(Sgd::default())
            .learning_rate(1.0)
            .microbatches(1)
            .build(&example)?;
        trainer.step(example.clone())?;
        trainer.into_module()
    };
    let trained = step().map_err(|e| e.to_string())?;
    let pairs = values(model).into_iter().zip(values(&trained));
    for ((path, expected), (before, after)) in expected.iter().zip(pairs) {
        let largest = expected.iter::<f32>().chain(before.iter().copied());
        let largest = largest.fold(1.0, |largest: f32, x| largest.max(x.abs()));
        let found = before.iter().zip(&after).map(|(before, after)| before - after);
        for (at, (found, expected)) in found.zip(expected.iter::<f32>()).enumerate() {
            if (found - expected).abs() > 2e-5 * largest {
                return Err(format!("{path}: element {at} is {found}, on the CPU {expected}"));
            }
        }
    }
    Ok(())
}

/// Whether every element of `ours` is within [`TOLERANCE`] of Burn's.
pub fn close(ours: &TensorData, burns: &TensorData) -> Result<(), String> {
    if ours.shape() != burns.shape() {
        return Err(format!("shape {:?}, Burn's {:?}", ours.shape(), burns.shape()));
    }
    let largest = burns.iter::<f64>().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    for (at, (ours, burns)) in ours.iter::<f64>().zip(burns.iter::<f64>()).enumerate() {
        let near = (ours - burns).abs() <= TOLERANCE * largest;
        if !near {
            return Err(format!("element {at} is {ours}, Burn's {burns}"));
        }
    }
    Ok(())
}

/// Burn's gradient of every parameter in the module's order, zero where it has none. A parameter
/// that the module holds twice becomes two leaves in Burn; its gradient is their sum.
fn burns_gradients<M, B, L>(model: &M, loss: &L, batch: B) -> Vec<TensorData>
where
    M: Module,
    L: Fn(&M, B) -> Tensor<1>,
{
    struct Sums {
        gradients: Gradients,
        order: Vec<ParamId>,
        sums: HashMap<ParamId, (Vec<f32>, Vec<usize>)>,
    }
    impl ModuleVisitor for Sums {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let elements = param.shape().num_elements();
            let gradient = param.val().grad(&self.gradients).map(Tensor::into_data);
            let gradient = gradient.map_or(vec![0.0; elements], |data| data.iter().collect());
            let (sum, _) = self.sums.entry(param.id).or_insert_with(|| {
                self.order.push(param.id);
                (vec![0.0; elements], param.shape().to_vec())
            });
            sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
        }
    }
    let model = model.clone().to_device(&Device::flex()).train();
    let loss = with_dropout_key(0, 0, 0, || loss(&model, batch));
    let gradients = loss.backward();
    let mut sums = Sums { gradients, order: Vec::new(), sums: HashMap::new() };
    model.visit(&mut sums);
    let Sums { order, mut sums, .. } = sums;
    let take = |id: ParamId| sums.remove(&id).map(|(sum, dims)| TensorData::new(sum, dims));
    order.into_iter().filter_map(take).collect()
}

/// A tensor of [`numbers`].
pub fn tensor<const D: usize>(seed: u64, dims: [usize; D], low: f32, high: f32) -> Tensor<D> {
    let values = numbers(seed, dims.iter().product(), low, high);
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}
