//! The files of the library that handle raw memory, by their own paths and with their own unit
//! tests, without Burn and wgpu around them: so `.ci/run` can build them with AddressSanitizer.

#[path = "../../../src/engine/kernels/mod.rs"]
pub mod kernels;
#[path = "../../../src/out_of_memory.rs"]
mod out_of_memory;
#[path = "../../../src/engine/burn/pool.rs"]
pub mod pool;
