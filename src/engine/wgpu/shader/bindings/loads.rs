//! Loads of elements, one or four neighbours at once, in the fastest way that the device has.

use super::{Variable, declared, merged, value_type};
use crate::engine::wgpu::element::Element;
use crate::engine::wgpu::kernel::{Kernel, Operand, View};
use crate::engine::wgpu::shader::abilities::Abilities;

/// Which four elements of a read are loaded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::wgpu::shader) enum Neighbours {
    /// None: elements are loaded one by one.
    One,
    /// Elements i to i + 3 in row-major order, for i that are multiples of 4.
    Flat,
    /// Four along an axis, from one whose position there is a multiple of 4. Those beyond the
    /// axis's end are anything.
    Along(usize),
}

/// Most uniform buffers of a shader, on every adapter.
const MOST_UNIFORMS: usize = 12;

/// How a read is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Single elements, or words of two halves.
    Plain,
    /// Four elements together: aligned ones only.
    Vectors,
    /// 64-bit integers of two elements or four halves each, which a thread on a CPU loads like
    /// two elements.
    Wide,
    /// That many vectors of 16 bytes in a uniform buffer.
    Uniform(usize),
}

/// How a product binds a factor that it loads in its own way.
#[derive(Debug)]
pub(in crate::engine::wgpu::shader) struct Factor {
    /// The variable's address space.
    pub space: &'static str,
    /// The type of the buffer.
    pub array: String,
    /// As [`Loads::uniforms`] has them.
    pub uniform_bytes: u64,
}

/// The bindings of a kernel, and functions that load from its reads.
#[derive(Debug)]
pub(in crate::engine::wgpu::shader) struct Loads {
    /// What [`declared`] has; and for every read that is followed by `element` in `vec4<element>`:
    /// `rN_one(i)`, the element with the row-major index `i`; `rN_one_at(p)`, the one at a position
    /// in the buffer; and where four are loaded at once, `rN_four(i)` and `rN_four_at(p)`, the four
    /// from that one on. Halves are widened.
    pub head: String,
    /// As [`super::super::Shader`] has them.
    pub uniforms: Vec<u64>,
}

impl Loads {
    /// Loads from each read as `neighbours` says.
    pub fn new(kernel: &Kernel, abilities: &Abilities, neighbours: &[Neighbours]) -> Self {
        let accesses = accesses(kernel, abilities, neighbours);
        let variable = |n: usize| declaration(kernel.reads[n].element, accesses[n]);
        let mut head = declared(kernel, false, variable);
        for (n, read) in kernel.reads.iter().enumerate() {
            let (four, access) = (neighbours[n], accesses[n]);
            head += &one(n, read, access);
            if let Some(stride) = stride(&read.view, four) {
                head += &four_at(n, read, access, stride, is_aligned(&read.view, four));
            } else if four != Neighbours::One {
                head += &four_apart(n, read);
            }
        }
        Self { head, uniforms: accesses.iter().map(Access::uniform_bytes).collect() }
    }

    /// Loads of single elements for a product and what follows it. Reads that fit are uniform
    /// buffers: from those, llvmpipe loads four elements faster than one from a storage buffer. A
    /// factor that the product loads in its own way has no functions. Results are stored `in_twos`
    /// or one by one, as [`declared`] has it.
    pub fn of_product(
        kernel: &Kernel,
        uniform_bytes: u64,
        factors: [Option<Factor>; 2],
        in_twos: bool,
    ) -> Self {
        let abilities = Abilities { cpu: true, subgroup: None, wide: false, uniform_bytes };
        let neighbours = vec![Neighbours::One; kernel.reads.len()];
        let mut accesses = accesses(kernel, &abilities, &neighbours);
        accesses[..2].fill(Access::Plain);
        let factor = |n: usize| factors.get(n).and_then(Option::as_ref);
        let mut head = declared(kernel, in_twos, |n| match factor(n) {
            Some(of) => (of.space, of.array.clone()),
            None => declaration(kernel.reads[n].element, accesses[n]),
        });
        for (n, read) in kernel.reads.iter().enumerate().filter(|&(n, _)| factor(n).is_none()) {
            head += &one(n, read, accesses[n]);
        }
        let bytes = |(n, access): (usize, &Access)| match factor(n) {
            Some(of) => of.uniform_bytes,
            None => access.uniform_bytes(),
        };
        Self { head, uniforms: accesses.iter().enumerate().map(bytes).collect() }
    }
}

