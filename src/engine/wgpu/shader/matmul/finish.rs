//! What follows a product of `shaders/matmul.wgsl`: `finish`, with fewer and faster accesses.

use std::fmt::Write as _;

use crate::engine::wgpu::kernel::{Argument, Chain, Kernel, Target};
use crate::engine::wgpu::shader::bindings::element;
use crate::engine::wgpu::shader::matmul::matrix::vectors;
use crate::graph::DType;

/// Most uniform buffers of a shader, on every adapter.
const MOST_UNIFORMS: usize = 12;

/// The bindings and functions of a kernel that has a product.
pub(super) struct Finish {
    /// The bindings.
    pub head: String,
    /// `finish` and, in the end, `finish_product`.
    pub text: String,
    /// As [`super::super::Shader`] has them.
    pub uniforms: Vec<u64>,
}

impl Finish {
    /// Reads beyond the factors as uniform buffers where they fit: from those, llvmpipe loads four
    /// elements faster than one from a storage buffer.
    pub fn read_uniforms(&mut self, kernel: &Kernel, chain: &Chain, most_bytes: u64) {
        let chained = |read: usize| {
            let arguments = chain.steps.iter().flat_map(|step| &step.arguments);
            arguments.chain(&chain.results).any(|&argument| argument == Argument::Read(read))
        };
        self.uniforms.resize(kernel.reads.len(), 0);
        for (n, read) in kernel.reads.iter().enumerate().take(MOST_UNIFORMS).skip(2) {
            let vectors = vectors(&read.view);
            let bytes = 16 * vectors as u64;
            if bytes > most_bytes || !chained(n) {
                continue;
            }
            let element = element(read.dtype);
            let plain = format!("var<storage, read> r{n}: array<{element}>;");
            let uniform = format!("var<uniform> r{n}: array<vec4<{element}>, {vectors}>;");
            self.head = self.head.replacen(&plain, &uniform, 1);
            self.text = self.text.replace(&format!("r{n}[r{n}_at(i)]"), &format!("r{n}_one(i)"));
            write!(
                self.head,
                "fn r{n}_one(i: u32) -> {element} {{\n    let p = r{n}_at(i);\n    \
                 let v = r{n}[p >> 2u];\n    let w = select(v.xy, v.zw, (p & 2u) != 0u);\n    \
                 return select(w.x, w.y, (p & 1u) != 0u);\n}}\n"
            )
            .expect("a string takes any text");
            self.uniforms[n] = bytes;
        }
    }

    /// `finish_product` of one element.
    pub fn alone(&mut self) {
        self.text += "fn finish_product(i: u32, product: f32) { finish(i, product); }\n";
    }

    /// `finish_product` of two neighbours, which are stored as one 64-bit integer where they are
    /// numbers of one buffer: that takes llvmpipe as long as one of them alone.
    pub fn pairs(&mut self, kernel: &Kernel) {
        if let Some(text) = paired(kernel, &self.text) {
            self.text = text;
            self.head = self.head.replacen("w0: array<f32>;", "w0: array<u64>;", 1);
        } else {
            self.text += "fn finish_product(i: u32, products: vec2<f32>) {\n    \
                          finish(i, products.x);\n    finish(i + 1u, products.y);\n}\n";
        }
    }
}

fn paired(kernel: &Kernel, finish: &str) -> Option<String> {
    let [write] = &kernel.writes[..] else { return None };
    if write.dtype != DType::F32 {
        return None;
    }
    let (old, stores, returns) = match write.target {
        Target::Sum(_) => ("w0[i / 2u]", "    w0[i] = w0[i] + ", "    return old + "),
        _ => ("0lu", "    w0[i] = ", "    return "),
    };
    let plain = "fn finish(i: u32, product: f32) {";
    let returning = "fn finished(i: u32, product: f32, old: f32) -> f32 {";
    let (steps, result) = finish.rsplit_once(stores)?;
    let steps = steps.replacen(plain, returning, 1);
    Some(format!(
        "{steps}{returns}{result}fn finish_product(i: u32, products: vec2<f32>) {{\n    \
         let old = {old};\n    \
         let x = bitcast<u32>(finished(i, products.x, low(old)));\n    \
         let y = bitcast<u32>(finished(i + 1u, products.y, high(old)));\n    \
         w0[i / 2u] = u64(x) | (u64(y) << 32u);\n}}\n"
    ))
}
