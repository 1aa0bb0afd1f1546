//! Promise: every block is split into F, B and W, what crosses and what is kept is known in bytes,
//! and values that skip blocks travel through them.

#[path = "common/families.rs"]
mod families;

use std::collections::HashSet;

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig, Relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use families::families;
use zerobubble::capture::capture;
use zerobubble::compile::{BlockTable, Program, Task, compile};
use zerobubble::differentiate::differentiate;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::graph::{Activation, NodeId, Op, Unary};
use zerobubble::plan::{GPIPE, Work, generate};
use zerobubble::split::{Role, Split, split};
use zerobubble::{AdamW, Trainer};

fn split_gpt(tied: bool) -> Split {
    let device = Device::flex();
    let model = GptConfig::new(13, 5, 3, 8, 2).with_tied(tied).init(&device);
    let tokens = Tensor::<2, Int>::zeros([2, 5], &device);
    let loss = |model: &Gpt, (tokens, targets)| model.loss(tokens, targets);
    let graph = capture(&model, &loss, &(tokens.clone(), tokens)).unwrap();
    split(differentiate(graph, 1.0).unwrap()).unwrap()
}

#[test]
fn every_block_has_its_own_w_and_all_but_an_embedding_have_b() {
    let split = split_gpt(false);
    let table = BlockTable(&split);
    assert!(split.blocks.len() >= 7, "two blocks a layer, embeddings and head: {table}");
    for (index, block) in split.blocks.iter().enumerate() {
        assert!(!block.nodes[Work::F].is_empty(), "block {index}");
        assert!(!block.nodes[Work::W].is_empty(), "block {index}");
        // The gradient of the first embedding's output arrives from the next block.
        assert!(index == 0 || !block.nodes[Work::B].is_empty(), "block {index}");
    }
}

#[test]
fn w_computes_parameter_gradients_and_nothing_that_b_hands_on() {
    let split = split_gpt(true);
    for block in &split.blocks {
        for gradient in &block.gradients_out {
            assert!(!block.nodes[Work::W].contains(gradient));
        }
        for &id in &block.nodes[Work::W] {
            let weight_only = split.joint.contributions.iter().any(|of| of.gradient == id);
            let feeds_weights = block.nodes[Work::W]
                .iter()
                .any(|&user| split.joint.graph[user].inputs.contains(&id));
            assert!(weight_only || feeds_weights, "{id} {}", split.joint.graph[id]);
        }
    }
}

#[test]
fn a_table_tells_every_blocks_bytes_and_work() {
    let split = split_gpt(false);
    let graph = &split.joint.graph;
    let crossing = |ids: &[NodeId]| ids.iter().map(|&id| graph[id].bytes()).sum::<u64>();
    let table = BlockTable(&split).to_string();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), split.blocks.len());
    for (index, (row, block)) in rows.iter().zip(&split.blocks).enumerate() {
        let bytes = compile(&split, index..index + 1).bytes;
        let mut expected = vec![
            index.to_string(),
            crossing(&block.activations_out).to_string(),
            crossing(&block.gradients_out).to_string(),
            bytes.forward_for_b.to_string(),
            bytes.forward_for_w.to_string(),
            bytes.backward_for_w.to_string(),
        ];
        expected.extend(block.flops.0.map(|flops| format!("{:.1}", flops / 1e6)));
        let cells: Vec<&str> = row.split_whitespace().take(expected.len()).collect();
        assert_eq!(cells, expected);
    }
}

/// The values of the microbatch that one work of a stage reads.
fn reads(split: &Split, program: &Program, work: Work) -> HashSet<NodeId> {
    let graph = &split.joint.graph;
    let of = |task: &Task| match task {
        Task::Add { node, .. } => vec![*node],
        task => graph[task.node()].inputs.clone(),
    };
    let read = program.commands[work].iter().flat_map(|command| of(&command.task));
    let is_kept =
        |id: &NodeId| split.roles[id.index()] != Role::Constant && !graph[*id].op.is_leaf();
    read.filter(is_kept).collect()
}

