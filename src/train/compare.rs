//! Several ways to schedule one training, each for a few steps on the real devices, in turn.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use burn::module::Module;

use super::prepared::{Planned, Prepared};
use super::profile::BlockTimes;
use super::step_report::StepReport;
use super::trainer::Trainer;
use super::variant::Variant;
use super::verified_model::split_for;
use crate::batch::Batch;
use crate::error::{Error, Result, of_panic, quietly};
use crate::graph::Graph;
use crate::plan::{CheckedPlan, Communication, Simulation, StageId};
use crate::runtime::Dispatch;
use crate::split::Split;

/// Every contender has two turns, in opposite orders: what slows the machine down for a while hits
/// no contender in both.
const ROUNDS: u32 = 2;

/// A model on its devices, and the ways to schedule it that are compared: what
/// [`TrainerBuilder::compare`](super::TrainerBuilder::compare) gives.
///
/// The model is captured and verified once, and every variant is planned. [`run`](Self::run) then
/// trains a few steps of each. All begin from the same weights, which stay what they are: so the
/// host holds the model once more than in training.
#[derive(Debug)]
pub struct Comparison<M, B> {
    prepared: Prepared<M>,
    contenders: Vec<Contender>,
    batch: PhantomData<fn(B)>,
}

/// A variant, how it is planned, and what was measured of it.
#[derive(Debug)]
pub struct Contender {
    variant: Variant,
    planned: Option<Planned>,
    fault: Option<Error>,
    /// Of all steps but those that warm up.
    reports: Vec<StepReport>,
}

/// What was measured of a contender.
#[derive(Debug, Clone)]
pub struct Measured<'a> {
    /// The step that took the median time.
    pub median: &'a StepReport,
    /// Wall time of every step, in the order in which they were taken.
    pub seconds: Vec<f64>,
    /// Most bytes that every device held at once, in any step.
    pub peak_bytes: Vec<u64>,
}

/// What a comparison is at.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Whose turn it is, as a position in [`Comparison::contenders`].
    pub position: usize,
    /// Whose turn it is, with the steps before this one.
    pub contender: &'a Contender,
    /// The step that was taken; none before the first of a turn, while the devices get ready.
    pub report: Option<&'a StepReport>,
    /// Steps taken by all contenders, those that warm up among them.
    pub done: u64,
    /// How many these will be in the end, as far as is known.
    pub all: u64,
}

impl<M: Module, B: Batch> Comparison<M, B> {
    /// Plans all variants, each by the costs that stand beside it.
    pub(super) fn new<'a>(
        prepared: Prepared<M>,
        graph: &Graph,
        variants: impl Iterator<Item = (Variant, &'a BlockTimes)>,
    ) -> Self {
        let mut contenders: Vec<Contender> = Vec::new();
        let mut splits: HashMap<u32, Result<Arc<Split>>> = HashMap::new();
        let mut split =
            |count| splits.entry(count).or_insert_with(|| split_for(graph, count)).clone();
        for (variant, times) in variants {
            let planned = variant
                .microbatch_count()
                .and_then(&mut split)
                .and_then(|split| prepared.planned(&variant, &split, times))
                .and_then(|planned| another(planned, &contenders));
            let (planned, fault) = match planned {
                Ok(planned) => (Some(planned), None),
                Err(fault) => (None, Some(fault)),
            };
            contenders.push(Contender { variant, planned, fault, reports: Vec::new() });
        }
        Self { prepared, contenders, batch: PhantomData }
    }

    /// One for each variant, in the order in which they were given.
    pub fn contenders(&self) -> &[Contender] {
        &self.contenders
    }

    /// Names of the devices.
    pub fn devices(&self) -> Vec<String> {
        self.prepared.devices.iter().map(|device| device.name().to_owned()).collect()
    }

    /// Examples in a microbatch.
    pub fn microbatch_size(&self) -> usize {
        self.prepared.example.first().and_then(|shape| shape.first()).copied().unwrap_or(1)
    }

    /// The contender that trains the most examples per second, of those without a fault: its
    /// position.
    pub fn fastest(&self) -> Option<usize> {
        let speed = |at: usize| {
            self.contenders[at].fault.is_none().then_some(())?;
            self.contenders[at].examples_per_second(self.microbatch_size())
        };
        let speeds = (0..self.contenders.len()).filter_map(|at| Some((at, speed(at)?)));
        speeds.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map(|(at, _)| at)
    }

