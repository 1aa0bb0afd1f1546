//! Elementwise steps to WGSL: kernels of their own, and what a product does with its elements.

use std::fmt::Write as _;

use super::Shader;
use super::abilities::Abilities;
use super::bindings::{Loads, Neighbours, grid, value_type};
use crate::engine::wgpu::element::Element;
use crate::engine::wgpu::kernel::{Argument, Chain, Kernel, Operand, Step, Write};
use crate::graph::{
    Activation, Binary, Bitwise, Comparison, DType, Distribution, Elementwise, Logical, Scalar,
    Unary,
};

/// Threads of a workgroup.
const WORKGROUP: usize = 64;

/// The shader of a kernel whose body is the chain. On a CPU a thread computes four elements, whose
/// operands it loads together.
pub(super) fn chain(kernel: &Kernel, chain: &Chain, abilities: &Abilities) -> Shader {
    let four = abilities.cpu && chain.elements.is_multiple_of(4);
    let threads = if four { chain.elements / 4 } else { chain.elements };
    let grid = grid(threads, WORKGROUP);
    let steps: Vec<String> = chain.steps.iter().map(|step| step.op.to_string()).collect();
    let steps = if steps.is_empty() { "copy".to_string() } else { steps.join(", ") };
    let neighbours = if four { Neighbours::Flat } else { Neighbours::One };
    let loads = Loads::new(kernel, abilities, &vec![neighbours; kernel.reads.len()]);
    let mut source = loads.head;
    source += &format!("const THREADS: u32 = {threads}u;\n");
    source += &grid.wgsl();
    source += &functions(kernel, chain);
    source += &computed(kernel, chain);
    source += &if four { computes_four(kernel, chain) } else { computes_one(kernel, chain) };
    source += include_str!("../../../../shaders/threads.wgsl");
    let label = format!("{steps} on {} elements", chain.elements);
    Shader { label, source, workgroups: grid.workgroups, uniforms: loads.uniforms }
}

/// `fn computed(i, x0, x1, ..)`: computes the steps for the element with the row-major index `i`
/// from those of the reads that are used and the random word `dN` of every draw, and puts the
/// results where they go.
fn computed(kernel: &Kernel, chain: &Chain) -> String {
    let reads = used(kernel, chain);
    let reads = reads.iter().map(|&n| format!(", x{n}: {}", argument_type(&kernel.reads[n])));
    let words = draws(chain).map(|(n, _)| format!(", d{n}: u32"));
    let parameters: String = reads.chain(words).collect();
    let body = steps(kernel, chain) + &puts(kernel, chain);
    format!("fn computed(i: u32{parameters}) {{\n{body}}}\n")
}

/// `fn compute(thread)`, which computes one element.
fn computes_one(kernel: &Kernel, chain: &Chain) -> String {
    let value = |n: &usize| format!(", {}", truth(format!("r{n}_one(i)"), &kernel.reads[*n]));
    let word = |(_, draw)| format!(", random_word(i, {draw}u)");
    let reads = used(kernel, chain);
    let values: String = reads.iter().map(value).chain(draws(chain).map(word)).collect();
    format!("fn compute(i: u32) {{\n    computed(i{values});\n}}\n")
}

/// `fn compute(thread)`, which computes four elements.
fn computes_four(kernel: &Kernel, chain: &Chain) -> String {
    let reads = used(kernel, chain);
    let mut text = "fn compute(thread: u32) {\n    let i = thread * 4u;\n".to_string();
    for n in &reads {
        writeln!(text, "    let y{n} = r{n}_four(i);").expect("a string takes any text");
    }
    for (n, draw) in draws(chain) {
        writeln!(text, "    let d{n} = random_block(thread, {draw}u);")
            .expect("a string takes any text");
    }
    for (k, component) in ["x", "y", "z", "w"].iter().enumerate() {
        let value =
            |n: &usize| format!(", {}", truth(format!("y{n}.{component}"), &kernel.reads[*n]));
        let word = |(n, _)| format!(", d{n}.{component}");
        let values: String = reads.iter().map(value).chain(draws(chain).map(word)).collect();
        writeln!(text, "    computed(i + {k}u{values});").expect("a string takes any text");
    }
    text + "}\n"
}

