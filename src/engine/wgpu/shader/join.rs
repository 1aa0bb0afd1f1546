//! Concatenation and padding to WGSL.

use std::fmt::Write as _;

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid, value_type};
use crate::engine::wgpu::kernel::Kernel;
use crate::graph::Join;

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// The shader of a kernel whose body joins or pads.
pub(super) fn join(kernel: &Kernel, op: Join, abilities: &Abilities) -> Shader {
    let (axis, mut start, name) = match op {
        Join::Concatenate(axis) => (axis, 0, "concatenate"),
        Join::Pad { axis, before, .. } => (axis, before, "pad"),
    };
    let write = &kernel.writes[0];
    let outputs: usize = write.shape.iter().product();
    let inner: usize = write.shape[axis + 1..].iter().product();
    let grid = grid(outputs, WORKGROUP);
    let loads = Loads::new(kernel, abilities, &vec![Neighbours::One; kernel.reads.len()]);
    let mut source = loads.head + &grid.wgsl();
    source += &format!(
        "const OUTPUTS: u32 = {outputs}u;\nconst LENGTH: u32 = {}u;\n\
         const INNER: u32 = {inner}u;\nalias Element = {};\n",
        write.shape[axis],
        value_type(write.element)
    );
    source += "fn part(outer: u32, at: u32, inner: u32) -> Element {\n";
    for (n, read) in kernel.reads.iter().enumerate() {
        let size = read.view.shape[axis];
        let end = start + size;
        writeln!(
            source,
            "    if (at >= {start}u && at < {end}u) {{\n        \
             return r{n}_one((outer * {size}u + at - {start}u) * INNER + inner);\n    }}"
        )
        .expect("a string takes any text");
        start = end;
    }
    source += "    return Element();\n}\n";
    source += include_str!("../../../../shaders/join.wgsl");
    let label = format!("{name} of {outputs} elements");
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}