/// How every read is bound, with no more uniform buffers than a shader may have.
fn accesses(kernel: &Kernel, abilities: &Abilities, neighbours: &[Neighbours]) -> Vec<Access> {
    let mut uniforms = 0;
    let reads = kernel.reads.iter().zip(neighbours);
    let access = reads.map(|(read, &four)| {
        let uniform_bytes = if uniforms < MOST_UNIFORMS { abilities.uniform_bytes } else { 0 };
        let access = access(read, four, &Abilities { uniform_bytes, ..*abilities });
        uniforms += usize::from(matches!(access, Access::Uniform(_)));
        access
    });
    access.collect()
}

impl Access {
    /// Bytes of a uniform buffer; 0 of another.
    fn uniform_bytes(&self) -> u64 {
        match self {
            Access::Uniform(vectors) => 16 * *vectors as u64,
            _ => 0,
        }
    }
}

/// Elements from the buffer's start to behind the view's last one.
fn span(view: &View) -> usize {
    let steps = view.shape.iter().zip(&view.strides);
    view.offset + steps.map(|(&size, &stride)| (size - 1) * stride).sum::<usize>() + 1
}

fn access(read: &Operand, neighbours: Neighbours, abilities: &Abilities) -> Access {
    let span = span(&read.view);
    let vectors = (span as u64 * read.element.bytes()).div_ceil(16);
    let whole = is_aligned(&read.view, neighbours) && span.is_multiple_of(4);
    match abilities.cpu {
        true if 16 * vectors <= abilities.uniform_bytes => Access::Uniform(vectors as usize),
        true if whole && abilities.wide => Access::Wide,
        false if whole => Access::Vectors,
        _ => Access::Plain,
    }
}

/// Distance between the four elements; none where it is not always the same.
fn stride(view: &View, neighbours: Neighbours) -> Option<usize> {
    match neighbours {
        Neighbours::One => None,
        Neighbours::Along(axis) if view.shape[axis] == 1 => Some(0),
        Neighbours::Along(axis) => Some(view.strides[axis]),
        Neighbours::Flat => match merged(view).last() {
            None => Some(0),
            Some(&(size, stride)) => size.is_multiple_of(4).then_some(stride),
        },
    }
}

/// Whether the four elements are next to each other and start at multiples of 4.
fn is_aligned(view: &View, neighbours: Neighbours) -> bool {
    let others: Vec<usize> = match neighbours {
        Neighbours::Along(axis) => {
            let others = (0..view.shape.len()).filter(|&other| other != axis);
            others.filter(|&other| view.shape[other] > 1).map(|other| view.strides[other]).collect()
        }
        _ => merged(view).iter().rev().skip(1).map(|&(_, stride)| stride).collect(),
    };
    stride(view, neighbours) == Some(1)
        && view.offset.is_multiple_of(4)
        && others.iter().all(|stride| stride.is_multiple_of(4))
}

fn declaration(element: Element, access: Access) -> Variable {
    let (single, four, wide) = match element {
        Element::F16 => ("u32", "vec2<u32>".to_string(), "u64"),
        _ => (value_type(element), format!("vec4<{}>", value_type(element)), "vec2<u64>"),
    };
    // A uniform buffer's elements are 16 bytes apart.
    let sixteen = if element == Element::F16 { "vec4<u32>" } else { &four };
    match access {
        Access::Plain => ("storage, read", format!("array<{single}>")),
        Access::Vectors => ("storage, read", format!("array<{four}>")),
        Access::Wide => ("storage, read", format!("array<{wide}>")),
        Access::Uniform(vectors) => ("uniform", format!("array<{sixteen}, {vectors}>")),
    }
}

