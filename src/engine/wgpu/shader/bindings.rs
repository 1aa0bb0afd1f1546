//! The head that every shader starts with: its buffers, where their elements are, its threads.

mod loads;

use std::fmt::Write as _;

pub(super) use self::loads::{Factor, Loads, Neighbours};
use super::MOST_WORKGROUPS;
use crate::engine::wgpu::element::Element;
use crate::engine::wgpu::kernel::{Kernel, Target, View, Write};

/// A variable's address space and the type of its buffer.
type Variable = (&'static str, String);

const STORED: &str = "storage, read_write";

/// The kernel's buffers in group 0, in order: `r0, r1, ..`, as `read` says, then `w0, w1, ..`, then
/// `key` and `status` where the kernel uses them; for every read the function
/// `rN_at(i: u32) -> u32`, which is [`position`] of its view; and for every write
/// `wN_put(i, value)`, which stores an element or, where it goes to a sum, adds it. With `in_twos`
/// there is one write, and `w0_put_two(i, two)` takes its elements i and i + 1, for even i.
fn declared(kernel: &Kernel, in_twos: bool, read: impl Fn(usize) -> Variable) -> String {
    let reads = (0..kernel.reads.len()).map(|n| (format!("r{n}"), read(n)));
    let writes = kernel.writes.iter().enumerate();
    let writes = writes.map(|(n, write)| (format!("w{n}"), written(write, in_twos)));
    let key = ("storage, read", "array<u32>".to_string());
    let key = kernel.uses_key().then(|| ("key".to_string(), key));
    let status = (STORED, "array<atomic<u32>>".to_string());
    let status = kernel.uses_status().then(|| ("status".to_string(), status));
    let mut head = String::new();
    if kernel.writes.iter().any(|write| write.element == Element::F16) {
        head += "enable f16;\n";
    }
    for (n, (name, (space, array))) in reads.chain(writes).chain(key).chain(status).enumerate() {
        writeln!(head, "@group(0) @binding({n}) var<{space}> {name}: {array};")
            .expect("a string takes any text");
    }
    for (n, read) in kernel.reads.iter().enumerate() {
        head += &index_function(&format!("r{n}_at"), &read.view);
    }
    for (n, write) in kernel.writes.iter().enumerate() {
        head += &if in_twos { put_two(write) } else { put(n, write) };
    }
    head
}

/// The variable of a write. Two neighbours are one 64-bit integer, or two halves.
fn written(write: &Write, in_twos: bool) -> Variable {
    let array = match (write.element, in_twos) {
        (Element::F16, true) => "array<vec2<f16>>".to_string(),
        (Element::F16, false) => "array<f16>".to_string(),
        (_, true) => "array<u64>".to_string(),
        (element, false) => format!("array<{}>", value_type(element)),
    };
    (STORED, array)
}

/// All halves are rounded by the same conversion: to nearest even on all drivers that are known,
/// though WGSL leaves it to them.
fn put(n: usize, write: &Write) -> String {
    let value = match (write.target, write.element) {
        (Target::Sum(_), _) => format!("w{n}[i] + value"),
        (_, Element::F16) => "f16(value)".to_string(),
        _ => "value".to_string(),
    };
    let of = value_type(write.element);
    format!("fn w{n}_put(i: u32, value: {of}) {{ w{n}[i] = {value}; }}\n")
}

fn put_two(write: &Write) -> String {
    let store = match (write.element, write.target) {
        (Element::F16, _) => "w0[i / 2u] = vec2<f16>(two);",
        (_, Target::Value(_)) => {
            "let bits = bitcast<vec2<u32>>(two);\n    \
             w0[i / 2u] = u64(bits.x) | (u64(bits.y) << 32u);"
        }
        (_, Target::Sum(_)) => {
            "let old = w0[i / 2u];\n    \
             let sums = bitcast<vec2<f32>>(vec2(u32(old), u32(old >> 32u))) + two;\n    \
             let bits = bitcast<vec2<u32>>(sums);\n    \
             w0[i / 2u] = u64(bits.x) | (u64(bits.y) << 32u);"
        }
    };
    format!("fn w0_put_two(i: u32, two: vec2<f32>) {{\n    {store}\n}}\n")
}

/// What an element is once it is loaded: a Bool is 0 or 1.
pub(super) fn value_type(element: Element) -> &'static str {
    match element {
        Element::F32 | Element::F16 => "f32",
        Element::Int => "i32",
        Element::Bool => "u32",
    }
}

