//! Updates of parameters to WGSL, and what the host computes for them every step.

use super::Shader;
use super::bindings::grid;
use crate::engine::wgpu::layout::NORM_PART;
use crate::engine::{AdamW, Optimizer, Sgd, Update};

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// Bytes of [`settings`].
const SETTINGS_BYTES: u64 = 32;

/// The update of `elements` parameters, a multiple of four. Bindings: parameters, gradients, the
/// optimizer's moments, and [`settings`] as a uniform buffer. On a CPU adapter that has 64-bit
/// integers, `wide` loads are faster.
pub(in crate::engine::wgpu) fn update(
    optimizer: &Optimizer,
    elements: usize,
    wide: bool,
) -> Shader {
    let (name, moments, compute) = match optimizer {
        Optimizer::AdamW(adamw) => ("adamw", &["m", "v"][..], adamw_step(adamw)),
        Optimizer::Sgd(sgd) if sgd.momentum.is_some() => ("sgd", &["v"][..], sgd_step(sgd)),
        Optimizer::Sgd(sgd) => ("sgd", &[][..], sgd_step(sgd)),
    };
    let mut buffers = vec![("read_write", "p"), ("read", "g")];
    buffers.extend(moments.iter().map(|moment| ("read_write", *moment)));
    let binding = buffers.len();
    let settings =
        format!("@group(0) @binding({binding}) var<uniform> settings: array<vec4<f32>, 2>;\n");
    let mut shader = shader(name, &buffers, &(settings, compute), elements, wide);
    shader.uniforms = vec![0; binding];
    shader.uniforms.push(SETTINGS_BYTES);
    shader
}

/// Adds `elements` gradients (binding 0), a multiple of four, to others (binding 1).
pub(in crate::engine::wgpu) fn add(elements: usize, wide: bool) -> Shader {
    let compute = "    put_p(i, get_p(i) + get_g(i));\n".to_string();
    let buffers = [("read", "g"), ("read_write", "p")];
    shader("add", &buffers, &(String::new(), compute), elements, wide)
}

/// The squares of the norms of parts of `elements` numbers (binding 0) to one number each (binding
/// 1). The numbers are followed by zeros up to a whole vector.
pub(in crate::engine::wgpu) fn squared_norms(elements: usize) -> Shader {
    let parts = elements.div_ceil(NORM_PART as usize);
    let grid = grid(parts * WORKGROUP, WORKGROUP);
    let source = format!(
        "@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;\n\
         @group(0) @binding(1) var<storage, read_write> out: array<f32>;\n\
         const VECTORS: u32 = {}u;\nconst PART: u32 = {}u;\nconst PARTS: u32 = {parts}u;\n{}{}",
        elements.div_ceil(4),
        NORM_PART / 4,
        grid.wgsl(),
        include_str!("../../../../shaders/norm.wgsl")
    );
    let label = format!("norm of {elements} gradients");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

/// What changes from step to step; `step` counts from 1. Eight numbers.
pub(in crate::engine::wgpu) fn settings(
    optimizer: &Optimizer,
    update: &Update,
    step: usize,
) -> Vec<f32> {
    let rate = update.learning_rate as f32;
    let mut settings = match optimizer {
        Optimizer::AdamW(AdamW { beta_1, beta_2, weight_decay, .. }) => {
            let keep = (1.0 - update.learning_rate * f64::from(*weight_decay)) as f32;
            let correction = |beta: &f32| 1.0 - beta.powi(step as i32);
            vec![rate, keep, correction(beta_1), correction(beta_2)]
        }
        Optimizer::Sgd(_) => vec![rate, f32::from(u8::from(step == 1)), 0.0, 0.0],
    };
    settings.extend([update.scale, 0.0, 0.0, 0.0]);
    settings
}

/// A thread updates four neighbours: `get_p(i)` and `put_p(i, four)` and the like take four.
fn shader(
    name: &str,
    buffers: &[(&str, &str)],
    (head, compute): &(String, String),
    elements: usize,
    wide: bool,
) -> Shader {
    assert!(elements.is_multiple_of(4), "arenas are made of whole vectors");
    let grid = grid(elements / 4, WORKGROUP);
    let element = if wide { "vec2<u64>" } else { "vec4<f32>" };
    let mut source = head.clone();
    for (binding, (access, buffer)) in buffers.iter().enumerate() {
        source += &format!(
            "@group(0) @binding({binding}) var<storage, {access}> {buffer}: array<{element}>;\n"
        );
        let get = if wide { format!("unpacked({buffer}[i])") } else { format!("{buffer}[i]") };
        source += &format!("fn get_{buffer}(i: u32) -> vec4<f32> {{ return {get}; }}\n");
        if *access == "read_write" {
            let four = if wide { "packed(four)" } else { "four" };
            source +=
                &format!("fn put_{buffer}(i: u32, four: vec4<f32>) {{ {buffer}[i] = {four}; }}\n");
        }
    }
    if wide {
        source += include_str!("../../../../shaders/packed.wgsl");
    }
    source += &format!("const VECTORS: u32 = {}u;\n", elements / 4);
    source += &grid.wgsl();
    source += &format!("fn compute(i: u32) {{\n{compute}}}\n");
    source += include_str!("../../../../shaders/optimizer.wgsl");
    let label = format!("{name} of {elements} parameters");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

fn adamw_step(adamw: &AdamW) -> String {
    let AdamW { beta_1, beta_2, epsilon, weight_decay, .. } = *adamw;
    let kept = if weight_decay == 0.0 { "" } else { " * s.y" };
    let (factor_1, factor_2) = (1.0 - beta_1, 1.0 - beta_2);
    format!(
        "    let s = settings[0];\n    let g = get_g(i) * settings[1].x;\n    \
         let m1 = get_m(i) * {beta_1:?}f + g * {factor_1:?}f;\n    \
         let v1 = get_v(i) * {beta_2:?}f + g * g * {factor_2:?}f;\n    \
         put_m(i, m1);\n    put_v(i, v1);\n    \
         let delta = (m1 / s.z) / (sqrt(v1 / s.w) + {epsilon:?}f);\n    \
         put_p(i, get_p(i){kept} - delta * s.x);\n"
    )
}

fn sgd_step(sgd: &Sgd) -> String {
    let penalty = sgd.weight_decay;
    let decay = if penalty == 0.0 { String::new() } else { format!("p0 * {penalty:?}f + ") };
    let start = format!(
        "    let s = settings[0];\n    let p0 = get_p(i);\n    \
         let d = {decay}get_g(i) * settings[1].x;\n"
    );
    let Some(momentum) = sgd.momentum else {
        return start + "    put_p(i, p0 - d * s.x);\n";
    };
    let (factor, fresh) = (momentum.factor, (1.0 - momentum.dampening) as f32);
    let direction =
        if momentum.nesterov { format!("v1 * {factor:?}f + d") } else { "v1".to_string() };
    format!(
        "{start}    \
         let v1 = select(d * {fresh:?}f + get_v(i) * {factor:?}f, d, s.y == 1.0);\n    \
         put_v(i, v1);\n    put_p(i, p0 - ({direction}) * s.x);\n"
    )
}
