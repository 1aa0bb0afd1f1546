//! A model whose numbers are words, each mixed of all that it depends on and of their order: if a
//! parcel, a gradient or an update is missing, late, or comes twice, all later words are others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use zerobubble::compile::Accumulator;
use zerobubble::engine::{
    DispatchTensor, MicrobatchLoss, ParameterState, PartialSums, StepInputs, Update,
};
use zerobubble::graph::ParameterId;
use zerobubble::plan::{Action, MicrobatchId, Placement, StageId, Work};
use zerobubble::split::BlockId;

use crate::world::mix;

/// Every stage has a parameter of its own, which has its number; the others are tied.
pub struct Model {
    pub placement: Placement,
    pub microbatches: u32,
    /// Whether losses have weights.
    pub weighted: bool,
    /// The stages that use each of the tied parameters, ascending.
    pub tied: Vec<Vec<u32>>,
}

/// What a parameter's owner knows of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    pub value: u64,
    pub moment: u64,
    pub updates: u64,
}

impl Model {
    fn uses(&self, stage: StageId) -> Vec<ParameterId> {
        let own = self.placement.stage_count() as u32;
        let tied = (own..).zip(&self.tied).filter(|(_, users)| users.contains(&stage.0));
        std::iter::once(stage.0).chain(tied.map(|(id, _)| id)).map(ParameterId).collect()
    }

    fn users(&self, parameter: ParameterId) -> Vec<StageId> {
        let stages = (0..self.placement.stage_count() as u32).map(StageId);
        stages.filter(|stage| self.uses(*stage).contains(&parameter)).collect()
    }

    /// The device of the first stage that uses it updates a parameter.
    fn owner(&self, parameter: ParameterId) -> usize {
        self.placement.device(self.users(parameter)[0]).index()
    }

    fn is_shared(&self, parameter: ParameterId) -> bool {
        let owner = self.owner(parameter);
        self.users(parameter).iter().any(|stage| self.placement.device(*stage).index() != owner)
    }

    /// The model on one device.
    pub fn alone(&self) -> Self {
        let stages = vec![zerobubble::plan::DeviceId(0); self.placement.stage_count()];
        let (placement, tied) = (Placement { stages }, self.tied.clone());
        Self { placement, tied, microbatches: self.microbatches, weighted: self.weighted }
    }

    /// The inputs of so many microbatches.
    pub fn inputs(&self, word: u64, microbatches: u32, weightless: bool) -> StepInputs {
        let weight = |k: u64| if weightless { 0 } else { mix(word ^ k) % 4 };
        // At least the first weighs something.
        let weight = |k: u64| weight(k).max(u64::from(k == 0 && !weightless));
        let inputs = |k| vec![tensor(mix(word + k)), tensor(weight(k))];
        Arc::new((0..u64::from(microbatches)).map(inputs).collect())
    }
}

/// A device's part of a model.
pub struct Share {
    model: Arc<Model>,
    device: usize,
    held: BTreeMap<ParameterId, Held>,
    gradients: BTreeMap<ParameterId, u64>,
    sums: BTreeMap<Accumulator, u64>,
    /// What F left for B, and B for W.
    stash: HashMap<(StageId, MicrobatchId), u64>,
    inputs: StepInputs,
    /// None in an evaluation.
    step: Option<u64>,
    /// What an update is undone from.
    snapshot: Option<BTreeMap<ParameterId, Held>>,
}

impl Share {
    pub fn new(model: Arc<Model>, device: usize) -> Self {
        let stages = (0..model.placement.stage_count() as u32).map(StageId);
        let here = stages.filter(|stage| model.placement.device(*stage).index() == device);
        let used = here.flat_map(|stage| model.uses(stage));
        let held = |of: ParameterId| Held { value: mix(of.0.into()), moment: 0, updates: 0 };
        Self {
            held: used.map(|parameter| (parameter, held(parameter))).collect(),
            gradients: BTreeMap::new(),
            sums: BTreeMap::new(),
            stash: HashMap::new(),
            inputs: StepInputs::default(),
            step: None,
            snapshot: None,
            model,
            device,
        }
    }

