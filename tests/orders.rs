//! Promise: within each stage the order of W decides the bits of trained weights, and the order of
//! F those of running statistics; nothing else of a plan does. Another order changes rounding
//! alone.

#[path = "common/distance.rs"]
mod distance;
#[path = "common/tokens.rs"]
mod tokens;

use std::collections::HashSet;

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use distance::assert_close;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokens::{Tokens, tokens};
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::plan::{
    Action, DeviceId, MicrobatchId, Placement, Plan, StageId, Work, ZB_H1, check, generate, read,
};
use zerobubble::{Checkpoints, Sgd, Trainer};

const VOCABULARY: usize = 13;
const CONTEXT: usize = 6;
const ROWS: usize = 2;
const MICROBATCHES: u32 = 6;
const STEPS: u64 = 2;

fn gpt() -> Gpt {
    let config = GptConfig::new(VOCABULARY, CONTEXT, 4, 12, 2);
    config.with_dropout(0.1).with_tied(true).init(&Device::flex())
}

fn batch(step: u64, rows: usize) -> Tokens {
    tokens(step, 0..rows, CONTEXT, VOCABULARY)
}

/// A legal plan in which every stage takes W in the order `w`, and F in the order `f` or, where
/// there is none, in any; B in any order, and fused where it can be and chance will.
fn random_plan(seed: u64, placement: &[u32], w: &[u32], f: Option<&[u32]>) -> Plan {
    let random = &mut StdRng::seed_from_u64(seed);
    let stages = placement.len() as u32;
    let mut lanes = vec![Vec::new(); *placement.iter().max().unwrap() as usize + 1];
    let mut done: HashSet<Action> = HashSet::new();
    loop {
        let action = |s, work, k: u32| Action::new(StageId(s), work, MicrobatchId(k));
        let has = |s, work, k| done.contains(&action(s, work, k));
        // Whether all before k in an order have been done.
        let is_turn = |order: &[u32], s, work, k: u32| {
            order.iter().take_while(|before| **before != k).all(|k| has(s, work, *k))
        };
        let mut ready = Vec::new();
        for (s, k) in (0..stages).flat_map(|s| w.iter().map(move |k| (s, *k))) {
            let is_next = f.is_none_or(|order| is_turn(order, s, Work::F, k));
            let fed = s == 0 || has(s - 1, Work::F, k);
            if !has(s, Work::F, k) && fed && is_next {
                ready.push(action(s, Work::F, k));
            }
            let is_next = is_turn(w, s, Work::W, k);
            let fed = s + 1 == stages || has(s + 1, Work::B, k);
            if has(s, Work::F, k) && !has(s, Work::B, k) && fed {
                let fuses = is_next && random.random_bool(0.5);
                let fused = Action::fused(StageId(s), MicrobatchId(k));
                ready.push(if fuses { fused } else { action(s, Work::B, k) });
            }
            if has(s, Work::B, k) && !has(s, Work::W, k) && is_next {
                ready.push(action(s, Work::W, k));
            }
        }
        let Some(&next) = ready.choose(random) else { break };
        done.extend(next.works().iter().map(|work| next.alone(*work)));
        lanes[placement[next.stage.index()] as usize].push(next);
    }
    let placement = Placement { stages: placement.iter().copied().map(DeviceId).collect() };
    Plan { schedule: format!("seed {seed}"), microbatches: w.len() as u32, placement, lanes }
}

/// GPipe whose backwards descend, on so many devices.
fn descending(devices: u32) -> Plan {
    let mut text = format!("schedule descending\nmicrobatches {MICROBATCHES}\nplacement");
    (0..devices).for_each(|device| text += &format!(" {device}"));
    for device in 0..devices {
        text += &format!("\ndevice {device}:");
        (0..MICROBATCHES).for_each(|k| text += &format!(" {device}F{k}"));
        (0..MICROBATCHES).rev().for_each(|k| text += &format!(" {device}BW{k}"));
    }
    read(&text).unwrap()
}

