//! Kernels that take indices to WGSL. An index that is out of range is reported, not followed.

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid, value_type};
use crate::engine::wgpu::kernel::{Kernel, Target};
use crate::graph::Indexing;

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// Threads of a workgroup where each owns a line of the output: there may be few lines.
const LINE_WORKGROUP: usize = 16;

/// The shader of a kernel whose body takes indices.
pub(super) fn index(kernel: &Kernel, op: Indexing, abilities: &Abilities) -> Shader {
    match op {
        Indexing::Embedding => embedding(kernel, abilities),
        Indexing::EmbeddingGradient { .. } => {
            let shape = &kernel.writes[0].shape;
            // As a scatter along the rows where every column has the same indices.
            let positions = kernel.reads[0].view.elements();
            let of =
                Scatter { lines: shape[1], length: positions, size: shape[0], inner: shape[1] };
            let index = format!("i / {}u", shape[1]);
            scatter(kernel, abilities, &of, &index, "embedding_gradient")
        }
        Indexing::Gather(axis) => gather(kernel, abilities, axis),
        Indexing::ScatterAdd { axis, .. } => {
            let shape = &kernel.reads[1].view.shape;
            let inner = shape[axis + 1..].iter().product();
            let outer: usize = shape[..axis].iter().product();
            let (length, size) = (shape[axis], kernel.writes[0].shape[axis]);
            let of = Scatter { lines: outer * inner, length, size, inner };
            scatter(kernel, abilities, &of, "i", "scatter_add")
        }
    }
}

/// About how often a thread goes round its loops, at most.
pub(super) fn rounds(kernel: &Kernel, op: Indexing) -> usize {
    let written = &kernel.writes[0].shape;
    match op {
        Indexing::Embedding | Indexing::Gather(_) => 0,
        Indexing::EmbeddingGradient { .. } => kernel.reads[0].view.elements() + written[0],
        Indexing::ScatterAdd { axis, .. } => kernel.reads[1].view.shape[axis] + written[axis],
    }
}

fn embedding(kernel: &Kernel, abilities: &Abilities) -> Shader {
    let table = &kernel.reads[0].view.shape;
    let (size, width) = (table[0], table[1]);
    let outputs: usize = kernel.writes[0].shape.iter().product();
    // On a CPU a thread copies four elements of a row.
    let four = abilities.cpu && width.is_multiple_of(4);
    let (each, neighbours) = if four { (4, Neighbours::Along(1)) } else { (1, Neighbours::One) };
    let grid = grid(outputs / each, WORKGROUP);
    let loads = Loads::new(kernel, abilities, &[neighbours, Neighbours::One]);
    let mut source = loads.head + &grid.wgsl() + &usable(size);
    source += &format!(
        "const THREADS: u32 = {}u;\nconst EACH: u32 = {each}u;\nconst WIDTH: u32 = {width}u;\n",
        outputs / each
    );
    source += if four {
        "fn copy(i: u32, at: u32) {\n    let v = r0_four(at);\n    \
         w0_put(i, v.x);\n    w0_put(i + 1u, v.y);\n    \
         w0_put(i + 2u, v.z);\n    w0_put(i + 3u, v.w);\n}\n"
    } else {
        "fn copy(i: u32, at: u32) { w0_put(i, r0_one(at)); }\n"
    };
    source += "fn index(n: u32) -> i32 { return r1_one(n); }\n";
    source += include_str!("../../../../shaders/embedding.wgsl");
    let label = format!("embedding of {outputs} elements from {size} rows");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

fn gather(kernel: &Kernel, abilities: &Abilities, axis: usize) -> Shader {
    let (x, shape) = (&kernel.reads[0], &kernel.writes[0].shape);
    let outputs: usize = shape.iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let (length, size) = (shape[axis], x.view.shape[axis]);
    let grid = grid(outputs, WORKGROUP);
    let loads = Loads::new(kernel, abilities, &[Neighbours::One; 2]);
    let mut source = loads.head + &grid.wgsl() + &usable(size);
    source += &format!(
        "const OUTPUTS: u32 = {outputs}u;\nconst LENGTH: u32 = {length}u;\n\
         const INNER: u32 = {inner}u;\nalias Element = {};\n",
        value_type(x.element)
    );
    source += "fn x(i: u32) -> Element { return r0_one(i); }\n";
    source += "fn index(i: u32) -> i32 { return r1_one(i); }\n";
    source += include_str!("../../../../shaders/gather.wgsl");
    let label = format!("gather of {outputs} elements");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// What a scatter adds to.
struct Scatter {
    lines: usize,
    length: usize,
    size: usize,
    inner: usize,
}

/// `index` is the position among the indices of the element `i` of g.
fn scatter(
    kernel: &Kernel,
    abilities: &Abilities,
    of: &Scatter,
    index: &str,
    name: &str,
) -> Shader {
    let Scatter { lines, length, size, inner } = of;
    // On a CPU a thread owns four neighbouring lines where they share their indices.
    let last = kernel.reads[1].view.shape.len() - 1;
    let four = abilities.cpu && name == "embedding_gradient" && inner.is_multiple_of(4);
    let (each, neighbours) = if four { (4, Neighbours::Along(last)) } else { (1, Neighbours::One) };
    let grid = grid(*lines / each, LINE_WORKGROUP);
    let fresh = matches!(kernel.writes[0].target, Target::Value(_));
    let loads = Loads::new(kernel, abilities, &[Neighbours::One, neighbours]);
    let mut source = loads.head + &grid.wgsl() + &usable(*size);
    source += &format!(
        "const THREADS: u32 = {}u;\nconst EACH: u32 = {each}u;\nconst LENGTH: u32 = {length}u;\n\
         const INNER: u32 = {inner}u;\nconst FRESH: bool = {fresh};\n",
        lines / each
    );
    source += &format!("fn index(i: u32) -> i32 {{ let n = {index}; return r0_one(n); }}\n");
    source += if four {
        "fn add(to: u32, i: u32) {\n    let g = r1_four(i);\n    w0[to] = w0[to] + g.x;\n    \
         w0[to + 1u] = w0[to + 1u] + g.y;\n    w0[to + 2u] = w0[to + 2u] + g.z;\n    \
         w0[to + 3u] = w0[to + 3u] + g.w;\n}\n"
    } else {
        "fn add(to: u32, i: u32) { w0[to] = w0[to] + r1_one(i); }\n"
    };
    source += include_str!("../../../../shaders/scatter.wgsl");
    let label = format!("{name} of {length} into {size}, {lines} times");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// `fn usable(index)`: whether there is such a row; if not, the status says which was asked for.
fn usable(size: usize) -> String {
    format!(
        "const SIZE: u32 = {size}u;\n\
         fn usable(index: i32) -> bool {{\n    \
         if (index >= 0 && u32(index) < SIZE) {{\n        return true;\n    }}\n    \
         atomicMax(&status[0], select(u32(index) + 1u, 0xffffffffu, index < 0));\n    \
         return false;\n}}\n"
    )
}