    pub fn begin(&mut self, step: Option<u64>, inputs: &StepInputs) {
        self.inputs = inputs.clone();
        (self.step, self.snapshot) = (step, None);
        self.sums.clear();
        self.gradients.clear();
        self.stash.clear();
    }

    /// What an action sends, and the loss.
    pub fn play(
        &mut self,
        action: Action,
        arrived: Option<u64>,
    ) -> (Option<u64>, Option<MicrobatchLoss>) {
        let mut result = (None, None);
        for work in action.works() {
            match work {
                Work::F => result = self.forward(action, arrived),
                Work::B => result.0 = self.backward(action, arrived),
                Work::W => self.weights(action),
            }
        }
        result
    }

    fn forward(
        &mut self,
        action: Action,
        arrived: Option<u64>,
    ) -> (Option<u64>, Option<MicrobatchLoss>) {
        let Action { stage, microbatch, .. } = action;
        let input = |at: usize| word(&self.inputs[microbatch.index()][at]);
        let x = if stage.0 == 0 { input(0) } else { arrived.expect("an activation arrives") };
        let key = self.step.map_or(1, |step| 2 + step);
        let values = self.model.uses(stage).into_iter().map(|of| self.held[&of].value);
        let y = values.fold(mix(x ^ mix(key)), |y, value| mix(y.rotate_left(1) ^ value));
        let is_top = stage.index() + 1 == self.model.placement.stage_count();
        let weight = (is_top && self.model.weighted).then(|| input(1) as f32);
        if self.step.is_some() {
            let before = self.stash.insert((stage, microbatch), y);
            assert!(before.is_none(), "{action} comes once");
        }
        let loss = MicrobatchLoss { value: (y % 1000) as f32 / 100.0, weight };
        ((!is_top).then_some(y), is_top.then_some(loss))
    }

    fn backward(&mut self, action: Action, arrived: Option<u64>) -> Option<u64> {
        let Action { stage, microbatch, .. } = action;
        let is_top = stage.index() + 1 == self.model.placement.stage_count();
        assert_eq!(arrived.is_none(), is_top, "{action} gets a gradient unless it makes it");
        let kept = self.stash.get_mut(&(stage, microbatch)).expect("B comes after F");
        *kept = mix(kept.rotate_left(1) ^ arrived.unwrap_or(0));
        (stage.0 > 0).then_some(*kept)
    }

    fn weights(&mut self, action: Action) {
        let Action { stage, microbatch, .. } = action;
        let kept = self.stash.remove(&(stage, microbatch)).expect("W comes after B");
        for parameter in self.model.uses(stage) {
            let sum = self.sums.entry(Accumulator { parameter, block: BlockId(stage.0) });
            let sum = sum.or_insert(0);
            *sum = mix(sum.rotate_left(1) ^ kept);
        }
    }

    /// The action that takes what `action` sends, if it is on this device too.
    pub fn next_on_device(&self, action: Action) -> Option<Action> {
        let stages = &self.model.placement.stages;
        let next = match action.work {
            Work::F => action.stage.0 + 1,
            Work::B => action.stage.0.checked_sub(1)?,
            Work::W => return None,
        };
        let here = stages.get(next as usize).is_some_and(|device| device.index() == self.device);
        here.then(|| Action::new(StageId(next), action.work, action.microbatch))
    }

    fn owned(&self) -> impl Iterator<Item = (ParameterId, &Held)> {
        let is_owned = |id: &ParameterId| self.model.owner(*id) == self.device;
        self.held.iter().map(|(id, held)| (*id, held)).filter(move |(id, _)| is_owned(id))
    }

    pub fn partial_sums(&self) -> PartialSums {
        let mut sums = PartialSums::default();
        for parameter in self.held.keys().copied() {
            let owner = self.model.owner(parameter);
            for stage in self.model.users(parameter) {
                let place = self.model.placement.device(stage).index();
                let sum = Accumulator { parameter, block: BlockId(stage.0) };
                if owner != self.device && place == self.device {
                    sums.sent.push(sum);
                }
                if owner == self.device && place != self.device {
                    sums.awaited.push(sum);
                }
            }
        }
        sums
    }

