//! When every value is needed for the last time, and what memory that makes.

use std::collections::{HashMap, HashSet};

use super::recompute::reads;
use super::{Command, Program, Task};
use crate::graph::{Binary, Elementwise, Graph, NodeId, Op, Storage};
use crate::plan::{PerWork, StageBytes, Work};
use crate::split::{Role, Split};

/// Uses of every value of a stage, over F, B and W of one microbatch.
pub(super) struct Liveness<'a> {
    split: &'a Split,
    /// What arrives from the neighbours, in memory of its own.
    received: HashSet<NodeId>,
    /// Work and position of the last command that reads a value.
    last_read: HashMap<NodeId, (Work, usize)>,
    /// The same of F alone.
    last_read_in_f: HashMap<NodeId, (Work, usize)>,
    /// What F computes for itself, because B recomputes it.
    recomputed: HashSet<NodeId>,
    /// Storages that another device may still read.
    shared: Vec<NodeId>,
}

impl<'a> Liveness<'a> {
    pub(super) fn new(split: &'a Split, program: &Program, tasks: &PerWork<Vec<Task>>) -> Self {
        let received = program.activations_in.iter().chain(&program.gradients_in);
        let mut liveness = Self {
            split,
            received: received.clone().copied().collect(),
            last_read: HashMap::new(),
            last_read_in_f: HashMap::new(),
            recomputed: program.recomputed.iter().copied().collect(),
            shared: Vec::new(),
        };
        let sent = program.activations_out.iter().chain(&program.gradients_out);
        liveness.shared = received.chain(sent).map(|&id| liveness.owner(id)).collect();
        for (work, tasks) in tasks.iter() {
            for (at, task) in tasks.iter().enumerate() {
                for id in liveness.reads(task) {
                    liveness.last_read.insert(id, (work, at));
                }
            }
            // What the stage puts out is read after the last command of its work.
            for id in outputs(program, work) {
                let read = liveness.last_read.entry(id).or_insert((work, 0));
                *read = (*read).max((work, tasks.len()));
            }
            if work == Work::F {
                liveness.last_read_in_f = liveness.last_read.clone();
            }
        }
        liveness
    }

    /// Values of the microbatch that a task reads.
    fn reads(&self, task: &Task) -> Vec<NodeId> {
        reads(self.graph(), task).into_iter().filter(|&id| self.is_local(id)).collect()
    }

    /// The last command that reads the value that a work finds under this name, or computes.
    fn last_read(&self, id: NodeId, work: Work) -> Option<(Work, usize)> {
        let ends_with_f = work == Work::F && self.recomputed.contains(&id);
        let reads = if ends_with_f { &self.last_read_in_f } else { &self.last_read };
        reads.get(&id).copied()
    }

    /// Whether a value is kept with its microbatch, as opposed to leaves and constants.
    fn is_local(&self, id: NodeId) -> bool {
        !self.graph()[id].op.is_leaf() && self.split.roles[id.index()] != Role::Constant
    }

    fn graph(&self) -> &'a Graph {
        &self.split.joint.graph
    }

    fn storage(&self, id: NodeId) -> Storage {
        let copied = |id: NodeId| self.split.copied[id.index()] || self.received.contains(&id);
        self.split.facts.storage(id, &copied)
    }

    fn owner(&self, id: NodeId) -> NodeId {
        self.storage(id).owner
    }

    /// The tasks of one work with last uses and in-place writes.
    pub(super) fn commands(&self, work: Work, tasks: &[Task]) -> Vec<Command> {
        let mut live: HashMap<NodeId, u32> = HashMap::new();
        let mut commands = Vec::with_capacity(tasks.len());
        for (at, mut task) in tasks.iter().copied().enumerate() {
            let mut free: Vec<NodeId> = self.reads(&task);
            free.sort_unstable();
            free.dedup();
            free.retain(|&id| self.last_read(id, work) == Some((work, at)));
            if let Task::Compute { node, in_place } = &mut task {
                *in_place = self.in_place(*node, &free, &live);
                *live.entry(self.owner(*node)).or_default() += 1;
                // A value that nothing reads is computed for the sake of its name only.
                if self.last_read(*node, work).is_none() {
                    free.push(*node);
                }
            }
            for id in &free {
                // An owner that was there before is not among those counted.
                live.entry(self.owner(*id)).and_modify(|count| *count = count.saturating_sub(1));
            }
            commands.push(Command { task, free });
        }
        commands
    }

    /// The operand whose memory `node` may take: dense, of the same shape, read for the last
    /// time, made in this work, not viewed by another value and not in another device's hands.
    fn in_place(
        &self,
        node: NodeId,
        free: &[NodeId],
        live: &HashMap<NodeId, u32>,
    ) -> Option<usize> {
        let graph = self.graph();
        let candidates = in_place_operands(&graph[node].op);
        candidates.iter().copied().find(|&position| {
            let operand = graph[node].inputs[position];
            let Storage { owner, dense } = self.storage(operand);
            let of_owner = graph[node].inputs.iter().filter(|&&input| self.owner(input) == owner);
            // No other operand, nor the same once more, is in the memory that is overwritten.
            of_owner.count() == 1
                && free.contains(&operand)
                && dense
                && graph[operand].shape == graph[node].shape
                && graph[operand].dtype == graph[node].dtype
                && live.get(&owner) == Some(&1)
                && self.is_local(owner)
                && !self.shared.contains(&owner)
                && !self.shared.contains(&node)
        })
    }

    /// Bytes of the stash and of every work beyond it.
    pub(super) fn bytes(&self, program: &Program) -> StageBytes {
        let mut held = Held { liveness: self, values: HashMap::new(), bytes: 0, peak: 0 };
        program.activations_in.iter().for_each(|&id| held.add(id));
        let peak_f = held.run(program, Work::F);
        let (for_b, for_w) = held.stash();
        program.gradients_in.iter().for_each(|&id| held.add(id));
        let peak_b = held.run(program, Work::B);
        let after_b = held.bytes;
        let peak_w = held.run(program, Work::W);
        assert_eq!(held.bytes, 0, "values outlive their microbatch: {:?}", held.values.keys());
        StageBytes {
            fixed: 0,
            forward_for_b: for_b,
            forward_for_w: for_w,
            backward_for_w: after_b - for_w,
            working: PerWork([peak_f, peak_b - (for_b + for_w), peak_w - after_b]),
        }
    }

    /// Values that are handed over and read again in a later work.
    pub(super) fn kept(&self, program: &Program) -> Vec<NodeId> {
        let kept =
            |work| outputs(program, work).into_iter().filter(move |&id| self.read_after(id, work));
        kept(Work::F).chain(kept(Work::B)).collect()
    }

    fn read_after(&self, id: NodeId, work: Work) -> bool {
        self.last_read(id, work).is_some_and(|(last, _)| last > work)
    }
}

