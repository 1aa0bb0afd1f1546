//! Dynamic: the order is decided while the step runs, by whichever action is ready.

mod limits;
mod policy;
mod predict;
mod started;

pub use limits::Limits;
pub use policy::Policy;
pub use predict::{dynamic, play};
