//! In how many bits activations are stored.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How activations are stored between kernels. What is computed, and gradients, parameters and the
/// optimizer's state, are f32 with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits, as they were computed.
    F32,
    /// 16 bits, IEEE 754 binary16: rounded when they are stored, infinite above 65504. Only GPUs
    /// that [`gpus`](super::wgpu::gpus) lists with f16 have it.
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

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            _ => Err(Error::config(format!("activations are not stored as '{name}'"))
                .hint("f32, or f16 on GPUs that have it")),
        }
    }
}