/// Values that leave the stage, or become its states, at the end of a work.
fn outputs(program: &Program, work: Work) -> Vec<NodeId> {
    match work {
        Work::F => {
            let updates = program.states.iter().map(|state| state.update);
            program.activations_out.iter().copied().chain(program.loss).chain(updates).collect()
        }
        Work::B => program.gradients_out.clone(),
        Work::W => Vec::new(),
    }
}

/// Operands that an op may overwrite with its output, the best first.
fn in_place_operands(op: &Op) -> &'static [usize] {
    let Op::Elementwise(op) = op else { return &[] };
    match op {
        Elementwise::Binary(Binary::Add | Binary::Multiply) => &[0, 1],
        Elementwise::Binary(Binary::Subtract | Binary::Divide) => &[0],
        Elementwise::Unary(_) | Elementwise::Scalar(..) | Elementwise::Dropout { .. } => &[0],
        Elementwise::Random { .. } | Elementwise::Mode => &[],
        Elementwise::Fill(_) => &[1],
        Elementwise::ActivationGradient(_) | Elementwise::Cast(_) | Elementwise::Where => &[],
        Elementwise::Binary(_) | Elementwise::Bitwise(_) => &[],
        Elementwise::Not | Elementwise::Logical(_) => &[],
        Elementwise::Compare(_) | Elementwise::CompareScalar(..) => &[],
    }
}

/// The values that one microbatch holds on a device, by the memory that they share.
struct Held<'a> {
    liveness: &'a Liveness<'a>,
    /// Values per storage.
    values: HashMap<NodeId, Vec<NodeId>>,
    bytes: u64,
    peak: u64,
}

impl Held<'_> {
    fn add(&mut self, id: NodeId) {
        let owner = self.liveness.owner(id);
        let graph = self.liveness.graph();
        if !self.liveness.is_local(owner) {
            return;
        }
        let values = self.values.entry(owner).or_default();
        if values.is_empty() {
            self.bytes += graph[owner].bytes();
        }
        values.push(id);
        self.peak = self.peak.max(self.bytes);
    }

    fn remove(&mut self, id: NodeId) {
        let owner = self.liveness.owner(id);
        let Some(values) = self.values.get_mut(&owner) else { return };
        values.retain(|&value| value != id);
        if values.is_empty() {
            self.values.remove(&owner);
            self.bytes -= self.liveness.graph()[owner].bytes();
        }
    }

    /// Plays the commands of a work and gives their peak.
    fn run(&mut self, program: &Program, work: Work) -> u64 {
        let of = self.liveness;
        self.peak = self.bytes;
        for command in &program.commands[work] {
            match command.task {
                Task::Compute { node, in_place: Some(position) } => {
                    // One storage changes its name.
                    self.remove(of.graph()[node].inputs[position]);
                    self.add(node);
                }
                Task::Compute { node, in_place: None } => self.add(node),
                Task::Accumulate { .. } | Task::Add { .. } => {}
            }
            command.free.iter().for_each(|&id| self.remove(id));
        }
        for id in outputs(program, work).into_iter().filter(|&id| !of.read_after(id, work)) {
            self.remove(id);
        }
        self.peak
    }

    /// Bytes held for B alone, and bytes held for W.
    fn stash(&self) -> (u64, u64) {
        let of = self.liveness;
        let (mut for_b, mut for_w) = (0, 0);
        for (owner, values) in &self.values {
            let bytes = of.graph()[*owner].bytes();
            if values.iter().any(|&id| of.read_after(id, Work::B)) {
                for_w += bytes;
            } else {
                for_b += bytes;
            }
        }
        (for_b, for_w)
    }
}
