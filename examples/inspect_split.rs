//! Prints what a model becomes before it is trained: its graph, and its blocks of F, B and W.

use burn::tensor::{Device, Int, Tensor};
use zerobubble::Error;
use zerobubble::capture::capture;
use zerobubble::compile::BlockTable;
use zerobubble::differentiate::differentiate;
use zerobubble::gpt::{Gpt, GptConfig};
use zerobubble::split::split;

fn main() -> Result<(), Error> {
    let device = Device::flex();
    let model = GptConfig::new(96, 64, 2, 128, 4).init(&device);
    let tokens = Tensor::<2, Int>::zeros([4, 64], &device);
    let loss = |model: &Gpt, (tokens, targets)| model.loss(tokens, targets);

    let graph = capture(&model, &loss, &(tokens.clone(), tokens))?;
    println!("{graph}");
    let split = split(differentiate(graph, 1.0)?)?;
    println!("{}", BlockTable(&split));
    Ok(())
}
