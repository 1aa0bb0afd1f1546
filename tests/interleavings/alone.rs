//! What is right: the model on one device, action by action, without a runtime.

use std::sync::Arc;

use zerobubble::engine::{MicrobatchLoss, ParameterState, StepInputs, Update};
use zerobubble::graph::ParameterId;
use zerobubble::plan::{Action, CheckedPlan, MicrobatchId, MicrobatchOrder, StageId, Work};

use crate::model::{Held, Model, Share, held_in};
use crate::runtime::StepRules;

pub struct Alone {
    share: Share,
    stages: u32,
    /// In which order every stage adds gradients.
    orders: Vec<MicrobatchOrder>,
    rules: StepRules,
}

impl Alone {
    pub fn new(model: &Model, plan: &CheckedPlan, rules: StepRules) -> Self {
        let stages = model.placement.stage_count() as u32;
        let share = Share::new(Arc::new(model.alone()), 0);
        let orders = (0..stages).map(|stage| plan.order_of(StageId(stage), Work::W)).collect();
        Self { share, stages, orders, rules }
    }

    /// The losses, and the norm of the gradients if they may be clipped.
    pub fn step(
        &mut self,
        step: u64,
        inputs: &StepInputs,
        learning_rate: f64,
        skips: bool,
    ) -> (Vec<MicrobatchLoss>, Option<f64>) {
        self.share.begin(Some(step), inputs);
        let microbatches = (0..inputs.len() as u32).map(MicrobatchId);
        let losses = microbatches.map(|k| self.microbatch(k)).collect();
        for order in &self.orders {
            for &k in &order.microbatches {
                self.share.play(Action::new(order.stage, Work::W, k), None);
            }
        }
        if skips {
            return (losses, self.rules.clipping.map(|_| f64::NAN));
        }
        let weights = losses.iter().filter_map(|loss: &MicrobatchLoss| loss.weight);
        let weight = weights.map(f64::from).reduce(|sum, weight| sum + weight);
        let per_weight = weight.map_or(1.0, |weight| 1.0 / weight);
        self.share.reduce(&[]);
        let squares = self.share.squared_norms();
        let norm = squares.iter().map(|(_, square)| square).sum::<f64>().sqrt() * per_weight;
        let clipped = self.rules.clipping.map_or(1.0, |clipping| clipping.scale(norm));
        let scale = (f64::from(clipped) * per_weight) as f32;
        self.share.update(&Update { learning_rate, scale, provisional: false });
        (losses, self.rules.clipping.map(|_| norm))
    }

    pub fn evaluate(&mut self, inputs: &StepInputs) -> Vec<MicrobatchLoss> {
        self.share.begin(None, inputs);
        (0..inputs.len() as u32).map(|k| self.forward(MicrobatchId(k))).collect()
    }

    pub fn restore(&mut self, state: &[(ParameterId, ParameterState)]) {
        self.share.restore(state);
    }

    /// All parameters, in order.
    pub fn held(&self) -> Vec<(ParameterId, Held)> {
        self.share.state().iter().map(|(id, state)| (*id, held_in(state))).collect()
    }

    fn microbatch(&mut self, k: MicrobatchId) -> MicrobatchLoss {
        let loss = self.forward(k);
        let mut parcel = None;
        for stage in (0..self.stages).rev().map(StageId) {
            (parcel, _) = self.share.play(Action::new(stage, Work::B, k), parcel);
        }
        loss
    }

    fn forward(&mut self, k: MicrobatchId) -> MicrobatchLoss {
        let (mut parcel, mut loss) = (None, None);
        for stage in (0..self.stages).map(StageId) {
            (parcel, loss) = self.share.play(Action::new(stage, Work::F, k), parcel);
        }
        loss.expect("the last stage gives the loss")
    }
}
