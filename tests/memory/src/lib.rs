//! The files of the library that handle raw memory, by their own paths and with their own unit
//! tests, without Burn and wgpu around them: so `.ci/run` can build them with AddressSanitizer.

#![allow(dead_code, unused_imports, reason = "only their tests are run here")]

#[path = "../../../src/engine/kernels/mod.rs"]
mod kernels;
#[path = "../../../src/engine/burn/pool.rs"]
mod pool;