/// A vector has no component that is computed: compilers for CPUs go through memory for that.
fn one(n: usize, read: &Operand, access: Access) -> String {
    let element = value_type(read.element);
    let value = match access {
        _ if read.element == Element::F16 => one_half(n, access),
        Access::Plain => format!("return r{n}[p];"),
        Access::Wide => format!(
            "let v = r{n}[p >> 2u];\n    let w = select(v.x, v.y, (p & 2u) != 0u);\n    \
             return bitcast<{element}>(u32(select(w, w >> 32u, (p & 1u) != 0u)));"
        ),
        Access::Vectors | Access::Uniform(_) => format!(
            "let v = r{n}[p >> 2u];\n    let w = select(v.xy, v.zw, (p & 2u) != 0u);\n    \
             return select(w.x, w.y, (p & 1u) != 0u);"
        ),
    };
    format!(
        "fn r{n}_one_at(p: u32) -> {element} {{\n    {value}\n}}\n\
         fn r{n}_one(i: u32) -> {element} {{ return r{n}_one_at(r{n}_at(i)); }}\n"
    )
}

/// As [`one`]. All halves are widened by the same function, so that they are the same numbers
/// however they are loaded, also where a driver takes the smallest of them for 0.
fn one_half(n: usize, access: Access) -> String {
    let word = match access {
        Access::Plain => format!("let word = r{n}[p >> 1u];"),
        _ => format!(
            "let four = {};\n    let word = select(four.x, four.y, (p & 2u) != 0u);",
            four_halves(n, access)
        ),
    };
    format!(
        "{word}\n    let two = unpack2x16float(word);\n    \
         return select(two.x, two.y, (p & 1u) != 0u);"
    )
}

/// The two words of four aligned halves, position `p` among them.
fn four_halves(n: usize, access: Access) -> String {
    match access {
        Access::Plain => unreachable!("halves that are loaded by twos"),
        Access::Vectors => format!("r{n}[p >> 2u]"),
        Access::Wide => format!("vec2(u32(r{n}[p >> 2u]), u32(r{n}[p >> 2u] >> 32u))"),
        Access::Uniform(_) => {
            format!("select(r{n}[p >> 3u].xy, r{n}[p >> 3u].zw, (p & 4u) != 0u)")
        }
    }
}

fn four_at(n: usize, read: &Operand, access: Access, stride: usize, aligned: bool) -> String {
    let element = value_type(read.element);
    let half = read.element == Element::F16;
    let last = span(&read.view) - 1;
    let value = match (access, stride) {
        (_, 0) => format!("return vec4(r{n}_one_at(p));"),
        _ if half && aligned && access != Access::Plain => format!(
            "let four = {};\n    \
             return vec4(unpack2x16float(four.x), unpack2x16float(four.y));",
            four_halves(n, access)
        ),
        (Access::Vectors | Access::Uniform(_), _) if aligned => format!("return r{n}[p >> 2u];"),
        (Access::Wide, _) if aligned => format!(
            "let v = r{n}[p >> 2u];\n    \
             return bitcast<vec4<{element}>>(vec4(u32(v.x), u32(v.x >> 32u), \
             u32(v.y), u32(v.y >> 32u)));"
        ),
        (Access::Uniform(vectors), 1) if !half => format!(
            "let a = r{n}[p >> 2u];\n    let b = r{n}[min((p >> 2u) + 1u, {}u)];\n    \
             let two = (p & 2u) != 0u;\n    let c = select(a, vec4(a.zw, b.xy), two);\n    \
             let d = select(b.x, b.z, two);\n    \
             return select(c, vec4(c.yzw, d), (p & 1u) != 0u);",
            vectors - 1
        ),
        _ => {
            let next = |k| format!("r{n}_one_at(min(p + {}u, {last}u))", k * stride);
            format!("return vec4({}, {}, {}, {});", next(0), next(1), next(2), next(3))
        }
    };
    format!(
        "fn r{n}_four_at(p: u32) -> vec4<{element}> {{\n    {value}\n}}\n\
         fn r{n}_four(i: u32) -> vec4<{element}> {{ return r{n}_four_at(r{n}_at(i)); }}\n"
    )
}