#[test]
fn what_b_alone_needs_is_not_kept_for_w() {
    let split = split_gpt(false);
    let graph = &split.joint.graph;
    let mut both = 0;
    for block in 0..split.blocks.len() {
        let program = compile(&split, block..block + 1);
        let made = program.commands[Work::F].iter().map(|command| command.task.node());
        let from_f: HashSet<NodeId> = made.chain(program.activations_in.iter().copied()).collect();
        let (for_b, for_w) = (reads(&split, &program, Work::B), reads(&split, &program, Work::W));
        let freed = |work: Work| -> Vec<NodeId> {
            program.commands[work].iter().flat_map(|command| command.free.clone()).collect()
        };
        for id in from_f.intersection(&for_b) {
            let frees = [Work::B, Work::W].map(|work| freed(work).contains(id));
            let expected = if for_w.contains(id) { [false, true] } else { [true, false] };
            assert_eq!(frees, expected, "block {block}: {id} {}", graph[*id]);
        }
        // At most, because views share the memory of what they are views of.
        let bytes = |ids: &mut dyn Iterator<Item = &NodeId>| -> u64 {
            ids.map(|&id| graph[id].bytes()).sum()
        };
        let (in_b, in_w) = (&from_f & &for_b, &from_f & &for_w);
        let found = program.bytes;
        assert!(found.forward_for_b <= bytes(&mut in_b.difference(&in_w)), "block {block}");
        assert!(found.forward_for_w <= bytes(&mut in_w.iter()), "block {block}");
        both += usize::from(found.forward_for_b > 0 && found.forward_for_w > 0);
    }
    // Attention keeps its softmax for B, and its inputs of products for W.
    assert!(both > 0);
}

#[test]
fn a_stage_computes_the_same_nodes_as_its_blocks() {
    let split = split_gpt(true);
    let nodes = |program: &Program, work: Work| -> Vec<NodeId> {
        program.commands[work].iter().map(|command| command.task.node()).collect()
    };
    let blocks = split.blocks.len();
    let whole = compile(&split, 0..blocks);
    for work in Work::ALL {
        let mut apart: Vec<NodeId> =
            (0..blocks).flat_map(|block| nodes(&compile(&split, block..block + 1), work)).collect();
        let mut together = nodes(&whole, work);
        apart.sort_unstable();
        together.sort_unstable();
        assert_eq!(together, apart, "{work:?}");
    }
}

/// Layers in a row, the first of which is added again before the last.
#[derive(Module, Debug)]
struct Skip {
    layers: Vec<Linear>,
    relu: Relu,
    out: Linear,
}

#[derive(Config, Debug)]
struct SkipConfig {
    width: usize,
}

impl SkipConfig {
    fn init(&self, device: &Device) -> Skip {
        let layer = |_| LinearConfig::new(self.width, self.width).init(device);
        Skip {
            layers: (0..5).map(layer).collect(),
            relu: Relu::new(),
            out: LinearConfig::new(self.width, 1).init(device),
        }
    }
}

impl Skip {
    fn loss(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        let first = self.relu.forward(self.layers[0].forward(x));
        let last = self.layers[1..]
            .iter()
            .fold(first.clone(), |x, layer| self.relu.forward(layer.forward(x)));
        let error = self.out.forward(last + first) - y;
        (error.clone() * error).mean()
    }
}

fn points(rows: usize, width: usize) -> (Tensor<2>, Tensor<2>) {
    let device = Device::flex();
    let value = |at: usize| ((at * 37 % 19) as f32 - 9.0) / 10.0;
    let tensor = |columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &device)
    };
    (tensor(width), tensor(1))
}

#[test]
fn a_value_that_skips_blocks_crosses_every_boundary_in_between() {
    let device = Device::flex();
    let model = SkipConfig::new(6).init(&device);
    let loss = |model: &Skip, (x, y)| model.loss(x, y);
    let graph = capture(&model, &loss, &points(3, 6)).unwrap();
    let split = split(differentiate(graph, 1.0).unwrap()).unwrap();
    let relu =
        |id: &NodeId| split.joint.graph[*id].op == Op::from(Unary::Activation(Activation::Relu));
    let skipping = split.blocks[0].activations_out.iter().find(|id| relu(id)).unwrap();
    let last = split.blocks.len() - 1;
    assert!(last >= 3, "{}", BlockTable(&split));
    // It is added before the last block, to which only the sum crosses.
    for block in &split.blocks[..last - 1] {
        assert!(block.activations_out.contains(skipping));
    }
    for block in &split.blocks[1..] {
        assert!(!block.gradients_out.is_empty());
    }
}

#[test]
fn a_value_that_skips_stages_is_trained_the_same_on_any_devices() {
    let device = Device::flex();
    let model = SkipConfig::new(6).init(&device);
    let hash = |devices: &str, schedule| {
        let loss = |model: &Skip, (x, y)| model.loss(x, y);
        let mut trainer = Trainer::of(model.clone(), loss)
            .devices(devices)
            .unwrap()
            .schedule(schedule)
            .microbatches(4)
            .optimizer(AdamW::default())
            .build(&points(3, 6))
            .unwrap();
        for _ in 0..3 {
            trainer.step(points(12, 6)).unwrap();
        }
        trainer.weights_hash().unwrap()
    };
    let expected = hash("cpu", &GPIPE);
    // The model has four blocks: two chunks per device on two devices.
    for family in families() {
        for devices in 2..=4 {
            let stages = generate(family, devices, None, 4).unwrap().placement.stage_count();
            if stages <= 4 {
                assert_eq!(hash(&format!("cpux{devices}"), family), expected, "{devices} {family}");
            }
        }
    }
}
