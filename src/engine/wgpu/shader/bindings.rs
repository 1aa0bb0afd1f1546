//! The head that every shader starts with: its buffers, where their elements are, its threads.

mod loads;

use std::fmt::Write as _;

pub(super) use self::loads::{Loads, Neighbours};
use super::MOST_WORKGROUPS;
use crate::engine::wgpu::kernel::{Kernel, View};
use crate::graph::DType;

/// The kernel's buffers in group 0, in order: `r0, r1, ..`, then `w0, w1, ..`, then `key` and
/// `status` where the kernel uses them; and for every read the function `rN_at(i: u32) -> u32`,
/// which is [`position`] of its view.
pub(super) fn bindings(kernel: &Kernel) -> String {
    let plain = |read: usize| {
        let dtype = kernel.reads[read].dtype;
        ("storage, read", format!("array<{}>", element(dtype)))
    };
    declared(kernel, plain)
}

/// As [`bindings`], with the address space and the type of every read.
fn declared(kernel: &Kernel, read: impl Fn(usize) -> (&'static str, String)) -> String {
    let reads = (0..kernel.reads.len()).map(|n| {
        let (space, array) = read(n);
        (space, format!("r{n}"), array)
    });
    let storage = "storage, read_write";
    let writes = kernel.writes.iter().enumerate();
    let array = |dtype| format!("array<{}>", element(dtype));
    let writes = writes.map(|(n, write)| (storage, format!("w{n}"), array(write.dtype)));
    let key = kernel.uses_key().then(|| ("storage, read", "key".into(), "array<u32>".into()));
    let status =
        kernel.uses_status().then(|| (storage, "status".into(), "array<atomic<u32>>".into()));
    let mut head = String::new();
    for (n, (space, name, array)) in reads.chain(writes).chain(key).chain(status).enumerate() {
        writeln!(head, "@group(0) @binding({n}) var<{space}> {name}: {array};")
            .expect("a string takes any text");
    }
    for (n, read) in kernel.reads.iter().enumerate() {
        head += &index_function(&format!("r{n}_at"), &read.view);
    }
    head
}

/// Elements in buffers: a Bool is 0 or 1.
pub(super) fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::Int => "i32",
        DType::Bool => "u32",
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
