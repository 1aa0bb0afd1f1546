//! In how many bits activations are stored.

use std::fmt;

/// How activations are stored between kernels. What is computed, and gradients, parameters and the
/// optimizer's state, are f32 with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32 bits, as they were computed.
    #[default]
    F32,
    /// 16 bits, IEEE 754 binary16: rounded when they are stored, infinite above 65504.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        })
    }
}
