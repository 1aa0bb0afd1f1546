//! Softmax, layer norm and their gradients to WGSL.

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid};
use crate::engine::wgpu::kernel::Kernel;
use crate::graph::RowWise;

/// Threads of a workgroup where a thread computes a row: few, so that few rows keep several
/// workgroups busy.
const ROW_WORKGROUP: usize = 16;

/// Threads of a workgroup where a thread computes four columns, on a GPU; and on a CPU, where it is
/// the columns of all threads of a workgroup that make up for its statistics of all rows.
const COLUMN_WORKGROUP: usize = 64;
const CPU_COLUMN_WORKGROUP: usize = 16;

/// Most rows whose statistics a workgroup has at once.
const MOST_STATISTICS: usize = 256;

/// Vectors of a row that a thread on a CPU keeps rather than load again, at most, where that is
/// slow; and elements from which on that makes up for a compilation that takes longer.
const MOST_KEPT: usize = 16;
const LEAST_KEPT: usize = 8192;

/// The shader of a kernel whose body is one of the softmax or layer norm family.
pub(super) fn rows(kernel: &Kernel, op: RowWise, abilities: &Abilities) -> Shader {
    let shape = &kernel.reads[0].view.shape;
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>() / columns;
    let quads = columns.div_ceil(4);
    let neighbours = kernel.reads.iter().map(|read| match read.view.shape.len() {
        0 => Neighbours::Flat,
        rank => Neighbours::Along(rank - 1),
    });
    let loads = Loads::new(kernel, abilities, &neighbours.collect::<Vec<_>>());
    let mut source = loads.head;
    source += &format!(
        "const ROWS: u32 = {rows}u;\nconst COLUMNS: u32 = {columns}u;\n\
         const QUADS: u32 = {quads}u;\n"
    );
    source += include_str!("../../../../shaders/quads.wgsl");
    let grid = match op {
        RowWise::LayerNormGradientGamma(_) => {
            let size = if abilities.cpu { CPU_COLUMN_WORKGROUP } else { COLUMN_WORKGROUP };
            grid(quads, size.max((quads / 2).next_power_of_two().min(COLUMN_WORKGROUP)))
        }
        _ => grid(rows, ROW_WORKGROUP),
    };
    source += &grid.wgsl();
    let kept = abilities.cpu
        && is_softmax(op)
        && quads <= MOST_KEPT
        && rows * columns >= LEAST_KEPT
        && loads.uniforms.contains(&0);
    source += &bound(kept);
    let name = match op {
        RowWise::Softmax => softmax(&mut source, "softmax", 1, kept),
        RowWise::SoftmaxGradient => softmax(&mut source, "softmax_gradient", 2, kept),
        RowWise::LogSoftmax => softmax(&mut source, "log_softmax", 1, kept),
        RowWise::LogSoftmaxGradient => softmax(&mut source, "log_softmax_gradient", 2, kept),
        RowWise::LayerNorm(epsilon) => {
            let names = &["x", "gamma", "beta"][..kernel.reads.len()];
            norm(&mut source, "layer_norm", epsilon, names)
        }
        RowWise::LayerNormGradient(epsilon) => {
            norm(&mut source, "layer_norm_gradient", epsilon, &["x", "gamma", "g"])
        }
        RowWise::LayerNormGradientGamma(epsilon) => {
            source += &format!("const BLOCK: u32 = {}u;\n", rows.min(MOST_STATISTICS));
            norm_gamma(&mut source, epsilon)
        }
    };
    let label = format!("{name} of {rows} rows of {columns}");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// About how often a thread goes round its loops, at most.
pub(super) fn rounds(kernel: &Kernel, op: RowWise) -> usize {
    let view = &kernel.reads[0].view;
    let columns = view.columns();
    match op {
        // Statistics of a sixteenth of the rows in two loops over vectors of four, then all rows.
        RowWise::LayerNormGradientGamma(_) => {
            let rows = view.elements() / columns;
            rows.div_ceil(16) * columns / 2 + rows
        }
        // Up to four loops over vectors of four.
        _ => columns,
    }
}

fn softmax<'a>(source: &mut String, name: &'a str, reads: usize, kept: bool) -> &'a str {
    *source += include_str!("../../../../shaders/math.wgsl");
    let names = &["first", "second"][..reads];
    if kept {
        *source += &kept_rows(names);
    } else {
        *source += &named(names);
        *source += "fn begin(row: u32) {}\n";
    }
    if reads < 2 {
        *source += &absent("second");
    }
    *source += include_str!("../../../../shaders/softmax.wgsl");
    *source += &format!("fn compute(row: u32) {{ {name}(row); }}\n");
    name
}

