//! `zerobubble bench --devices gpu:N`: products and training steps on a GPU, side by side.

use std::fmt;
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use zerobubble::engine::wgpu::{Context, Gpu, gpus, product_seconds};
use zerobubble::error::{Error, Result};
use zerobubble::train::text::Corpus;

use super::args::BenchArgs;
use super::bench::{Contender, Workload, burn_eager, median, pipeline};

/// Rows, inner size and columns of the products.
const PRODUCTS: [[usize; 3]; 3] = [[256, 1024, 256], [512, 512, 512], [1024, 1024, 1024]];

/// The training step.
const STEP: Workload = Workload {
    microbatches: 4,
    microbatch_size: 2,
    context: 64,
    vocabulary: 96,
    layers: 4,
    width: 128,
    heads: 4,
};

/// Keeps a software GPU from using more than one thread for each queue.
const ONE_THREAD: (&str, &str) = ("LP_NUM_THREADS", "1");

/// The figures, each with the unit in its name.
#[derive(Serialize, Deserialize)]
pub struct Figures {
    device: String,
    adapter: String,
    rounds: u32,
    products: Vec<Product>,
    /// Tokens per second of the median round.
    burn_eager_on_one_cpu_thread: f64,
    one_queue: f64,
    two_queues: f64,
    one_queue_to_burn_eager: f64,
    two_queues_to_one: f64,
    /// The same on queues of one thread each, on a software GPU.
    single_threaded: Option<Box<Figures>>,
}

#[derive(Serialize, Deserialize)]
struct Product {
    rows: usize,
    inner: usize,
    columns: usize,
    gflop_per_second: f64,
}

/// Measures all figures of one GPU.
pub fn run(args: &BenchArgs, device: &str) -> Result<Figures> {
    let index = device.strip_prefix("gpu:").and_then(|index| index.parse::<usize>().ok());
    let unusable = || Error::config(format!("'{device}' is not one GPU")).hint("gpu:0");
    let index = index.ok_or_else(unusable)?;
    let gpu = Gpu::at(index)?;
    let info = gpus().into_iter().nth(index).ok_or_else(unusable)?;
    let products = products(gpu, device)?;
    let contenders =
        [burn_eager(STEP), pipeline(STEP, device)?, pipeline(STEP, &format!("{device}x2"))?];
    let [burn_eager, one_queue, two_queues] = speeds(args.steps, contenders)?;
    let threads = std::env::var(ONE_THREAD.0).ok();
    let single = info.kind == "software" && threads.as_deref() != Some(ONE_THREAD.1);
    Ok(Figures {
        device: device.to_string(),
        adapter: format!("{} ({}, {})", info.name, info.backend, info.driver),
        rounds: args.steps,
        products,
        burn_eager_on_one_cpu_thread: burn_eager,
        one_queue,
        two_queues,
        one_queue_to_burn_eager: one_queue / burn_eager,
        two_queues_to_one: two_queues / one_queue,
        single_threaded: if single { Some(Box::new(single_threaded(args, device)?)) } else { None },
    })
}

fn products(gpu: Gpu, name: &str) -> Result<Vec<Product>> {
    let context = Context::open(gpu, name)?;
    let product = |[rows, inner, columns]: [usize; 3]| {
        let seconds = product_seconds(&context, rows, inner, columns)?;
        let flops = 2.0 * (rows * inner * columns) as f64;
        Ok(Product { rows, inner, columns, gflop_per_second: flops / seconds * 1e-9 })
    };
    PRODUCTS.into_iter().map(product).collect()
}

/// Tokens per second of every contender: they take turns, one step each.
fn speeds<const N: usize>(rounds: u32, mut contenders: [Contender; N]) -> Result<[f64; N]> {
    let text: String = ('\u{20}'..).take(STEP.vocabulary).cycle().take(100_000).collect();
    let mut sampler = Corpus::of_text("the bench's text", &text)?.sampler(STEP.context, 0)?;
    let rows = STEP.rows();
    let mut seconds: [Vec<f64>; N] = [const { Vec::new() }; N];
    for round in 0..=rounds {
        let batch = sampler.next_batch(rows);
        for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            contender(batch.clone())?;
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let tokens = (rows * STEP.context) as f64;
    Ok(seconds.map(|seconds| tokens / median(&seconds)))
}

/// The figures of another process: the driver reads its number of threads once.
fn single_threaded(args: &BenchArgs, device: &str) -> Result<Figures> {
    let failed = |problem: String| Error::run(format!("the single-threaded run: {problem}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(program)
        .args(["bench", "--json", "--devices", device, "--steps", &args.steps.to_string()])
        .env(ONE_THREAD.0, ONE_THREAD.1)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is {}", self.device, self.adapter)?;
        for Product { rows, inner, columns, gflop_per_second } in &self.products {
            let shape = format!("product {rows}x{inner} by {inner}x{columns}");
            writeln!(f, "{shape:36} {gflop_per_second:8.1} GFLOP/s")?;
        }
        writeln!(f, "{STEP}; tokens/s, median of {} rounds", self.rounds)?;
        self.speeds(f)?;
        if let Some(single) = &self.single_threaded {
            writeln!(f, "with {}={}, so that a queue is one thread:", ONE_THREAD.0, ONE_THREAD.1)?;
            single.speeds(f)?;
        }
        Ok(())
    }
}

impl Figures {
    fn speeds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let burn = self.burn_eager_on_one_cpu_thread;
        writeln!(f, "{:36} {burn:8.0}", "Burn eager on one CPU thread")?;
        writeln!(f, "{:36} {:8.0}", "one queue", self.one_queue)?;
        writeln!(f, "{:36} {:8.0}", "two queues", self.two_queues)?;
        writeln!(f, "{:36} {:7.2}x", "one queue / Burn", self.one_queue_to_burn_eager)?;
        writeln!(f, "{:36} {:7.2}x", "two queues / one", self.two_queues_to_one)
    }
}
