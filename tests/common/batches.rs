//! Batches of one size, to train small GPTs on.

#[path = "tokens.rs"]
mod tokens;

use std::ops::Range;

pub use tokens::Tokens;
use tokens::tokens;

/// Examples in a microbatch.
pub const ROWS: usize = 2;
/// Tokens in an example.
pub const CONTEXT: usize = 7;
/// How many tokens there are.
pub const VOCABULARY: usize = 11;

/// Rows of a batch, as [`tokens`] has them.
pub fn batch(step: u64, rows: Range<usize>) -> Tokens {
    tokens(step, rows, CONTEXT, VOCABULARY)
}