/// What PyTorch writes for LoopedBFS on two ranks of two stages.
fn looped_bfs() -> Plan {
    let cells = |stage, letter: &str, ks: &mut dyn Iterator<Item = u32>| {
        ks.map(|k| format!("{stage}{letter}{k},")).collect::<String>()
    };
    let row = |rank: u32| {
        let stages = [rank, rank + 2];
        let forward = stages.map(|s| cells(s, "F", &mut (0..MICROBATCHES))).concat();
        let backward = [stages[1], stages[0]];
        let backward = backward.map(|s| cells(s, "B", &mut (0..MICROBATCHES).rev())).concat();
        let warm = ",".repeat(2 * (1 - rank as usize));
        format!("{}{forward}{warm}{backward}\r\n", ",".repeat(rank as usize))
    };
    read(&format!("{}{}", row(0), row(1))).unwrap()
}

/// The device of every stage. On some of them adjacent stages share what they hold.
const PLACEMENTS: [&[u32]; 5] = [&[0, 1, 1, 0], &[0, 0], &[0], &[0, 1], &[0, 1, 0, 1]];

fn trained(model: &Gpt, plan: &Plan, devices: &str, shadow: bool) -> (String, Gpt) {
    let mut trainer =
        Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| model.loss(tokens, targets))
            .devices(devices)
            .unwrap()
            .schedule(plan.clone())
            .optimizer(Sgd::default())
            .learning_rate(0.1)
            .shadow(shadow)
            .build(&batch(0, ROWS))
            .unwrap();
    for step in 0..STEPS {
        let report = trainer.step(batch(step, ROWS * plan.microbatches as usize)).unwrap();
        for (held, predicted) in report.peak_bytes.iter().zip(&trainer.prediction().memory) {
            assert!(*held <= predicted.peak_bytes() || shadow, "{held} bytes, {predicted:?}");
        }
    }
    (trainer.weights_hash().unwrap(), trainer.into_module().unwrap())
}

/// One hash for each order of W, whatever else is in a plan. `devices` gives the spec of so many.
fn one_hash_per_order(placements: &[&[u32]], devices: impl Fn(usize) -> String, shadow: bool) {
    let standard = check(generate(&ZB_H1, 1, None, MICROBATCHES).unwrap()).unwrap();
    let model = gpt();
    let (standard, close_to) = trained(&model, standard.plan(), &devices(1), shadow);
    let ascending: Vec<u32> = (0..MICROBATCHES).collect();
    let down: Vec<u32> = ascending.iter().copied().rev().collect();
    let mixed = vec![3, 0, 5, 1, 4, 2];
    let mut hashes = HashSet::from([standard.clone()]);
    for order in [ascending, down, mixed] {
        let random = placements.iter().zip(0..);
        let mut plans: Vec<Plan> =
            random.map(|(placement, seed)| random_plan(seed, placement, &order, None)).collect();
        if order[0] == MICROBATCHES - 1 {
            plans.extend([descending(3), looped_bfs()]);
        }
        let mut expected = (order[0] == 0).then(|| standard.clone());
        for plan in plans {
            let (hash, after) = trained(&model, &plan, &devices(plan.lanes.len()), shadow);
            assert_eq!(hash, *expected.get_or_insert(hash.clone()), "W in {order:?}:\n{plan}");
            assert_close(&after, &close_to, 1e-4);
        }
        hashes.extend(expected);
    }
    assert_eq!(hashes.len(), 3, "each order rounds in its own way");
}

#[test]
fn the_order_of_w_decides_the_bits_on_cpu_devices() {
    one_hash_per_order(&PLACEMENTS, |count| format!("cpux{count}"), false);
}

#[test]
fn the_order_of_w_decides_the_bits_on_queues_of_a_gpu() {
    // Bindings and shaders are made anew for each.
    one_hash_per_order(&PLACEMENTS[..2], |count| format!("gpu:0x{count}"), false);
}

