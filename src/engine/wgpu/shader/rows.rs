//! Softmax, layer norm and their gradients to WGSL.

use super::Shader;
use super::bindings::{bindings, grid};
use crate::engine::wgpu::kernel::{Body, Kernel, Target};

/// Threads of a workgroup where a thread computes a row: few, so that few rows keep several
/// workgroups busy.
const ROW_WORKGROUP: usize = 16;

/// Threads of a workgroup where a thread computes a column.
const COLUMN_WORKGROUP: usize = 64;

/// The shader of a kernel whose body is one of the softmax or layer norm family.
pub(super) fn rows(kernel: &Kernel) -> Shader {
    let shape = &kernel.reads[0].view.shape;
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>() / columns;
    let mut head = bindings(kernel);
    head += &format!("const ROWS: u32 = {rows}u;\nconst COLUMNS: u32 = {columns}u;\n");
    let over_columns = matches!(kernel.body, Body::LayerNormGradientGamma(_));
    let grid = if over_columns {
        grid(columns, COLUMN_WORKGROUP)
    } else {
        grid(rows, ROW_WORKGROUP)
    };
    head += &grid.wgsl();
    let softmax = |name: &str, second: bool| {
        let math = include_str!("../../../../shaders/math.wgsl");
        let second = if second { load("second", 1) } else { String::new() + NO_SECOND };
        let compute = format!("fn compute(row: u32) {{ {name}(row); }}\n");
        let body = include_str!("../../../../shaders/softmax.wgsl");
        (name.to_string(), format!("{math}{}{second}{compute}{body}", load("first", 0)))
    };
    let norm = |name: &str, epsilon: f64, gradient: bool| {
        let gamma = element("gamma", 1);
        let beta = if !gradient && kernel.reads.len() > 2 { element("beta", 2) } else { zero("beta", "c") };
        let g = if gradient { load("g", 2) } else { zero("g", "i") };
        let compute = format!("fn compute(row: u32) {{ {name}(row); }}\n");
        let epsilon = constant(epsilon);
        let body = include_str!("../../../../shaders/layer_norm.wgsl");
        (name.to_string(), format!("{epsilon}{}{gamma}{beta}{g}{compute}{body}", load("x", 0)))
    };
    let (name, body) = match kernel.body {
        Body::Softmax => softmax("softmax", false),
        Body::SoftmaxGradient => softmax("softmax_gradient", true),
        Body::LogSoftmax => softmax("log_softmax", false),
        Body::LogSoftmaxGradient => softmax("log_softmax_gradient", true),
        Body::LayerNorm(epsilon) => norm("layer_norm", epsilon, false),
        Body::LayerNormGradient(epsilon) => norm("layer_norm_gradient", epsilon, true),
        Body::LayerNormGradientGamma(epsilon) => {
            let body = include_str!("../../../../shaders/layer_norm_gamma.wgsl");
            let parts = [constant(epsilon), load("x", 0), load("g", 1), put(kernel)];
            ("layer_norm_gamma".to_string(), parts.concat() + body)
        }
        ref body => unreachable!("no row kernel: {body:?}"),
    };
    let label = format!("{name} of {rows} rows of {columns}");
    Shader { label, source: head + &body, workgroups: grid.workgroups, uniforms: Vec::new() }
}

const NO_SECOND: &str = "fn second(i: u32) -> f32 { return 0.0; }\n";

/// `fn name(i)`: an element of a read by its row-major index.
fn load(name: &str, read: usize) -> String {
    format!("fn {name}(i: u32) -> f32 {{ return r{read}[r{read}_at(i)]; }}\n")
}

/// `fn name(c)`: an element of a read that has one row.
fn element(name: &str, read: usize) -> String {
    format!("fn {name}(c: u32) -> f32 {{ return r{read}[r{read}_at(c)]; }}\n")
}

fn zero(name: &str, argument: &str) -> String {
    format!("fn {name}({argument}: u32) -> f32 {{ return 0.0; }}\n")
}

fn constant(epsilon: f64) -> String {
    format!("const EPSILON: f32 = {:?}f;\n", epsilon as f32)
}

/// `fn put(i, value)`: stores or adds a result.
pub(super) fn put(kernel: &Kernel) -> String {
    let sum = matches!(kernel.writes[0].target, Target::Sum(_));
    let value = if sum { "w0[i] + value" } else { "value" };
    format!("fn put(i: u32, value: f32) {{ w0[i] = {value}; }}\n")
}
