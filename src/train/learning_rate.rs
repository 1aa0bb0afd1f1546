//! The learning rate of every step.

use std::fmt;

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// Rates that tell schedules apart: the last one is of 4095 steps later.
const SAMPLES: u32 = 13;

/// A scheduler of Burn's, asked by the number of the step.
#[derive(Clone)]
pub(super) struct LearningRates {
    scheduler: ModuleLrScheduler,
    /// As it was before its first step.
    fresh: ModuleLrScheduler,
    /// How many steps the scheduler has taken.
    taken: u64,
    /// Of the last of them.
    rate: f64,
}

impl LearningRates {
    pub(super) fn new(scheduler: impl Into<ModuleLrScheduler>) -> Self {
        let scheduler = scheduler.into();
        Self { fresh: scheduler.clone(), scheduler, taken: 0, rate: 0.0 }
    }

    /// The rate of a step, counted from 0. Steps that are left out are stepped over, so a run that
    /// goes on at step 1000 has the rate of step 1000, also where it was further before.
    pub(super) fn at(&mut self, step: u64) -> Result<f64> {
        if step + 1 < self.taken {
            *self = Self::new(self.fresh.clone());
        }
        while self.taken <= step {
            self.rate = self.scheduler.step().base();
            self.taken += 1;
        }
        if self.rate.is_finite() && self.rate >= 0.0 {
            return Ok(self.rate);
        }
        Err(Error::config(format!("a learning rate of {}", self.rate)).hint("1e-3"))
    }

    /// Rates of a step, counted from 0, and of ever sparser ones after it.
    pub(super) fn ahead(&self, step: u64) -> Vec<(u64, f64)> {
        let mut rates = self.clone();
        let steps = (0..SAMPLES).map(|sample| step + (1 << sample) - 1);
        // What is no rate ends the run when its step comes.
        steps.map(|step| (step, rates.at(step).unwrap_or(-1.0))).collect()
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
