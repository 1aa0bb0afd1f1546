//! Kernels that take indices to WGSL. An index that is out of range is reported, not followed.

use super::Shader;
use super::bindings::{bindings, element, grid};
use crate::engine::wgpu::kernel::{Body, Kernel, Target};

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// Threads of a workgroup where each owns a line of the output: there may be few lines.
const LINE_WORKGROUP: usize = 16;

/// The shader of a kernel whose body takes indices.
pub(super) fn index(kernel: &Kernel) -> Shader {
    match kernel.body {
        Body::Embedding => embedding(kernel),
        Body::EmbeddingGradient => {
            let shape = &kernel.writes[0].shape;
            // As a scatter along the rows where every column has the same indices.
            let positions = kernel.reads[0].view.elements();
            let of = Scatter { lines: shape[1], length: positions, size: shape[0], inner: shape[1] };
            scatter(kernel, &of, &format!("i / {}u", shape[1]), "embedding_gradient")
        }
        Body::Gather(axis) => gather(kernel, axis),
        Body::ScatterAdd(axis) => {
            let shape = &kernel.reads[1].view.shape;
            let inner = shape[axis + 1..].iter().product();
            let outer: usize = shape[..axis].iter().product();
            let (length, size) = (shape[axis], kernel.writes[0].shape[axis]);
            let of = Scatter { lines: outer * inner, length, size, inner };
            scatter(kernel, &of, "i", "scatter_add")
        }
        ref body => unreachable!("no indices: {body:?}"),
    }
}

fn embedding(kernel: &Kernel) -> Shader {
    let table = &kernel.reads[0].view.shape;
    let (size, width) = (table[0], table[1]);
    let outputs: usize = kernel.writes[0].shape.iter().product();
    let grid = grid(outputs, WORKGROUP);
    let mut source = bindings(kernel) + &grid.wgsl() + &usable(size);
    source += &format!("const OUTPUTS: u32 = {outputs}u;\nconst WIDTH: u32 = {width}u;\n");
    source += "fn table(i: u32) -> f32 { return r0[r0_at(i)]; }\n";
    source += "fn index(n: u32) -> i32 { return r1[r1_at(n)]; }\n";
    source += include_str!("../../../../shaders/embedding.wgsl");
    let label = format!("embedding of {outputs} elements from {size} rows");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

fn gather(kernel: &Kernel, axis: usize) -> Shader {
    let (x, shape) = (&kernel.reads[0], &kernel.writes[0].shape);
    let outputs: usize = shape.iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let (length, size) = (shape[axis], x.view.shape[axis]);
    let grid = grid(outputs, WORKGROUP);
    let mut source = bindings(kernel) + &grid.wgsl() + &usable(size);
    source += &format!(
        "const OUTPUTS: u32 = {outputs}u;\nconst LENGTH: u32 = {length}u;\n\
         const INNER: u32 = {inner}u;\nalias Element = {};\n",
        element(x.dtype)
    );
    source += "fn x(i: u32) -> Element { return r0[r0_at(i)]; }\n";
    source += "fn index(i: u32) -> i32 { return r1[r1_at(i)]; }\n";
    source += include_str!("../../../../shaders/gather.wgsl");
    let label = format!("gather of {outputs} elements");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
}

/// What a scatter adds to.
struct Scatter {
    lines: usize,
    length: usize,
    size: usize,
    inner: usize,
}

/// `index` is the position among the indices of the element `i` of g.
fn scatter(kernel: &Kernel, of: &Scatter, index: &str, name: &str) -> Shader {
    let Scatter { lines, length, size, inner } = of;
    let grid = grid(*lines, LINE_WORKGROUP);
    let fresh = matches!(kernel.writes[0].target, Target::Value(_));
    let mut source = bindings(kernel) + &grid.wgsl() + &usable(*size);
    source += &format!(
        "const LINES: u32 = {lines}u;\nconst LENGTH: u32 = {length}u;\n\
         const INNER: u32 = {inner}u;\nconst FRESH: bool = {fresh};\n"
    );
    source += &format!("fn index(i: u32) -> i32 {{ let n = {index}; return r0[r0_at(n)]; }}\n");
    source += "fn g(i: u32) -> f32 { return r1[r1_at(i)]; }\n";
    source += include_str!("../../../../shaders/scatter.wgsl");
    let label = format!("{name} of {length} into {size}, {lines} times");
    Shader { label, source, workgroups: grid.workgroups, uniforms: Vec::new() }
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
