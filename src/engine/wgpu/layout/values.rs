//! The values of one segment of stages: when each is needed, and where it therefore is.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::arena::Arenas;
use super::slots::{pairs, product};
use super::{Bound, KEY_BYTES, Place, Script, Segment, Sink, Target, Transfer, UploadSource};
use crate::engine::StageSetup;
use crate::engine::wgpu::element::Elements;
use crate::engine::wgpu::kernel::Kernel;
use crate::engine::wgpu::lower::BlockKernels;
use crate::engine::wgpu::pack::{Lifetime, pack};
use crate::engine::wgpu::view::Views;
use crate::graph::{Leaf, NodeId, Op, State};
use crate::plan::{StageId, Work};
use crate::split::{BlockId, Role, Split};

/// A value of a microbatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Node(NodeId),
    /// What B recomputes of F, for itself and for W.
    Recomputed(NodeId),
    Key,
}

/// Which of the segment's works, and a position within: 0 before the kernels, then one per kernel.
type Touch = (Event, u32);

/// A kind of work of the stage at a position in the segment.
type Event = (Work, u32);

/// When a value is there, in the order in which a segment treats a microbatch.
type Time = (u32, u32);

/// When a value is there among all actions of the device: segment, stage and work, position.
type ActionTime = (u32, (u32, Work), u32);

/// The values of a segment: what touches each, and where it is.
pub(super) struct SegmentValues<'a> {
    split: &'a Split,
    elements: &'a Elements,
    stages: &'a [StageSetup],
    lowered: &'a HashMap<BlockId, BlockKernels>,
    views: HashMap<BlockId, Views<'a>>,
    segment: u32,
    touched: BTreeMap<Value, Vec<Touch>>,
    places: HashMap<Value, Place>,
}

impl<'a> SegmentValues<'a> {
    pub(super) fn new(
        split: &'a Split,
        elements: &'a Elements,
        stages: &'a [StageSetup],
        lowered: &'a HashMap<BlockId, BlockKernels>,
        segment: u32,
    ) -> Self {
        let views = HashMap::new();
        let (touched, places) = (BTreeMap::new(), HashMap::new());
        let mut values = Self { split, elements, stages, lowered, views, segment, touched, places };
        for stage in 0..stages.len() as u32 {
            for work in Work::ALL {
                values.touch((work, stage));
            }
        }
        values
    }

    /// Notes what one work needs, and when.
    fn touch(&mut self, event: Event) {
        let kernels = self.kernels(event);
        for (position, (_, kernel)) in (1..).zip(&kernels) {
            for value in self.reads(kernel, event).into_iter().chain(self.writes(kernel, event)) {
                self.note(value, (event, position));
            }
            if kernel.uses_key() {
                self.note(Value::Key, (event, position));
            }
        }
        for id in self.received(event) {
            self.note(Value::Node(id), (event, 0));
        }
        let end = kernels.len() as u32 + 1;
        let updates = self.states(event).into_iter().map(|state| state.update);
        for id in self.sent(event).into_iter().chain(self.loss(event)).chain(updates) {
            let value = self.value(id, event).expect("what leaves a stage is of a microbatch");
            self.note(value, (event, end));
        }
    }

    /// What comes from the host is there before the segment's first kernel.
    fn note(&mut self, value: Value, touch: Touch) {
        let from_host = match value {
            Value::Key => true,
            Value::Node(id) => matches!(self.split.joint.graph[id].op, Op::Leaf(Leaf::Input(_))),
            Value::Recomputed(_) => false,
        };
        let touches = self.touched.entry(value).or_default();
        if from_host && touches.is_empty() {
            touches.push(((Work::F, 0), 0));
        }
        touches.push(touch);
    }

    /// Kernels of one work, in order: backward, the last block comes first.
    fn kernels(&mut self, event: Event) -> Vec<(BlockId, &'a Kernel)> {
        let mut kernels = Vec::new();
        if self.recomputes(event) {
            kernels = self.recomputed(event);
        }
        kernels.extend(self.own_kernels(event));
        kernels
    }

    /// The same without those of F that B begins with.
    fn own_kernels(&self, (work, stage): Event) -> Vec<(BlockId, &'a Kernel)> {
        let blocks = self.stages[stage as usize].blocks.clone().map(|at| BlockId(at as u32));
        let of = |block: BlockId| {
            self.lowered[&block].works[work].iter().map(move |kernel| (block, kernel))
        };
        match work {
            Work::F => blocks.flat_map(of).collect(),
            Work::B | Work::W => blocks.rev().flat_map(of).collect(),
        }
    }

