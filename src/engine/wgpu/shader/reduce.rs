//! Reductions to WGSL.

use super::Shader;
use super::bindings::{bindings, grid, position};
use super::rows::put;
use crate::engine::wgpu::kernel::{Body, Kernel, View};

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// With fewer outputs than this and more inputs for each, a workgroup computes one output.
const FEW_OUTPUTS: usize = 64;
const MANY_INPUTS: usize = 512;

/// The shader of a kernel whose body is a sum or the position of an extreme.
pub(super) fn reduce(kernel: &Kernel) -> Shader {
    let view = &kernel.reads[0].view;
    let axes = match &kernel.body {
        Body::Sum(axes) => axes.clone(),
        Body::ArgMax(axis) | Body::ArgMin(axis) => vec![*axis],
        body => unreachable!("no reduction: {body:?}"),
    };
    let kept = part(view, |axis| !axes.contains(&axis), view.offset);
    let summed = part(view, |axis| axes.contains(&axis), 0);
    let (outputs, inputs) = (kept.elements(), summed.elements());
    let is_sum = matches!(kernel.body, Body::Sum(_));
    let shared = is_sum && outputs < FEW_OUTPUTS && inputs > MANY_INPUTS;
    let grid = grid(if shared { outputs * WORKGROUP } else { outputs }, WORKGROUP);
    let mut source = bindings(kernel) + &grid.wgsl();
    source += &format!("const OUTPUTS: u32 = {outputs}u;\nconst INPUTS: u32 = {inputs}u;\n");
    let place = format!("{} + {}", position(&kept, "o"), position(&summed, "n"));
    source += &format!("fn load(o: u32, n: u32) -> f32 {{ return r0[{place}]; }}\n");
    let name = match kernel.body {
        Body::Sum(_) if shared => {
            source += &put(kernel);
            source += include_str!("../../../../shaders/reduce_shared.wgsl");
            "sum"
        }
        Body::Sum(_) => {
            source += &put(kernel);
            source += "fn compute(o: u32) { sum(o); }\n";
            source += include_str!("../../../../shaders/reduce.wgsl");
            "sum"
        }
        _ => {
            let (name, sign) =
                if matches!(kernel.body, Body::ArgMax(_)) { ("argmax", ">") } else { ("argmin", "<") };
            source += &format!("fn beats(a: f32, b: f32) -> bool {{ return a {sign} b; }}\n");
            source += include_str!("../../../../shaders/argument.wgsl");
            name
        }
    };
    let label = format!("{name} of {outputs} times {inputs}");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

/// The dimensions of a view that are chosen.
fn part(view: &View, chosen: impl Fn(usize) -> bool, offset: usize) -> View {
    let axes = || (0..view.shape.len()).filter(|&axis| chosen(axis));
    View {
        shape: axes().map(|axis| view.shape[axis]).collect(),
        strides: axes().map(|axis| view.strides[axis]).collect(),
        offset,
    }
}
