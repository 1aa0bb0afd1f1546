//! What must hold whatever is read: a function from bytes for each thing, a file for each reader.

pub mod plan;
