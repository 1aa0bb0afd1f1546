//! Reductions to WGSL.

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid, position, value_type};
use crate::engine::wgpu::element::Element;
use crate::engine::wgpu::kernel::{Kernel, View};
use crate::graph::Reduction;

/// Threads of a workgroup on a GPU; and on a CPU, where there are as many workgroups as possible.
const WORKGROUP: usize = 64;
const CPU_WORKGROUP: usize = 16;

/// With fewer outputs than this and more inputs for each, a workgroup computes one output.
const FEW_OUTPUTS: usize = 64;
const MANY_INPUTS: usize = 512;

/// How outputs are shared out. An output is the same sum of inputs, one after another, but for
/// [`ThreadMapping::Shared`], which depends on sizes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThreadMapping {
    /// A thread computes one output.
    One,
    /// A thread computes one output and loads four inputs at once, along the axis.
    Inputs(usize),
    /// A thread computes four outputs that are neighbours along the axis.
    Outputs(usize),
    /// A workgroup computes one output.
    Shared,
}

/// The shader of a kernel whose body computes along axes.
pub(super) fn reduce(kernel: &Kernel, op: &Reduction, abilities: &Abilities) -> Shader {
    let view = &kernel.reads[0].view;
    let axes = match op {
        Reduction::Sum(axes) => axes.clone(),
        one => vec![only_axis(one)],
    };
    let kept = part(view, |axis| !axes.contains(&axis), view.offset);
    let summed = part(view, |axis| axes.contains(&axis), 0);
    let (outputs, inputs) = (kept.elements(), summed.elements());
    let mapping = match op {
        Reduction::Sum(_) => mapping_of_sum(view, &axes, [outputs, inputs], abilities),
        _ => ThreadMapping::One,
    };
    let (size, threads) = match mapping {
        ThreadMapping::Shared => (WORKGROUP, outputs * WORKGROUP),
        ThreadMapping::Outputs(_) => (CPU_WORKGROUP, outputs / 4),
        _ if matches!(op, Reduction::ArgSort { .. }) => (WORKGROUP, outputs * inputs),
        _ => (if abilities.cpu { CPU_WORKGROUP } else { WORKGROUP }, outputs),
    };
    let grid = grid(threads, size);
    let neighbours = match mapping {
        ThreadMapping::Inputs(axis) | ThreadMapping::Outputs(axis) => Neighbours::Along(axis),
        _ => Neighbours::One,
    };
    let loads = Loads::new(kernel, abilities, &[neighbours]);
    let mut source = loads.head + &grid.wgsl();
    source += &format!("const OUTPUTS: u32 = {outputs}u;\nconst INPUTS: u32 = {inputs}u;\n");
    let place = format!("{} + {}", position(&kept, "o"), position(&summed, "n"));
    source += &format!(
        "alias Element = {};\n\
         fn load(o: u32, n: u32) -> Element {{ return r0_one_at({place}); }}\n",
        value_type(kernel.reads[0].element)
    );
    let written = &kernel.writes[0].shape;
    let (name, functions) = match op {
        Reduction::Sum(_) => ("sum", sum(mapping, &place)),
        &Reduction::CumulativeSum { axis, reverse } => {
            ("cumulative_sum", cumulative(written, axis, reverse, "a + b"))
        }
        &Reduction::CumulativeProduct(axis) => {
            ("cumulative_product", cumulative(written, axis, false, "a * b"))
        }
        &Reduction::CumulativeMax(axis) => {
            ("cumulative_max", cumulative(written, axis, false, &latest(">")))
        }
        &Reduction::CumulativeMin(axis) => {
            ("cumulative_min", cumulative(written, axis, false, &latest("<")))
        }
        &Reduction::ArgSort { axis, descending } => {
            let of = kernel.reads[0].element;
            ("argsort", order(written, axis, descending, of == Element::Int))
        }
        Reduction::ArgMax(_) => ("argmax", extreme(">")),
        Reduction::ArgMin(_) => ("argmin", extreme("<")),
    };
    source += &functions;
    let label = format!("{name} of {outputs} times {inputs}");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// About how often a thread goes round its loops, at most.
pub(super) fn rounds(kernel: &Kernel, op: &Reduction) -> usize {
    let shape = &kernel.reads[0].view.shape;
    match op {
        Reduction::Sum(axes) => {
            let inputs: usize = axes.iter().map(|&axis| shape[axis]).product();
            // Long sums of few outputs are shared out among the threads of a workgroup.
            let outputs = shape.iter().product::<usize>() / inputs.max(1);
            if outputs < FEW_OUTPUTS { inputs.div_ceil(WORKGROUP).max(MANY_INPUTS) } else { inputs }
        }
        one => shape[only_axis(one)],
    }
}

/// The axis of what has one.
fn only_axis(op: &Reduction) -> usize {
    match op {
        Reduction::Sum(axes) => panic!("a sum over {} axes", axes.len()),
        Reduction::CumulativeSum { axis, .. } | Reduction::ArgSort { axis, .. } => *axis,
        Reduction::CumulativeProduct(axis) => *axis,
        Reduction::CumulativeMax(axis) | Reduction::CumulativeMin(axis) => *axis,
        Reduction::ArgMax(axis) | Reduction::ArgMin(axis) => *axis,
    }
}

fn mapping_of_sum(
    view: &View,
    axes: &[usize],
    [outputs, inputs]: [usize; 2],
    abilities: &Abilities,
) -> ThreadMapping {
    if outputs < FEW_OUTPUTS && inputs > MANY_INPUTS {
        return ThreadMapping::Shared;
    }
    if !abilities.cpu {
        return ThreadMapping::One;
    }
    // The innermost axis of each kind, where four elements of it are together.
    let innermost = |summed: bool| {
        let of_kind = |&axis: &usize| view.shape[axis] > 1 && axes.contains(&axis) == summed;
        (0..view.shape.len())
            .rfind(of_kind)
            .filter(|&axis| view.strides[axis] == 1 && view.shape[axis].is_multiple_of(4))
    };
    let inputs = innermost(true).map(ThreadMapping::Inputs);
    innermost(false).map(ThreadMapping::Outputs).or(inputs).unwrap_or(ThreadMapping::One)
}

/// What a sum computes; `place` is where input `n` of output `o` is.
fn sum(mapping: ThreadMapping, place: &str) -> String {
    let (threads, compute) = match mapping {
        ThreadMapping::Shared => {
            return include_str!("../../../../shaders/reduce_shared.wgsl").into();
        }
        ThreadMapping::One => ("OUTPUTS", "sum(t)"),
        ThreadMapping::Inputs(_) => ("OUTPUTS", "sum_by_fours(t)"),
        ThreadMapping::Outputs(_) => ("OUTPUTS / 4u", "four_sums(4u * t)"),
    };
    let four = match mapping {
        ThreadMapping::One => "vec4<Element>()".into(),
        _ => format!("r0_four_at({place})"),
    };
    let functions = format!(
        "{INPUTS}fn four(o: u32, n: u32) -> vec4<Element> {{ return {four}; }}\n\
         fn compute(t: u32) {{ {compute}; }}\n"
    );
    by_threads(threads, &functions, include_str!("../../../../shaders/reduce.wgsl"))
}

/// What combines the elements along `axis` of what has this shape, `a` those so far and `b` the
/// next; a line starts at its end if it is reversed.
fn cumulative(shape: &[usize], axis: usize, reverse: bool, combined: &str) -> String {
    let functions = format!(
        "{INPUTS}{}const REVERSE: bool = {reverse};\n\
         fn combine(a: Element, b: Element) -> Element {{ return {combined}; }}\n",
        place(shape, axis)
    );
    by_threads("OUTPUTS", &functions, include_str!("../../../../shaders/cumulative.wgsl"))
}

/// The extreme of `a` and `b`, which is NaN once one is.
fn latest(sign: &str) -> String {
    format!("select(a, b, b {sign} a || !(b == b))")
}

/// `fn place(o, n)`: where element `n` along the axis of line `o` goes.
fn place(shape: &[usize], axis: usize) -> String {
    let written = View::dense(shape);
    let line = part(&written, |other| other != axis, 0);
    let place = format!("{} + n * {}u", position(&line, "o"), written.strides[axis]);
    format!("fn place(o: u32, n: u32) -> u32 {{ return {place}; }}\n")
}

/// What finds the order along `axis` of what has this shape.
fn order(shape: &[usize], axis: usize, descending: bool, whole: bool) -> String {
    let sign = if descending { ">" } else { "<" };
    // Floats have the order of their bits, but for the negative ones, which have the opposite.
    let key = if whole { "x" } else { "bits ^ ((bits >> 31u) & 0x7fffffff)" };
    let functions = format!(
        "{INPUTS}{}fn key(x: Element) -> i32 {{\n    let bits = bitcast<i32>(x);\n    \
         return {key};\n}}\n\
         fn beats(a: i32, b: i32) -> bool {{ return a {sign} b; }}\n",
        place(shape, axis)
    );
    by_threads("OUTPUTS * INPUTS", &functions, include_str!("../../../../shaders/order.wgsl"))
}

/// What finds the position of an extreme: `a` comes before `b` if it is `sign` it.
fn extreme(sign: &str) -> String {
    let functions = format!("fn beats(a: Element, b: Element) -> bool {{ return a {sign} b; }}\n");
    by_threads("OUTPUTS", &functions, include_str!("../../../../shaders/argument.wgsl"))
}

/// INPUTS, which compilers are not to know: unrolled loops take them longer than they are worth.
const INPUTS: &str = "fn inputs(o: u32) -> u32 { return INPUTS + (o >> 31u); }\n";

/// The functions and the body for so many threads, each of which computes by itself.
fn by_threads(threads: &str, functions: &str, body: &str) -> String {
    let entry = include_str!("../../../../shaders/threads.wgsl");
    format!("const THREADS: u32 = {threads};\n{functions}{body}{entry}")
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