/// Burn's own functions compute everything again, in the same order.
#[test]
fn no_order_of_w_is_wrong_under_a_shadow() {
    one_hash_per_order(&PLACEMENTS[..2], |count| format!("cpux{count}"), true);
}

/// A model whose forward pass keeps statistics.
#[derive(Module, Debug)]
struct Normed {
    first: Linear,
    norm: BatchNorm,
    last: Linear,
}

impl Normed {
    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let y = self.norm.forward(self.first.forward(x)).tanh();
        self.last.forward(y).powi_scalar(2).mean()
    }
}

/// The hashes of what is trained, and of what F keeps.
fn parts(model: &Normed, plan: Plan, devices: &str) -> [Vec<(String, String)>; 2] {
    let numbers = |rows: usize| {
        let values = (0..4 * rows).map(|at| ((at * at + 3 * at) % 17) as f32 / 7.0 - 1.0);
        let data = TensorData::new(values.collect::<Vec<f32>>(), [rows, 4]);
        Tensor::<2>::from_data(data, &Device::flex())
    };
    let mut trainer = Trainer::of(model.clone(), |model: &Normed, x| model.loss(x))
        .devices(devices)
        .unwrap()
        .schedule(plan)
        .optimizer(Sgd::default())
        .learning_rate(0.1)
        .build(&numbers(3))
        .unwrap();
    trainer.step(numbers(3 * MICROBATCHES as usize)).unwrap();
    let hashes = trainer.weight_hashes().unwrap().into_iter();
    let (kept, trained) = hashes.partition(|(path, _)| path.contains("running"));
    [trained, kept]
}

#[test]
fn the_order_of_f_decides_the_bits_of_running_statistics() {
    let device = Device::flex();
    let model = Normed {
        first: LinearConfig::new(4, 6).init(&device),
        norm: BatchNormConfig::new(6).init(&device),
        last: LinearConfig::new(6, 2).init(&device),
    };
    let w = [4, 1, 0, 5, 3, 2];
    let fs = [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]];
    for spec in ["cpu", "gpu:0"] {
        let of = |seed, placement, f| {
            let plan = random_plan(seed, placement, &w, Some(f));
            parts(&model, plan.clone(), &format!("{spec}x{}", plan.lanes.len()))
        };
        let [one, other] = [0, 1].map(|at| {
            let first = of(0, &[0], &fs[at]);
            assert!(!first[1].is_empty(), "{first:?}");
            assert_eq!(first, of(1, &[0, 1], &fs[at]), "{spec}");
            assert_eq!(first, of(2, &[0, 0], &fs[at]), "{spec}");
            first
        });
        assert_eq!(one[0], other[0], "{spec}: weights know the order of W alone");
        assert_ne!(one[1], other[1], "{spec}: the last microbatch counts the most");
    }
}

/// A run that goes on in another order of W is told that its bits are others.
#[test]
fn a_run_that_goes_on_in_another_order_is_told() {
    let model = gpt();
    let build = |plan: Plan| {
        let builder = Trainer::of(model.clone(), |model: &Gpt, (tokens, targets)| {
            model.loss(tokens, targets)
        })
        .devices(&format!("cpux{}", plan.lanes.len()))
        .unwrap();
        builder.schedule(plan).build(&batch(0, ROWS)).unwrap()
    };
    let folder = tempfile::Builder::new().prefix("orders-").tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    build(descending(2)).save(&checkpoints, &()).unwrap();
    let saved = checkpoints.newest().unwrap().checkpoint.unwrap();
    assert_eq!(build(looped_bfs()).resume(&saved).unwrap(), [""; 0]);
    let standard = check(generate(&ZB_H1, 2, None, MICROBATCHES).unwrap()).unwrap();
    assert_eq!(
        build(standard.plan().clone()).resume(&saved).unwrap(),
        ["saved with microbatches in the order W 5 4 3 2 1 0, continues with microbatches in the \
          order standard"]
    );
}
