//! Tokens to train a GPT on.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Tokens, and the tokens that follow them.
pub type Tokens = (Tensor<2, Int>, Tensor<2, Int>);

/// Rows of a batch, with tokens that depend on the step and on their row in the whole batch.
pub fn tokens(step: u64, rows: Range<usize>, context: usize, vocabulary: usize) -> Tokens {
    let token = |row: usize, at: usize| {
        ((step as usize * 31 + row * 17 + at * at * 5 + at) % vocabulary) as i64
    };
    let tensor = |ahead: usize| {
        let values: Vec<i64> = rows
            .clone()
            .flat_map(|row| (0..context).map(move |at| token(row, at + ahead)))
            .collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), context]), &Device::flex())
    };
    (tensor(0), tensor(1))
}