    pub fn take_partial_sums(&mut self) -> Vec<(Accumulator, DispatchTensor)> {
        assert!(self.stash.is_empty(), "all actions have ended");
        let sent = self.partial_sums().sent.into_iter();
        sent.map(|sum| (sum, tensor(self.sums.remove(&sum).expect("it is sent once")))).collect()
    }

    pub fn reduce(&mut self, sums: &[(Accumulator, DispatchTensor)]) {
        assert!(self.stash.is_empty(), "all actions have ended");
        assert!(self.gradients.is_empty(), "gradients are reduced once");
        let arrived = sums.iter().map(|(sum, value)| (*sum, word(value)));
        let all: BTreeMap<Accumulator, u64> =
            self.sums.iter().map(|(sum, value)| (*sum, *value)).chain(arrived).collect();
        let gradient = |parameter: ParameterId| {
            let of = |stage: StageId| Accumulator { parameter, block: BlockId(stage.0) };
            let sums = self.model.users(parameter).into_iter().map(|stage| all[&of(stage)]);
            sums.fold(0, |total: u64, sum| mix(total.rotate_left(1) ^ sum))
        };
        self.gradients = self.owned().map(|(id, _)| (id, gradient(id))).collect();
    }

    pub fn squared_norms(&self) -> Vec<(ParameterId, f64)> {
        let square = |gradient: u64| ((gradient % 1000) as f64 / 7.0).powi(2);
        self.gradients.iter().map(|(id, gradient)| (*id, square(*gradient))).collect()
    }

    /// Gives the parameters that other devices use.
    pub fn update(&mut self, update: &Update) -> Vec<(ParameterId, DispatchTensor)> {
        assert!(self.snapshot.is_none(), "an update comes once, or after it was undone");
        if update.provisional {
            self.snapshot = Some(self.held.clone());
        }
        for (id, gradient) in &self.gradients {
            let held = self.held.get_mut(id).expect("it is owned");
            let scaled = mix(gradient ^ u64::from(update.scale.to_bits()));
            held.moment = mix(held.moment.rotate_left(1) ^ scaled);
            held.value = mix(held.value ^ held.moment ^ update.learning_rate.to_bits());
            held.updates += 1;
        }
        let shared = self.owned().filter(|(id, _)| self.model.is_shared(*id));
        shared.map(|(id, held)| (id, tensor(held.value))).collect()
    }

    pub fn undo(&mut self) {
        self.held = self.snapshot.take().expect("only a provisional update is undone");
    }

    pub fn set_parameters(&mut self, values: &[(ParameterId, DispatchTensor)]) {
        for (id, value) in values {
            if self.model.owner(*id) != self.device
                && let Some(held) = self.held.get_mut(id)
            {
                held.value = word(value);
            }
        }
    }

    pub fn parameters(&self) -> Vec<(ParameterId, DispatchTensor)> {
        self.owned().map(|(id, held)| (id, tensor(held.value))).collect()
    }

    pub fn state(&self) -> Vec<(ParameterId, ParameterState)> {
        let state = |held: &Held| ParameterState {
            value: tensor(held.value),
            moments: vec![tensor(held.moment)],
            updates: held.updates,
        };
        self.owned().map(|(id, held)| (id, state(held))).collect()
    }

    pub fn restore(&mut self, state: &[(ParameterId, ParameterState)]) {
        for (id, state) in state {
            if let Some(held) = self.held.get_mut(id) {
                *held = held_in(state);
            }
        }
    }
}

/// What a checkpoint has of a parameter.
pub fn held_in(state: &ParameterState) -> Held {
    let moment = word(&state.moments[0]);
    Held { value: word(&state.value), moment, updates: state.updates }
}

pub fn tensor(word: u64) -> DispatchTensor {
    let data = TensorData::new(vec![word.cast_signed()], [1]);
    Tensor::<1, Int>::from_data(data, (&Device::flex(), DType::I64)).into_dispatch()
}

pub fn word(tensor: &DispatchTensor) -> u64 {
    let data = Tensor::<1, Int>::from_dispatch(tensor.clone()).into_data();
    data.as_slice::<i64>().expect("the words are 64 bits")[0].cast_unsigned()
}