    fn recomputes(&self, (work, stage): Event) -> bool {
        work == Work::B && !self.stages[stage as usize].program.recomputed.is_empty()
    }

    /// Kernels of F that `event`, a B, begins with: those of which it, W or a later one of them
    /// reads something.
    fn recomputed(&mut self, event: Event) -> Vec<(BlockId, &'a Kernel)> {
        let (_, stage) = event;
        let sent = self.sent(event).into_iter().filter_map(|id| self.value(id, event));
        let mut needed: HashSet<Value> = sent.collect();
        for work in [Work::B, Work::W] {
            for (_, kernel) in self.own_kernels((work, stage)) {
                needed.extend(self.reads(kernel, event));
            }
        }
        let mut recomputed = Vec::new();
        for (block, kernel) in self.own_kernels((Work::F, stage)).into_iter().rev() {
            if self.writes(kernel, event).iter().any(|value| needed.contains(value)) {
                needed.extend(self.reads(kernel, event));
                recomputed.push((block, kernel));
            }
        }
        recomputed.reverse();
        recomputed
    }

    fn reads(&mut self, kernel: &Kernel, event: Event) -> Vec<Value> {
        kernel.reads.iter().filter_map(|read| self.value(read.node, event)).collect()
    }

    fn writes(&self, kernel: &Kernel, event: Event) -> Vec<Value> {
        let value = |target: Target| match target {
            Target::Value(node) => Some(self.computed(node, event)),
            Target::Sum(_) => None,
        };
        kernel.writes.iter().filter_map(|write| value(write.target)).collect()
    }

    /// The value whose buffer holds `id` as `event` knows it; none for parameters and constants.
    fn value(&mut self, id: NodeId, event: Event) -> Option<Value> {
        let graph = &self.split.joint.graph;
        if graph[id].op.parameter().is_some() || self.is_constant(id) {
            return None;
        }
        let from_outside = self.outside().any(|outside| outside == id);
        if from_outside || graph[id].op.is_leaf() {
            return Some(Value::Node(id));
        }
        let block = self.split.block(id).expect("a block computes what is no leaf");
        let views = self.views.entry(block).or_insert_with(|| Views::new(self.split, block));
        let (owner, view) = views.of(id);
        assert!(view.is_dense(), "{id} leaves its block and is not dense");
        if owner == id { Some(self.computed(id, event)) } else { self.value(owner, event) }
    }

    /// What a block computes under the name `id`: the backward work of a stage that recomputes F
    /// does not know what F computed.
    fn computed(&self, id: NodeId, (work, stage): Event) -> Value {
        let StageSetup { blocks, program, .. } = &self.stages[stage as usize];
        let of_f =
            |(block, work): (BlockId, Work)| work == Work::F && blocks.contains(&block.index());
        let recomputed = work != Work::F
            && !program.recomputed.is_empty()
            && self.split.places[id.index()].is_some_and(of_f);
        if recomputed { Value::Recomputed(id) } else { Value::Node(id) }
    }

    fn is_constant(&self, id: NodeId) -> bool {
        self.split.roles[id.index()] == Role::Constant
    }

