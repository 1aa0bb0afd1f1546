//! The parameters of a module as numbers.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

/// The parameters' elements in the module's order, each parameter once.
pub fn values<M: Module>(model: &M) -> Vec<Vec<f32>> {
    struct Values(Vec<(ParamId, Vec<f32>)>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.iter().all(|(id, _)| *id != param.id) {
                self.0.push((param.id, param.val().into_data().iter::<f32>().collect()));
            }
        }
    }
    let mut values = Values(Vec::new());
    model.visit(&mut values);
    values.0.into_iter().map(|(_, values)| values).collect()
}
