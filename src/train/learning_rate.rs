//! The learning rate of every step.

use std::fmt;

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// A scheduler of Burn's, asked by the number of the step.
#[derive(Clone)]
pub(super) struct LearningRates {
    scheduler: ModuleLrScheduler,
    /// How many steps the scheduler has taken.
    taken: u64,
    /// Of the last of them.
    rate: f64,
}

impl LearningRates {
    pub(super) fn new(scheduler: impl Into<ModuleLrScheduler>) -> Self {
        Self { scheduler: scheduler.into(), taken: 0, rate: 0.0 }
    }

    /// The rate of a step, counted from 0. Steps ascend. Those that are left out are stepped over,
    /// so a run that goes on at step 1000 has the rate of step 1000.
    pub(super) fn at(&mut self, step: u64) -> Result<f64> {
        while self.taken <= step {
            self.rate = self.scheduler.step().base();
            self.taken += 1;
        }
        if self.rate.is_finite() && self.rate >= 0.0 {
            return Ok(self.rate);
        }
        Err(Error::config(format!("a learning rate of {}", self.rate)).hint("1e-3"))
    }

    /// Looks at the first rate without taking a step.
    ///
    /// # Errors
    ///
    /// When it is no rate, or when some parameters of `model` have one of their own.
    pub(super) fn check(&self, model: &impl Module) -> Result<()> {
        struct Visitor {
            rates: ModuleLearningRate,
            path: Vec<String>,
            differs: bool,
        }
        impl ModuleVisitor for Visitor {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.path.push(name.into());
            }

            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.path.pop();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let own = self.rates.lr_from_param(param.id, Some(&self.path.join(".")));
                self.differs |= own != self.rates.base();
            }
        }
        self.clone().at(self.taken)?;
        let rates = self.scheduler.clone().step();
        let mut visitor = Visitor { rates, path: Vec::new(), differs: false };
        model.visit(&mut visitor);
        if visitor.differs {
            return Err(Error::config("a learning rate for some parameters only")
                .hint("a scheduler without groups of parameters"));
        }
        Ok(())
    }
}

impl fmt::Debug for LearningRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LearningRates")
            .field("taken", &self.taken)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}