fn four_apart(n: usize, read: &Operand) -> String {
    let element = value_type(read.element);
    format!(
        "fn r{n}_four(i: u32) -> vec4<{element}> {{\n    \
         return vec4(r{n}_one(i), r{n}_one(i + 1u), r{n}_one(i + 2u), r{n}_one(i + 3u));\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgpu::kernel::Body;
    use crate::graph::Join;

    const CPU: Abilities =
        Abilities { cpu: true, subgroup: None, wide: true, uniform_bytes: 65_536 };
    const GPU: Abilities = Abilities { cpu: false, uniform_bytes: 0, ..CPU };

    fn operand(element: Element, view: View) -> Operand {
        Operand { node: crate::graph::NodeId(0), view, element }
    }

    #[test]
    fn reads_are_bound_as_their_size_and_strides_allow() {
        let along = Neighbours::Along(1);
        let access = |view: &View, four, abilities: &Abilities| {
            access(&operand(Element::F32, view.clone()), four, abilities)
        };
        let small = View::dense(&[3, 7]);
        assert_eq!(access(&small, along, &CPU), Access::Uniform(6));
        let full = View::dense(&[128, 128]);
        assert_eq!(access(&full, along, &CPU), Access::Uniform(4096));
        assert_eq!(access(&full, along, &GPU), Access::Vectors);
        assert_eq!(access(&full, Neighbours::One, &GPU), Access::Plain);
        let large = View::dense(&[256, 128]);
        assert_eq!(access(&large, along, &CPU), Access::Wide);
        assert_eq!(access(&large, along, &Abilities { wide: false, ..CPU }), Access::Plain);
        let moved = View { offset: 2, ..large.clone() };
        assert_eq!(access(&moved, along, &CPU), Access::Plain);
        let swapped = View { shape: vec![128, 256], strides: vec![1, 128], offset: 0 };
        assert_eq!(access(&swapped, along, &CPU), Access::Plain);
        assert_eq!(access(&swapped, Neighbours::Along(0), &CPU), Access::Wide);
        let odd = View::dense(&[512, 95]);
        assert_eq!(access(&odd, along, &CPU), Access::Plain);
        assert_eq!(access(&odd, Neighbours::Flat, &CPU), Access::Wide);
    }

    #[test]
    fn twice_as_many_halves_fit_into_a_uniform_buffer() {
        let access = |rows| {
            access(&operand(Element::F16, View::dense(&[rows, 128])), Neighbours::Along(1), &CPU)
        };
        assert_eq!(access(256), Access::Uniform(4096));
        assert_eq!(access(257), Access::Wide);
    }

    #[test]
    fn a_shader_has_no_more_uniform_buffers_than_every_adapter_allows() {
        let reads = vec![operand(Element::F32, View::dense(&[4])); MOST_UNIFORMS + 2];
        let neighbours = vec![Neighbours::One; reads.len()];
        let kernel = Kernel { reads, writes: Vec::new(), body: Body::Join(Join::Concatenate(0)) };
        let uniforms = Loads::new(&kernel, &CPU, &neighbours).uniforms;
        assert_eq!(uniforms.iter().filter(|&&bytes| bytes == 16).count(), MOST_UNIFORMS);
        assert_eq!(uniforms.iter().filter(|&&bytes| bytes == 0).count(), 2);
    }
}