/// `fn finish(i: u32, product: f32)` and what it calls: computes the steps for the element with
/// the row-major index `i`, and puts the results where they go.
pub(super) fn finish(kernel: &Kernel, chain: &Chain) -> String {
    let body = steps_of_product(kernel, chain) + &puts(kernel, chain);
    functions(kernel, chain) + &format!("fn finish(i: u32, product: f32) {{\n{body}}}\n")
}

/// `fn finished(i: u32, product: f32) -> f32` and what it calls: the only result of the steps for
/// the element with the row-major index `i`.
pub(super) fn finished(kernel: &Kernel, chain: &Chain) -> String {
    let [result] = chain.results[..] else { panic!("{} results", chain.results.len()) };
    let body = steps_of_product(kernel, chain) + &format!("    return {};\n", name(result));
    functions(kernel, chain) + &format!("fn finished(i: u32, product: f32) -> f32 {{\n{body}}}\n")
}

/// The steps on an element of a product, with the loads of their operands.
fn steps_of_product(kernel: &Kernel, chain: &Chain) -> String {
    let mut text = String::new();
    for n in used(kernel, chain) {
        let value = truth(format!("r{n}_one(i)"), &kernel.reads[n]);
        writeln!(text, "    let x{n} = {value};").expect("a string takes any text");
    }
    for (n, draw) in draws(chain) {
        writeln!(text, "    let d{n} = random_word(i, {draw}u);").expect("a string takes any text");
    }
    text + &steps(kernel, chain)
}

/// What the steps call.
fn functions(kernel: &Kernel, chain: &Chain) -> String {
    let mut text = String::new();
    if needs_math(chain) {
        text += include_str!("../../../../shaders/math.wgsl");
    }
    if needs_functions(chain) {
        text += include_str!("../../../../shaders/functions.wgsl");
    }
    if kernel.uses_key() {
        text += include_str!("../../../../shaders/random.wgsl");
    }
    text
}

/// The steps on the elements `x0, x1, ..` of the reads.
fn steps(kernel: &Kernel, chain: &Chain) -> String {
    let mut text = String::new();
    for (n, step) in chain.steps.iter().enumerate() {
        let of = dtype(kernel, chain, step.arguments[0]);
        let value = expression(step, n, of);
        writeln!(text, "    let s{n} = {value};").expect("a string takes any text");
    }
    text
}

/// The results to where they go.
fn puts(kernel: &Kernel, chain: &Chain) -> String {
    let mut text = String::new();
    for (n, (write, &result)) in kernel.writes.iter().zip(&chain.results).enumerate() {
        writeln!(text, "    w{n}_put(i, {});", stored(write, result))
            .expect("a string takes any text");
    }
    text
}

/// A result as an element of a buffer.
fn stored(write: &Write, result: Argument) -> String {
    match write.element {
        Element::Bool => format!("select(0u, 1u, {})", name(result)),
        _ => name(result),
    }
}

/// The reads that are used as elements.
fn used(kernel: &Kernel, chain: &Chain) -> Vec<usize> {
    (0..kernel.reads.len()).filter(|&read| is_read(chain, read)).collect()
}

/// The steps that draw random words, and which.
fn draws(chain: &Chain) -> impl Iterator<Item = (usize, u32)> {
    chain.steps.iter().enumerate().filter_map(|(n, step)| match step.op {
        Elementwise::Dropout { draw, .. } | Elementwise::Random { draw, .. } => Some((n, draw)),
        _ => None,
    })
}

fn argument_type(read: &Operand) -> &'static str {
    if read.element == Element::Bool { "bool" } else { value_type(read.element) }
}