    /// Trains `steps` steps of every contender that has a plan, in two rounds, the second in the
    /// opposite order. In each round a contender starts from the initial weights, and takes one
    /// step more, first, that does not count.
    ///
    /// `batch` gives the batch of a step with so many microbatches. `watch` is shown every step
    /// and may end the comparison after it: what was measured by then stays. An error of one
    /// contender becomes its [`fault`](Contender::fault), and the next one has its turn.
    ///
    /// # Errors
    ///
    /// When no step is asked for.
    pub fn run(
        &mut self,
        steps: u32,
        mut batch: impl FnMut(u32) -> B,
        mut watch: impl FnMut(Turn<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if steps == 0 {
            return Err(Error::config("no step of each variant").hint("1 step or more"));
        }
        let mut turns = turns(self.contenders.len(), steps);
        let mut done = 0;
        while let Some((position, steps)) = turns.pop_front() {
            let later = turns.iter().filter(|(at, _)| self.contenders[*at].runs());
            let later: u64 = later.map(|(_, steps)| 1 + u64::from(*steps)).sum();
            let contender = &mut self.contenders[position];
            let Some(planned) = contender.planned.clone().filter(|_| contender.runs()) else {
                continue;
            };
            let all = done + 1 + u64::from(steps) + later;
            let mut show = |contender: &Contender, report: Option<&StepReport>| {
                done += u64::from(report.is_some());
                watch(Turn { position, contender, report, done, all })
            };
            if show(contender, None).is_break() {
                return Ok(());
            }
            let prepared = &mut self.prepared;
            let trainer = quietly(AssertUnwindSafe(|| prepared.trainer(planned)));
            let trainer = trainer.unwrap_or_else(|panic| Err(of_panic(&*panic)));
            let turn = trainer.and_then(|mut trainer: Trainer<M, B>| {
                contender.take_turn(&mut trainer, steps, &mut batch, &mut show)
            });
            match turn {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(fault) => self.contenders[position].fault = Some(fault),
            }
        }
        Ok(())
    }
}

/// Whose turn it is, and for how many steps, those that warm up left out.
fn turns(contenders: usize, steps: u32) -> VecDeque<(usize, u32)> {
    let first = (0..contenders).map(|position| (position, steps.div_ceil(ROUNDS)));
    let second = (0..contenders).rev().map(|position| (position, steps / ROUNDS));
    first.chain(second.filter(|(_, steps)| *steps > 0)).collect()
}

impl Contender {
    /// The variant that was asked for.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Why it is not trained, or no longer: it cannot be planned or does not fit, another one has
    /// the same plan, or a device failed.
    pub fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    /// Its plan, where there is one.
    pub fn plan(&self) -> Option<&CheckedPlan> {
        self.planned.as_ref().map(|planned| &planned.arranged.plan)
    }

    /// What its plan was predicted to take: times are in seconds if they were measured, and else
    /// floating point operations.
    pub fn prediction(&self) -> Option<&Simulation> {
        self.planned.as_ref().map(|planned| &planned.arranged.prediction)
    }

    /// What a step moves between the devices.
    pub fn communication(&self) -> Option<&Communication> {
        self.planned.as_ref().map(|planned| &planned.arranged.communication)
    }

    /// The stages whose B recomputes F, ascending.
    pub fn recomputed(&self) -> Vec<StageId> {
        self.planned.as_ref().map_or_else(Vec::new, Planned::recomputed)
    }

    /// What was measured; none before the first step that counts.
    pub fn measured(&self) -> Option<Measured<'_>> {
        let mut by_time: Vec<&StepReport> = self.reports.iter().collect();
        by_time.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let median = *by_time.get(by_time.len() / 2)?;
        let mut peak_bytes = vec![0; median.peak_bytes.len()];
        for report in &self.reports {
            for (peak, bytes) in peak_bytes.iter_mut().zip(&report.peak_bytes) {
                *peak = (*peak).max(*bytes);
            }
        }
        let seconds = self.reports.iter().map(|report| report.seconds).collect();
        Some(Measured { median, seconds, peak_bytes })
    }

    /// Examples per second in the median step, of microbatches of so many examples.
    pub fn examples_per_second(&self, microbatch_size: usize) -> Option<f64> {
        let microbatches = self.plan()?.plan().microbatches as usize;
        Some((microbatches * microbatch_size) as f64 / self.measured()?.median.seconds)
    }

    fn runs(&self) -> bool {
        self.fault.is_none()
    }

    /// One step that warms up, and `steps` that count.
    fn take_turn<M: Module, B: Batch>(
        &mut self,
        trainer: &mut Trainer<M, B>,
        steps: u32,
        batch: &mut impl FnMut(u32) -> B,
        show: &mut impl FnMut(&Contender, Option<&StepReport>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let microbatches = trainer.plan().plan().microbatches;
        for step in 0..=steps {
            let report = trainer.step(batch(microbatches))?;
            let shown = show(self, Some(&report));
            if step > 0 {
                self.reports.push(report);
            }
            if shown.is_break() {
                return Ok(shown);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Planned {
    fn recomputed(&self) -> Vec<StageId> {
        let setups = self.arranged.setups.iter();
        let recomputing = setups.filter(|setup| !setup.program.recomputed.is_empty());
        recomputing.map(|setup| setup.stage).collect()
    }

    /// Whether a step of the two is the same in everything but the name.
    fn is_same(&self, other: &Self) -> bool {
        let (ours, others) = (self.arranged.plan.plan(), other.arranged.plan.plan());
        let is_dynamic = |of: &Self| matches!(of.arranged.dispatch, Dispatch::Dynamic(_));
        ours.lanes == others.lanes
            && ours.placement.stages == others.placement.stages
            && self.arranged.stage_blocks == other.arranged.stage_blocks
            && self.recomputed() == other.recomputed()
            && is_dynamic(self) == is_dynamic(other)
    }
}

/// Refuses a plan that one of the `contenders` has already.
fn another(planned: Planned, contenders: &[Contender]) -> Result<Planned> {
    let has = |of: &&Contender| of.planned.as_ref().is_some_and(|of| of.is_same(&planned));
    match contenders.iter().find(has) {
        Some(same) => Err(Error::config(format!("it has the plan of {}", same.variant))),
        None => Ok(planned),
    }
}
