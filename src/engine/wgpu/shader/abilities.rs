//! What shaders are written for.

/// What matters about an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Whether threads run on the CPU, where shared memory is as slow as any other.
    pub cpu: bool,
    /// Threads of every subgroup, where subgroup operations are there and there is one size:
    /// `Features::SUBGROUP`, with equal `subgroup_min_size` and `subgroup_max_size`.
    pub subgroup: Option<usize>,
    /// Whether shaders may use 64-bit integers: `Features::SHADER_INT64`.
    pub wide: bool,
    /// Most bytes of a uniform buffer where reading those is faster than storage buffers; else 0.
    pub uniform_bytes: u64,
}