/// An element of a buffer as a value.
fn truth(element: String, read: &Operand) -> String {
    if read.element == Element::Bool { format!("({element} != 0u)") } else { element }
}

/// Whether the steps or results have a read as an argument.
pub(super) fn is_read(chain: &Chain, read: usize) -> bool {
    let arguments = chain.steps.iter().flat_map(|step| &step.arguments);
    arguments.chain(&chain.results).any(|&argument| argument == Argument::Read(read))
}

fn name(argument: Argument) -> String {
    match argument {
        Argument::Read(n) => format!("x{n}"),
        Argument::Step(n) => format!("s{n}"),
        Argument::Product => "product".into(),
    }
}

fn dtype(kernel: &Kernel, chain: &Chain, argument: Argument) -> DType {
    match argument {
        Argument::Read(n) => kernel.reads[n].element.into(),
        Argument::Step(n) => chain.steps[n].dtype,
        Argument::Product => DType::F32,
    }
}

/// Whether a step calls a function of `shaders/math.wgsl`.
fn needs_math(chain: &Chain) -> bool {
    let calls = |op: &Elementwise| match op {
        Elementwise::Unary(Unary::Exp | Unary::Log | Unary::Sign) => true,
        Elementwise::Unary(Unary::Sin | Unary::Cos | Unary::Tan | Unary::Erf) => true,
        Elementwise::Unary(Unary::Activation(_)) | Elementwise::Binary(Binary::Power) => true,
        Elementwise::Scalar(Scalar::Power, _)
        | Elementwise::ActivationGradient(Activation::Gelu) => true,
        Elementwise::Cast(DType::Int) => true,
        Elementwise::Dropout { .. } | Elementwise::Random { .. } | Elementwise::Mode => true,
        Elementwise::Scalar(_, value)
        | Elementwise::Fill(value)
        | Elementwise::CompareScalar(_, value) => !(*value as f32).is_finite(),
        _ => false,
    };
    needs_functions(chain) || chain.steps.iter().any(|step| calls(&step.op))
}

/// Whether a step calls a function of `shaders/functions.wgsl`, which calls `shaders/math.wgsl`.
fn needs_functions(chain: &Chain) -> bool {
    let calls = |op: &Elementwise| {
        matches!(
            op,
            Elementwise::Unary(
                Unary::Log1p
                    | Unary::Asin
                    | Unary::Acos
                    | Unary::Atan
                    | Unary::Sinh
                    | Unary::Cosh
                    | Unary::Asinh
                    | Unary::Acosh
                    | Unary::Atanh
                    | Unary::RoundF16
                    | Unary::RoundBf16
            ) | Elementwise::Binary(Binary::Remainder | Binary::Atan2 | Binary::Hypot)
        )
    };
    chain.steps.iter().any(|step| calls(&step.op))
}

/// WGSL of the result of step `n`; `of` is what its first operand is.
fn expression(step: &Step, n: usize, of: DType) -> String {
    let names: Vec<String> = step.arguments.iter().map(|&argument| name(argument)).collect();
    let x = names[0].as_str();
    match &step.op {
        Elementwise::Unary(op) => unary(*op, of, x),
        Elementwise::Scalar(op, value) => scalar(*op, *value, of, x),
        Elementwise::Binary(op) => binary(*op, of, x, &names[1]),
        Elementwise::Bitwise(op) => bitwise(*op, x, &names[1]),
        Elementwise::Not => format!("!{x}"),
        Elementwise::Logical(Logical::And) => format!("{x} && {}", names[1]),
        Elementwise::Logical(Logical::Or) => format!("{x} || {}", names[1]),
        Elementwise::Compare(op) => compare(*op, of, x, &names[1]),
        Elementwise::CompareScalar(op, value) => compare(*op, of, x, &literal(*value, of)),
        Elementwise::Where => format!("select({}, {}, {x})", names[2], names[1]),
        Elementwise::Fill(value) => {
            format!("select({}, {}, {x})", names[1], literal(*value, step.dtype))
        }
        Elementwise::Cast(to) => cast(of, *to, x),
        Elementwise::ActivationGradient(op) => activation_gradient(*op, x, &names[1]),
        Elementwise::Dropout { probability, .. } => {
            let p = *probability as f32;
            format!("{x} * dropout_(d{n}, {p:?}f, {:?}f)", 1.0 / (1.0 - p))
        }
        Elementwise::Random { distribution, .. } => random(*distribution, n),
        Elementwise::Mode => format!("select({x}, {}, evaluates())", names[1]),
    }
}

