//! What a checker knows of a stage before anything runs.

use std::collections::{HashMap, HashSet};

use burn_dispatch::DispatchTensor;

use crate::compile::Task;
use crate::engine::StageSetup;
use crate::graph::NodeId;
use crate::plan::{MicrobatchId, PerWork, Work};
use crate::split::{Role, Split};

/// A stage, and what its microbatches left between two actions.
#[derive(Debug)]
pub(super) struct Stage {
    pub setup: StageSetup,
    /// What later works of a microbatch read, after each.
    kept: PerWork<Vec<NodeId>>,
    pub stash: HashMap<MicrobatchId, HashMap<NodeId, DispatchTensor>>,
}

impl Stage {
    pub fn new(split: &Split, setup: StageSetup) -> Self {
        let graph = &split.joint.graph;
        let commands = &setup.program.commands;
        let is_local =
            |id: &NodeId| !graph[*id].op.is_leaf() && split.roles[id.index()] != Role::Constant;
        let read = |work: Work| {
            let operands = commands[work].iter().flat_map(|command| match command.task {
                Task::Compute { node, .. } | Task::Accumulate { node, .. } => {
                    graph[node].inputs.clone()
                }
                Task::Add { node, .. } => vec![node],
            });
            operands.filter(is_local).collect::<HashSet<NodeId>>()
        };
        let computed = |work: Work| {
            let computed = commands[work].iter().filter_map(|command| match command.task {
                Task::Compute { node, .. } | Task::Accumulate { node, .. } => Some(node),
                Task::Add { .. } => None,
            });
            computed.collect::<HashSet<NodeId>>()
        };
        let later = |works: &[Work]| {
            let mut kept: HashSet<NodeId> = works.iter().flat_map(|&work| read(work)).collect();
            for &work in works {
                let own = computed(work);
                kept.retain(|id| !own.contains(id));
            }
            kept
        };
        let sorted = |ids: HashSet<NodeId>| {
            let mut ids: Vec<NodeId> = ids.into_iter().collect();
            ids.sort_unstable();
            ids
        };
        let mut after_f = later(&[Work::B, Work::W]);
        after_f.retain(|id| !setup.program.gradients_in.contains(id));
        let kept = [sorted(after_f), sorted(later(&[Work::W])), Vec::new()];
        Self { setup, kept: PerWork(kept), stash: HashMap::new() }
    }

    /// What is read after a work, of what was there before or was computed in it.
    pub fn kept(&self, work: Work) -> &[NodeId] {
        &self.kept[work]
    }

    /// What arrives for a work.
    pub fn received(&self, work: Work) -> &[NodeId] {
        match work {
            Work::F => &self.setup.program.activations_in,
            Work::B => &self.setup.program.gradients_in,
            Work::W => &[],
        }
    }

    /// What a work hands over.
    pub fn sent(&self, work: Work) -> &[NodeId] {
        match work {
            Work::F => &self.setup.program.activations_out,
            Work::B => &self.setup.program.gradients_out,
            Work::W => &[],
        }
    }
}

/// The module whose parameters `id` is computed with, or those of its block.
pub(super) fn module(split: &Split, id: NodeId) -> String {
    let graph = &split.joint.graph;
    let block = split.block(id);
    let of_parameter = |id: NodeId| {
        let parameter = graph[id].op.parameter()?;
        let path = &graph.parameters[parameter.index()].path;
        Some(path.rsplit_once('.').map_or(path.as_str(), |(module, _)| module).to_owned())
    };
    // The nearest ones upstream of the forward node that it belongs to.
    let mut near = vec![split.joint.owner(id)];
    let mut seen = HashSet::new();
    while !near.is_empty() {
        let inputs = near.iter().flat_map(|id| graph[*id].inputs.iter().copied());
        let inputs: Vec<NodeId> = inputs.filter(|id| seen.insert(*id)).collect();
        if let Some(module) = inputs.iter().find_map(|id| of_parameter(*id)) {
            return module;
        }
        near = inputs.into_iter().filter(|id| split.block(*id) == block).collect();
    }
    block.map_or_else(String::new, |block| split.modules(block.index()))
}
