//! Updates of parameters to WGSL, and what the host computes for them every step.

use super::Shader;
use super::bindings::grid;
use crate::engine::{AdamW, Optimizer, Sgd};

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// The update of `elements` parameters. Bindings: parameters, gradients, the optimizer's moments,
/// and [`settings`].
pub(in crate::engine::wgpu) fn update(optimizer: &Optimizer, elements: usize) -> Shader {
    let (name, moments, compute) = match optimizer {
        Optimizer::AdamW(adamw) => ("adamw", &["m", "v"][..], adamw_step(adamw)),
        Optimizer::Sgd(sgd) if sgd.momentum.is_some() => ("sgd", &["v"][..], sgd_step(sgd)),
        Optimizer::Sgd(sgd) => ("sgd", &[][..], sgd_step(sgd)),
    };
    let mut buffers = vec![("read_write", "p"), ("read", "g")];
    buffers.extend(moments.iter().map(|moment| ("read_write", *moment)));
    buffers.push(("read", "settings"));
    shader(name, &buffers, &compute, elements)
}

/// Adds `elements` gradients (binding 0) to others (binding 1).
pub(in crate::engine::wgpu) fn add(elements: usize) -> Shader {
    shader("add", &[("read", "g"), ("read_write", "p")], "    p[i] = p[i] + g[i];\n", elements)
}

/// What changes from step to step; `step` counts from 1. A multiple of four numbers.
pub(in crate::engine::wgpu) fn settings(
    optimizer: &Optimizer,
    learning_rate: f64,
    step: usize,
) -> Vec<f32> {
    let rate = learning_rate as f32;
    match optimizer {
        Optimizer::AdamW(AdamW { beta_1, beta_2, weight_decay, .. }) => {
            let keep = (1.0 - learning_rate * f64::from(*weight_decay)) as f32;
            let correction = |beta: &f32| 1.0 - beta.powi(step as i32);
            vec![rate, keep, correction(beta_1), correction(beta_2)]
        }
        Optimizer::Sgd(_) => vec![rate, f32::from(u8::from(step == 1)), 0.0, 0.0],
    }
}

fn shader(name: &str, buffers: &[(&str, &str)], compute: &str, elements: usize) -> Shader {
    let grid = grid(elements, WORKGROUP);
    let mut source = String::new();
    for (binding, (access, buffer)) in buffers.iter().enumerate() {
        source += &format!(
            "@group(0) @binding({binding}) var<storage, {access}> {buffer}: array<f32>;\n"
        );
    }
    source += &format!("const ELEMENTS: u32 = {elements}u;\n");
    source += &grid.wgsl();
    source += &format!("fn compute(i: u32) {{\n{compute}}}\n");
    source += include_str!("../../../../shaders/optimizer.wgsl");
    let label = format!("{name} of {elements} parameters");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

fn adamw_step(adamw: &AdamW) -> String {
    let AdamW { beta_1, beta_2, epsilon, .. } = *adamw;
    let (factor_1, factor_2) = (1.0 - beta_1, 1.0 - beta_2);
    format!(
        "    let m1 = m[i] * {beta_1:?}f + g[i] * {factor_1:?}f;\n    \
         let v1 = v[i] * {beta_2:?}f + g[i] * g[i] * {factor_2:?}f;\n    \
         m[i] = m1;\n    v[i] = v1;\n    \
         let delta = (m1 / settings[2]) / (sqrt(v1 / settings[3]) + {epsilon:?}f);\n    \
         p[i] = p[i] * settings[1] - delta * settings[0];\n"
    )
}

fn sgd_step(sgd: &Sgd) -> String {
    let penalty = sgd.weight_decay;
    let decayed =
        if penalty == 0.0 { "g[i]".to_string() } else { format!("p[i] * {penalty:?}f + g[i]") };
    let Some(momentum) = sgd.momentum else {
        return format!("    p[i] = p[i] - ({decayed}) * settings[0];\n");
    };
    let (factor, fresh) = (momentum.factor, (1.0 - momentum.dampening) as f32);
    let direction =
        if momentum.nesterov { format!("v1 * {factor:?}f + d") } else { "v1".to_string() };
    format!(
        "    let d = {decayed};\n    \
         let v1 = select(d * {fresh:?}f + v[i] * {factor:?}f, d, settings[1] == 1.0);\n    \
         v[i] = v1;\n    p[i] = p[i] - ({direction}) * settings[0];\n"
    )
}