/// A number from the random word of step `n`.
fn random(distribution: Distribution, n: usize) -> String {
    let number = |value| literal(value, DType::F32);
    match distribution {
        Distribution::Bernoulli { probability } => {
            format!("select(1.0, 0.0, unit_(d{n}) < {})", number(1.0 - probability))
        }
        Distribution::Uniform { low, high } => {
            let width = high as f32 - low as f32;
            format!("{} + {} * unit_(d{n})", number(low), number(width.into()))
        }
        Distribution::Normal { mean, deviation } => {
            format!("{} + {} * normal_value_(d{n})", number(mean), number(deviation))
        }
    }
}

fn binary(op: Binary, of: DType, x: &str, y: &str) -> String {
    match op {
        Binary::Add => format!("{x} + {y}"),
        Binary::Subtract => format!("{x} - {y}"),
        Binary::Multiply => format!("{x} * {y}"),
        Binary::Divide => format!("{x} / {y}"),
        Binary::Remainder if of == DType::Int => format!("int_remainder_({x}, {y})"),
        Binary::Remainder => format!("remainder_({x}, {y})"),
        Binary::Power if of == DType::Int => format!("int_power_({x}, u32({y}))"),
        Binary::Power => format!("power_({x}, {y})"),
        Binary::Atan2 => format!("atan2_({x}, {y})"),
        Binary::Hypot => format!("hypot_({x}, {y})"),
    }
}

fn bitwise(op: Bitwise, x: &str, y: &str) -> String {
    match op {
        Bitwise::And => format!("{x} & {y}"),
        Bitwise::Or => format!("{x} | {y}"),
        Bitwise::Xor => format!("{x} ^ {y}"),
        Bitwise::ShiftLeft => format!("{x} << (u32({y}) & 31u)"),
        Bitwise::ShiftRight => format!("{x} >> (u32({y}) & 31u)"),
    }
}

fn unary(op: Unary, of: DType, x: &str) -> String {
    match op {
        Unary::Neg => format!("-{x}"),
        Unary::Sign if of == DType::Int => format!("sign({x})"),
        Unary::Sign => format!("sign_({x})"),
        Unary::Exp => format!("exp_({x})"),
        Unary::Log => format!("log_({x})"),
        Unary::Reciprocal => format!("1.0 / {x}"),
        Unary::Sin => format!("sine_({x}, 0)"),
        Unary::Cos => format!("sine_({x}, 1)"),
        Unary::Erf => format!("erf_({x})"),
        Unary::Tan => format!("sine_({x}, 0) / sine_({x}, 1)"),
        Unary::Log1p => format!("log1p_({x})"),
        Unary::Asin | Unary::Acos | Unary::Atan => format!("{op}_({x})"),
        Unary::Sinh | Unary::Cosh => format!("{op}_({x})"),
        Unary::Asinh | Unary::Acosh | Unary::Atanh => format!("{op}_({x})"),
        Unary::RoundF16 | Unary::RoundBf16 => format!("{op}_({x})"),
        Unary::Activation(Activation::Tanh) => format!("tanh_({x})"),
        Unary::Activation(Activation::Sigmoid) => format!("sigmoid_({x})"),
        Unary::Activation(Activation::Relu) => format!("select({x}, 0.0, {x} <= 0.0)"),
        Unary::Activation(Activation::Gelu) => format!("gelu_({x})"),
        // WGSL has a function of this name.
        named => format!("{named}({x})"),
    }
}