    /// What comes from other devices.
    fn outside(&self) -> impl Iterator<Item = NodeId> + use<'a> {
        let (first, last) = (&self.stages[0], &self.stages[self.stages.len() - 1]);
        let activations = first.program.activations_in.iter();
        activations.chain(&last.program.gradients_in).copied()
    }

    fn received(&self, (work, stage): Event) -> Vec<NodeId> {
        let program = &self.stages[stage as usize].program;
        match work {
            Work::F if stage == 0 => program.activations_in.clone(),
            Work::B if self.is_last(stage) => program.gradients_in.clone(),
            _ => Vec::new(),
        }
    }

    /// What goes to other devices.
    fn sent(&self, (work, stage): Event) -> Vec<NodeId> {
        let program = &self.stages[stage as usize].program;
        match work {
            Work::F if self.is_last(stage) => program.activations_out.clone(),
            Work::B if stage == 0 => program.gradients_out.clone(),
            _ => Vec::new(),
        }
    }

    fn loss(&self, (work, stage): Event) -> Option<NodeId> {
        self.stages[stage as usize].program.loss.filter(|_| work == Work::F)
    }

    fn states(&self, (work, stage): Event) -> Vec<State> {
        let states = &self.stages[stage as usize].program.states;
        if work == Work::F { states.clone() } else { Vec::new() }
    }

    fn is_last(&self, stage: u32) -> bool {
        stage as usize + 1 == self.stages.len()
    }

    fn bytes(&self, value: Value) -> u64 {
        match value {
            Value::Key => KEY_BYTES,
            Value::Node(id) | Value::Recomputed(id) => {
                self.elements.of(id).bytes_of(self.split.joint.graph[id].shape.elements())
            }
        }
    }

    /// Bytes of a buffer for a value: shaders may load 16 bytes at once.
    fn buffer_bytes(&self, value: Value) -> u64 {
        self.bytes(value).next_multiple_of(16)
    }

    /// The one work that needs a value, if there is only one.
    fn only(touches: &[Touch]) -> Option<Event> {
        let first = touches[0].0;
        touches.iter().all(|touch| touch.0 == first).then_some(first)
    }

    /// Values that one action alone needs, on a time axis of all actions of the device.
    pub(super) fn working(&self) -> Vec<Lifetime<ActionTime>> {
        let lifetime = |(&value, touches): (&Value, &Vec<Touch>)| {
            let (work, stage) = Self::only(touches)?;
            let at = |position: u32| (self.segment, (stage, work), position);
            let positions = touches.iter().map(|touch| touch.1);
            let (first, last) = (positions.clone().min()?, positions.max()?);
            Some(Lifetime { first: at(first), last: at(last), bytes: self.buffer_bytes(value) })
        };
        self.touched.iter().filter_map(lifetime).collect()
    }

    /// Gives every value its place, and says what buffers the segment has for `open` microbatches,
    /// of which `backward` are between B and W; whether they leave `in_turn` says which slots a
    /// microbatch may have. `working` are the homes of [`SegmentValues::working`], in order.
    ///
    /// What B leaves is in backward slots where they take fewer bytes than buffers in all slots.
    pub(super) fn place(
        &mut self,
        open: u32,
        backward: u32,
        in_turn: bool,
        working: &mut impl Iterator<Item = usize>,
    ) -> Segment {
        let (mut of_f, mut of_b, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (&value, touches) in &self.touched {
            if Self::only(touches).is_some() {
                let home = working.next().expect("as many homes as working values");
                self.places.insert(value, Place::Working(home));
                continue;
            }
            let times = touches.iter().map(|&touch| self.time(touch));
            let first = times.clone().min().expect("a value is touched");
            let last = times.max().expect("a value is touched");
            let lifetime = Lifetime { first, last, bytes: self.buffer_bytes(value) };
            let is_of_b = first >= (self.stages.len() as u32, 0);
            (if is_of_b { &mut of_b } else { &mut of_f }).push((value, lifetime));
            all.push((value, lifetime));
        }
        let slots = open as usize;
        let pairs = pairs(slots, backward as usize, in_turn);
        let backward_slots = 1 + pairs.iter().map(|of| of.backward).max().unwrap_or(0);
        let (all, of_f, of_b) = (Packed::new(all), Packed::new(of_f), Packed::new(of_b));
        let apart = slots as u64 * of_f.bytes() + backward_slots as u64 * of_b.bytes();
        let stages = self.stages.len();
        if slots as u64 * all.bytes() <= apart {
            self.places.extend(all.homes.into_iter().map(|(of, at)| (of, Place::Slot(at))));
            let (buffers, backward_buffers) = (all.sizes, Vec::new());
            let pairs = product(slots, 1);
            return Segment { slots, buffers, backward_slots: 1, backward_buffers, pairs, stages };
        }
        self.places.extend(of_f.homes.into_iter().map(|(of, at)| (of, Place::Slot(at))));
        self.places.extend(of_b.homes.into_iter().map(|(of, at)| (of, Place::Backward(at))));
        let (buffers, backward_buffers) = (of_f.sizes, of_b.sizes);
        Segment { slots, buffers, backward_slots, backward_buffers, pairs, stages }
    }

    /// W may come in any order after B: all of them are at the end.
    fn time(&self, ((work, stage), position): Touch) -> Time {
        let stages = self.stages.len() as u32;
        match work {
            Work::F => (stage, position),
            Work::B => (2 * stages - 1 - stage, position),
            Work::W => (2 * stages, 0),
        }
    }

    /// What every work of the segment does.
    pub(super) fn scripts(
        mut self,
        segment: usize,
        arenas: &Arenas,
    ) -> Vec<(StageId, Work, Script)> {
        let mut scripts = Vec::new();
        for stage in 0..self.stages.len() as u32 {
            for work in Work::ALL {
                let script = self.script((work, stage), segment, arenas);
                scripts.push((self.stages[stage as usize].stage, work, script));
            }
        }
        scripts
    }

    fn script(&mut self, event: Event, segment: usize, arenas: &Arenas) -> Script {
        let mut script = Script { segment, ..Script::default() };
        let mut offset = 0;
        for (what, value) in self.taken_from_host(event) {
            let (bytes, place) = (self.bytes(value), self.places[&value]);
            script.uploads.push(Transfer { what, offset, bytes, place });
            offset += bytes.next_multiple_of(16);
        }
        for (block, kernel) in self.kernels(event) {
            script.status |= kernel.uses_status();
            let bound = self.bind(kernel, block, event, arenas);
            script.kernels.push(bound);
        }
        for State { parameter, update } in self.states(event) {
            let value = self.value(update, event).expect("an update is of a microbatch");
            script.states.push((self.places[&value], arenas.parameters[&parameter]));
        }
        offset = 0;
        let graph = &self.split.joint.graph;
        let parcel = |&id: &NodeId| {
            let shape = graph[id].shape.0.clone();
            (id, Sink::Parcel { shape, element: self.elements.of(id) })
        };
        let sent = self.sent(event);
        let loss = self.loss(event).map(|id| (id, Sink::Loss));
        for (id, what) in sent.iter().map(parcel).chain(loss).collect::<Vec<_>>() {
            let value = self.value(id, event).expect("what leaves a stage is of a microbatch");
            // Of what is sent, which may be the beginning of what holds it.
            let (bytes, place) = (self.bytes(Value::Node(id)), self.places[&value]);
            script.downloads.push(Transfer { what, offset, bytes, place });
            offset += bytes.next_multiple_of(16);
        }
        script
    }

    /// What a work takes from the host. Inputs and key come with the segment's first F.
    fn taken_from_host(&self, event: Event) -> Vec<(UploadSource, Value)> {
        let received = self.received(event);
        let parcel = received.into_iter().enumerate();
        let mut all: Vec<(UploadSource, Value)> = parcel
            .filter_map(|(at, id)| {
                let value = Value::Node(id);
                self.touched
                    .contains_key(&value)
                    .then_some((UploadSource::Parcel(at, self.elements.of(id)), value))
            })
            .collect();
        if event == (Work::F, 0) {
            all.extend(self.touched.keys().filter_map(|&value| match value {
                Value::Key => Some((UploadSource::Key, value)),
                Value::Node(id) => match self.split.joint.graph[id].op {
                    Op::Leaf(Leaf::Input(input)) => Some((UploadSource::Input(input), value)),
                    _ => None,
                },
                Value::Recomputed(_) => None,
            }));
        }
        all
    }

    fn bind(&mut self, kernel: &Kernel, block: BlockId, event: Event, arenas: &Arenas) -> Bound {
        let mut places = Vec::with_capacity(kernel.reads.len() + kernel.writes.len());
        for read in &kernel.reads {
            let place = match self.value(read.node, event) {
                Some(value) => self.places[&value],
                None => Place::Arena(match self.split.joint.graph[read.node].op {
                    Op::Leaf(Leaf::Parameter(parameter)) => arenas.parameters[&parameter],
                    _ => arenas.constants[&read.node],
                }),
            };
            places.push(place);
        }
        for write in &kernel.writes {
            places.push(match write.target {
                Target::Value(node) => self.places[&self.computed(node, event)],
                Target::Sum(position) => {
                    let sum = self.lowered[&block].accumulators[position];
                    Place::Arena(arenas.sums[&sum])
                }
            });
        }
        let key = kernel.uses_key().then(|| self.places[&Value::Key]);
        Bound { kernel: kernel.clone(), places, key }
    }
}

/// Values that share a slot's buffers.
struct Packed {
    homes: Vec<(Value, usize)>,
    sizes: Vec<u64>,
}

impl Packed {
    fn new(values: Vec<(Value, Lifetime<Time>)>) -> Self {
        let (values, lifetimes): (Vec<Value>, Vec<Lifetime<Time>>) = values.into_iter().unzip();
        let (homes, sizes) = pack(&lifetimes);
        Self { homes: values.into_iter().zip(homes).collect(), sizes }
    }

    fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }
}
