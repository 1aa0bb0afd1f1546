//! `zerobubble bench --devices gpu:N`: products and training steps on a GPU, side by side.

use std::fmt;
use std::process::Command;
use std::time::Instant;

use crate::text::Corpus;
use burn::tensor::{Device, Distribution, ExecutionError, Tensor};
use serde::{Deserialize, Serialize};
use zerobubble::engine::wgpu::{Context, Gpu, gpus, product_seconds};
use zerobubble::error::{Error, Result};

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

/// Rounds in which all contenders warm up.
const WARM_UP: u32 = 3;

/// Runs of one of Burn's own products.
const BURN_RUNS: u32 = 20;

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
    /// With the cargo feature `burn-wgpu` alone.
    burn_on_its_default_gpu: Option<f64>,
    one_queue: f64,
    two_queues: f64,
    one_queue_to_burn_eager: f64,
    one_queue_to_burn_on_gpu: Option<f64>,
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
    /// With the cargo feature `burn-wgpu` alone.
    burn_gflop_per_second: Option<f64>,
}

/// Measures all figures of one GPU.
pub fn run(args: &BenchArgs, device: &str) -> Result<Figures> {
    let index = device.strip_prefix("gpu:").and_then(|index| index.parse::<usize>().ok());
    let unusable = || Error::config(format!("'{device}' is not one GPU")).hint("gpu:0");
    let index = index.ok_or_else(unusable)?;
    let hint = "zerobubble devices, which lists the GPUs, or bench without --devices";
    let gpu = Gpu::at(index).map_err(|error| error.hint(hint))?;
    let info = gpus().into_iter().nth(index).ok_or_else(unusable)?;
    let products = products(gpu, device)?;
    let mut contenders = vec![
        burn_eager(STEP, Device::flex()),
        pipeline(STEP, device)?,
        pipeline(STEP, &format!("{device}x2"))?,
    ];
    contenders.extend(burn_gpu().map(|gpu| burn_eager(STEP, gpu)));
    let speeds = speeds(args.steps, contenders)?;
    let (burn_eager, one_queue, two_queues) = (speeds[0], speeds[1], speeds[2]);
    let burn_on_gpu = speeds.get(3).copied();
    let threads = std::env::var(ONE_THREAD.0).ok();
    let single = info.kind == "software" && threads.as_deref() != Some(ONE_THREAD.1);
    Ok(Figures {
        device: device.to_string(),
        adapter: format!("{} ({}, {})", info.name, info.backend, info.driver),
        rounds: args.steps,
        products,
        burn_eager_on_one_cpu_thread: burn_eager,
        burn_on_its_default_gpu: burn_on_gpu,
        one_queue,
        two_queues,
        one_queue_to_burn_eager: one_queue / burn_eager,
        one_queue_to_burn_on_gpu: burn_on_gpu.map(|burn| one_queue / burn),
        two_queues_to_one: two_queues / one_queue,
        single_threaded: if single { Some(Box::new(single_threaded(args, device)?)) } else { None },
    })
}

fn products(gpu: Gpu, name: &str) -> Result<Vec<Product>> {
    let context = Context::open(gpu, name)?;
    let product = |[rows, inner, columns]: [usize; 3]| {
        let seconds = product_seconds(&context, rows, inner, columns)?;
        let gflop = 2e-9 * (rows * inner * columns) as f64;
        let burn = burn_gpu().map(|gpu| burn_product_seconds(&gpu, rows, inner, columns));
        let burn_gflop_per_second = burn.transpose()?.map(|seconds| gflop / seconds);
        let gflop_per_second = gflop / seconds;
        Ok(Product { rows, inner, columns, gflop_per_second, burn_gflop_per_second })
    };
    PRODUCTS.into_iter().map(product).collect()
}

/// The GPU that Burn itself takes, through CubeCL.
fn burn_gpu() -> Option<Device> {
    #[cfg(feature = "burn-wgpu")]
    return Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
    #[cfg(not(feature = "burn-wgpu"))]
    return None;
}

/// Seconds of one of Burn's own products: the shortest of some runs, after those in which Burn
/// chooses its kernel.
fn burn_product_seconds(gpu: &Device, rows: usize, inner: usize, columns: usize) -> Result<f64> {
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::<2>::random([rows, inner], normal, gpu);
    let y = Tensor::<2>::random([inner, columns], normal, gpu);
    let mut best = f64::INFINITY;
    for _ in 0..BURN_RUNS {
        let failed = |error: ExecutionError| Error::run(format!("Burn's product: {error}"));
        gpu.sync().map_err(failed)?;
        let start = Instant::now();
        let product = x.clone().matmul(y.clone());
        gpu.sync().map_err(failed)?;
        best = best.min(start.elapsed().as_secs_f64());
        drop(product);
    }
    Ok(best)
}

/// Tokens per second of every contender: they take turns, one step each.
fn speeds(rounds: u32, mut contenders: Vec<Contender>) -> Result<Vec<f64>> {
    let text: String = ('\u{20}'..).take(STEP.vocabulary).cycle().take(100_000).collect();
    let mut sampler = Corpus::of_text("the bench's text", &text)?.sampler(STEP.context, 0)?;
    let rows = STEP.rows();
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    // What the first rounds take is not counted: there Burn chooses its kernels.
    for round in 0..rounds + WARM_UP {
        let batch = sampler.next_batch(rows);
        for (contender, seconds) in contenders.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            contender(batch.clone())?;
            if round >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let tokens = (rows * STEP.context) as f64;
    Ok(seconds.iter().map(|seconds| tokens / median(seconds)).collect())
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
        for product in &self.products {
            let Product { rows, inner, columns, gflop_per_second, .. } = product;
            let shape = format!("product {rows}x{inner} by {inner}x{columns}");
            write!(f, "{shape:36} {gflop_per_second:8.1} GFLOP/s")?;
            if let Some(burn) = product.burn_gflop_per_second {
                write!(f, ", {:.2}x Burn's own {burn:.1} GFLOP/s", gflop_per_second / burn)?;
            }
            writeln!(f)?;
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
        if let Some(burn) = self.burn_on_its_default_gpu {
            writeln!(f, "{:36} {burn:8.0}", "Burn on its default GPU")?;
        }
        writeln!(f, "{:36} {:8.0}", "one queue", self.one_queue)?;
        writeln!(f, "{:36} {:8.0}", "two queues", self.two_queues)?;
        writeln!(f, "{:36} {:7.2}x", "one queue / Burn", self.one_queue_to_burn_eager)?;
        if let Some(ratio) = self.one_queue_to_burn_on_gpu {
            writeln!(f, "{:36} {ratio:7.2}x", "one queue / Burn on its default GPU")?;
        }
        writeln!(f, "{:36} {:7.2}x", "two queues / one", self.two_queues_to_one)
    }
}