fn activation_gradient(op: Activation, of: &str, g: &str) -> String {
    match op {
        Activation::Gelu => format!("gelu_gradient_({of}, {g})"),
        Activation::Relu => format!("select({g}, 0.0, {of} <= 0.0)"),
        Activation::Sigmoid => format!("{g} * {of} * (1.0 - {of})"),
        Activation::Tanh => format!("{g} * (1.0 - {of} * {of})"),
    }
}

fn scalar(op: Scalar, value: f64, of: DType, x: &str) -> String {
    let number = literal(value, of);
    match op {
        Scalar::Add => format!("{x} + {number}"),
        Scalar::Multiply => format!("{x} * {number}"),
        Scalar::AtLeast => format!("select({x}, {number}, {x} < {number})"),
        Scalar::AtMost => format!("select({x}, {number}, {x} > {number})"),
        Scalar::Power => power(value, of, x),
    }
}

/// Largest exponent that is multiplied out.
const MOST_FACTORS: f64 = 8.0;

fn power(exponent: f64, of: DType, x: &str) -> String {
    if of == DType::Int {
        return format!("int_power_({x}, {}u)", exponent as i64 as u32);
    }
    let factors = exponent.abs();
    let product = |factors: f64| vec![x; factors as usize].join(" * ");
    match exponent {
        _ if exponent == 0.0 => "1.0".to_string(),
        _ if exponent == 0.5 => format!("sqrt({x})"),
        _ if exponent == -0.5 => format!("1.0 / sqrt({x})"),
        _ if exponent.fract() == 0.0 && factors <= MOST_FACTORS && exponent > 0.0 => {
            product(factors)
        }
        _ if exponent.fract() == 0.0 && factors <= MOST_FACTORS => {
            format!("1.0 / ({})", product(factors))
        }
        _ => format!("power_({x}, {})", literal(exponent, of)),
    }
}

fn compare(op: Comparison, of: DType, x: &str, y: &str) -> String {
    match op {
        Comparison::Equal => format!("{x} == {y}"),
        // Not by `!=`, which may say no of NaN. Bools that are compared otherwise differ or do not.
        Comparison::NotEqual => format!("!({x} == {y})"),
        _ if of == DType::Bool => format!("!({x} == {y})"),
        Comparison::Greater => format!("{x} > {y}"),
        Comparison::GreaterEqual => format!("{x} >= {y}"),
        Comparison::Less => format!("{x} < {y}"),
        Comparison::LessEqual => format!("{x} <= {y}"),
    }
}

fn cast(from: DType, to: DType, x: &str) -> String {
    match (from, to) {
        (DType::Bool, DType::F32) => format!("select(0.0, 1.0, {x})"),
        (DType::Bool, DType::Int) => format!("select(0, 1, {x})"),
        (_, DType::F32) => format!("f32({x})"),
        (DType::F32, DType::Int) => format!("int_({x})"),
        (DType::Int, DType::Int) => x.to_string(),
        (DType::F32, DType::Bool) => compare(Comparison::NotEqual, from, x, "0.0"),
        (DType::Int, DType::Bool) => format!("{x} != 0"),
        (DType::Bool, DType::Bool) => x.to_string(),
    }
}

/// A number as a literal of its type. Integers are as narrow as the device's.
fn literal(value: f64, dtype: DType) -> String {
    let float = value as f32;
    match dtype {
        DType::F32 if float.is_finite() => format!("({float:?}f)"),
        DType::F32 => format!("from_bits({}u)", float.to_bits()),
        DType::Int => {
            let narrow = (value as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            format!("i32({narrow})")
        }
        DType::Bool => (value != 0.0).to_string(),
    }
}
