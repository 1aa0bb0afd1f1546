//! Reductions to WGSL.

use super::Shader;
use super::bindings::{Loads, Neighbours, grid, position};
use super::matmul::Abilities;
use crate::engine::wgpu::kernel::{Body, Kernel, View};

/// Threads of a workgroup on a GPU; and on a CPU, where there are as many workgroups as possible.
const WORKGROUP: usize = 64;
const CPU_WORKGROUP: usize = 16;

/// With fewer outputs than this and more inputs for each, a workgroup computes one output.
const FEW_OUTPUTS: usize = 64;
const MANY_INPUTS: usize = 512;

/// How outputs are shared out. An output is the same sum of inputs, one after another, but for
/// [`Plan::Shared`], which depends on sizes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// A thread computes one output.
    One,
    /// A thread computes one output and loads four inputs at once, along the axis.
    Inputs(usize),
    /// A thread computes four outputs that are neighbours along the axis.
    Outputs(usize),
    /// A workgroup computes one output.
    Shared,
}

/// The shader of a kernel whose body is a sum or the position of an extreme.
pub(super) fn reduce(kernel: &Kernel, abilities: &Abilities) -> Shader {
    let view = &kernel.reads[0].view;
    let axes = match &kernel.body {
        Body::Sum(axes) => axes.clone(),
        Body::ArgMax(axis) | Body::ArgMin(axis) => vec![*axis],
        body => unreachable!("no reduction: {body:?}"),
    };
    let kept = part(view, |axis| !axes.contains(&axis), view.offset);
    let summed = part(view, |axis| axes.contains(&axis), 0);
    let (outputs, inputs) = (kept.elements(), summed.elements());
    let plan = plan(kernel, &axes, [outputs, inputs], abilities);
    let (size, threads) = match plan {
        Plan::Shared => (WORKGROUP, outputs * WORKGROUP),
        Plan::Outputs(_) => (CPU_WORKGROUP, outputs / 4),
        _ => (if abilities.cpu { CPU_WORKGROUP } else { WORKGROUP }, outputs),
    };
    let grid = grid(threads, size);
    let neighbours = match plan {
        Plan::Inputs(axis) | Plan::Outputs(axis) => Neighbours::Along(axis),
        _ => Neighbours::One,
    };
    let loads = Loads::new(kernel, abilities, &[neighbours]);
    let mut source = loads.head + &grid.wgsl();
    source += &format!("const OUTPUTS: u32 = {outputs}u;\nconst INPUTS: u32 = {inputs}u;\n");
    let place = format!("{} + {}", position(&kept, "o"), position(&summed, "n"));
    source += &format!("fn load(o: u32, n: u32) -> f32 {{ return r0_one_at({place}); }}\n");
    let name = match kernel.body {
        Body::Sum(_) => {
            source += &sum(plan, &place);
            "sum"
        }
        ref body => {
            let (name, sign) =
                if matches!(body, Body::ArgMax(_)) { ("argmax", ">") } else { ("argmin", "<") };
            source += &format!("fn beats(a: f32, b: f32) -> bool {{ return a {sign} b; }}\n");
            source += include_str!("../../../../shaders/argument.wgsl");
            name
        }
    };
    let label = format!("{name} of {outputs} times {inputs}");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

fn plan(
    kernel: &Kernel,
    axes: &[usize],
    [outputs, inputs]: [usize; 2],
    abilities: &Abilities,
) -> Plan {
    let is_sum = matches!(kernel.body, Body::Sum(_));
    if is_sum && outputs < FEW_OUTPUTS && inputs > MANY_INPUTS {
        return Plan::Shared;
    }
    if !is_sum || !abilities.cpu {
        return Plan::One;
    }
    let view = &kernel.reads[0].view;
    // The innermost axis of each kind, where four elements of it are together.
    let innermost = |summed: bool| {
        let of_kind = |&axis: &usize| view.shape[axis] > 1 && axes.contains(&axis) == summed;
        (0..view.shape.len())
            .rfind(of_kind)
            .filter(|&axis| view.strides[axis] == 1 && view.shape[axis].is_multiple_of(4))
    };
    let inputs = innermost(true).map(Plan::Inputs);
    innermost(false).map(Plan::Outputs).or(inputs).unwrap_or(Plan::One)
}

/// The functions of a sum; `place` is where input `n` of output `o` is.
fn sum(plan: Plan, place: &str) -> String {
    let compute = match plan {
        Plan::Shared => return include_str!("../../../../shaders/reduce_shared.wgsl").into(),
        Plan::One => "sum(t)",
        Plan::Inputs(_) => "sum_by_fours(t)",
        Plan::Outputs(_) => "four_sums(4u * t)",
    };
    let threads = if matches!(plan, Plan::Outputs(_)) { "OUTPUTS / 4u" } else { "OUTPUTS" };
    let four = if plan == Plan::One { "vec4(0.0)".into() } else { format!("r0_four_at({place})") };
    let body = include_str!("../../../../shaders/reduce.wgsl");
    format!(
        "const THREADS: u32 = {threads};\n\
         fn four(o: u32, n: u32) -> vec4<f32> {{ return {four}; }}\n\
         fn compute(t: u32) {{ {compute}; }}\n{body}"
    )
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