fn norm<'a>(source: &mut String, name: &'a str, epsilon: f64, reads: &[&str]) -> &'a str {
    *source += &constant(epsilon);
    *source += &named(reads);
    for name in ["beta", "g"].iter().filter(|name| !reads.contains(name)) {
        *source += &absent(name);
    }
    *source += include_str!("../../../../shaders/statistics.wgsl");
    *source += include_str!("../../../../shaders/layer_norm.wgsl");
    *source += &format!("fn compute(row: u32) {{ {name}(row); }}\n");
    name
}

fn norm_gamma(source: &mut String, epsilon: f64) -> &'static str {
    *source += &(constant(epsilon) + &named(&["x", "g"]));
    *source += include_str!("../../../../shaders/statistics.wgsl");
    *source += include_str!("../../../../shaders/layer_norm_gamma.wgsl");
    "layer_norm_gamma"
}

/// `fn name(row, q)` for every read: four elements of a row.
fn named(names: &[&str]) -> String {
    let function = |(n, name): (usize, &&str)| {
        format!(
            "fn {name}(row: u32, q: u32) -> vec4<f32> {{\n    \
             return r{n}_four(row * COLUMNS + 4u * q);\n}}\n"
        )
    };
    names.iter().enumerate().map(function).collect()
}

/// As [`named`], after `fn begin(row)` has loaded the row.
fn kept_rows(names: &[&str]) -> String {
    let mut text = String::new();
    let mut begin = String::new();
    for (n, name) in names.iter().enumerate() {
        text += &format!(
            "var<private> {name}_row: array<vec4<f32>, QUADS>;\n\
             fn {name}(row: u32, q: u32) -> vec4<f32> {{ return {name}_row[q]; }}\n"
        );
        begin += &format!("        {name}_row[q] = r{n}_four(row * COLUMNS + 4u * q);\n");
    }
    let head = "fn begin(row: u32) {\n    for (var q = 0u; q < QUADS; q += 1u) {\n";
    text + head + &begin + "    }\n}\n"
}

/// What the body names but does not call.
fn absent(name: &str) -> String {
    format!("fn {name}(row: u32, q: u32) -> vec4<f32> {{ return vec4(0.0); }}\n")
}

/// `fn quads(row)`: QUADS, which compilers are to know only where rows are kept, which takes
/// unrolled loops. Elsewhere those take them longer than they are worth.
fn bound(known: bool) -> String {
    let more = if known { "" } else { " + (row >> 31u)" };
    format!("fn quads(row: u32) -> u32 {{ return QUADS{more}; }}\n")
}

fn is_softmax(op: RowWise) -> bool {
    match op {
        RowWise::Softmax | RowWise::SoftmaxGradient => true,
        RowWise::LogSoftmax | RowWise::LogSoftmaxGradient => true,
        RowWise::LayerNorm(_) | RowWise::LayerNormGradient(_) => false,
        RowWise::LayerNormGradientGamma(_) => false,
    }
}

fn constant(epsilon: f64) -> String {
    format!("const EPSILON: f32 = {:?}f;\n", epsilon as f32)
}