/// `fn name(i: u32) -> u32`, which is [`position`] in the view.
pub(super) fn index_function(name: &str, view: &View) -> String {
    format!("fn {name}(i: u32) -> u32 {{ return {}; }}\n", position(view, "i"))
}

/// Position in the buffer, in elements, of the view's element with the row-major index `i`: a
/// WGSL expression in parentheses, or one word. `i` is a variable below the number of elements.
pub(super) fn position(view: &View, i: &str) -> String {
    let dimensions = merged(view);
    let mut inner: usize = dimensions.iter().map(|&(size, _)| size).product();
    let mut terms = Vec::new();
    for (axis, &(size, stride)) in dimensions.iter().enumerate() {
        inner /= size;
        if stride == 0 {
            continue;
        }
        let quotient = divided(i, inner);
        let index = if axis == 0 { quotient } else { remainder(&quotient, size) };
        terms.push(if stride == 1 { index } else { format!("{index} * {stride}u") });
    }
    if view.offset > 0 || terms.is_empty() {
        terms.push(format!("{}u", view.offset));
    }
    match &terms[..] {
        [one] if !one.contains(' ') => one.clone(),
        _ => format!("({})", terms.join(" + ")),
    }
}

/// Workgroups that are at least as many threads, in at most two dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grid {
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// Threads of a workgroup.
    pub size: usize,
}

/// The grid of at least `threads` threads in workgroups of `size`.
pub(super) fn grid(threads: usize, size: usize) -> Grid {
    let total = threads.div_ceil(size).max(1);
    let rows = total.div_ceil(MOST_WORKGROUPS);
    let columns = total.div_ceil(rows);
    assert!(rows <= MOST_WORKGROUPS, "{threads} threads are more than a dispatch has");
    Grid { workgroups: [columns as u32, rows as u32, 1], size }
}

impl Grid {
    /// WGSL of what turns the built-ins `workgroup_id` and `local_invocation_index` into linear
    /// positions: the const `WORKGROUP` (threads of a workgroup), the functions
    /// `workgroup_index(workgroup: vec3<u32>) -> u32` and
    /// `thread_index(workgroup: vec3<u32>, local: u32) -> u32`. Both go beyond what was asked for
    /// where the grid has more.
    pub fn wgsl(&self) -> String {
        let [columns, rows, _] = self.workgroups;
        let group = match rows {
            1 => "workgroup.x".to_string(),
            _ => format!("(workgroup.y * {columns}u + workgroup.x)"),
        };
        format!(
            "const WORKGROUP: u32 = {}u;\n\
             fn workgroup_index(workgroup: vec3<u32>) -> u32 {{ return {group}; }}\n\
             fn thread_index(workgroup: vec3<u32>, local: u32) -> u32 {{\n    \
             return workgroup_index(workgroup) * WORKGROUP + local;\n}}\n",
            self.size
        )
    }
}

/// Size and stride of the dimensions, outermost first, where neighbours that are one walk through
/// memory are one dimension; none of size 1.
fn merged(view: &View) -> Vec<(usize, usize)> {
    let mut dimensions: Vec<(usize, usize)> = Vec::new();
    for (&size, &stride) in view.shape.iter().zip(&view.strides) {
        match dimensions.last_mut() {
            _ if size == 1 => {}
            Some(outer) if outer.1 == size * stride => *outer = (outer.0 * size, stride),
            _ => dimensions.push((size, stride)),
        }
    }
    dimensions
}

fn divided(i: &str, by: usize) -> String {
    match by {
        1 => i.into(),
        _ if by.is_power_of_two() => format!("({i} >> {}u)", by.trailing_zeros()),
        _ => format!("({i} / {by}u)"),
    }
}

fn remainder(i: &str, of: usize) -> String {
    if of.is_power_of_two() { format!("({i} & {}u)", of - 1) } else { format!("({i} % {of}u)") }
}
