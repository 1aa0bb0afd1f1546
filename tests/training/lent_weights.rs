//! A module that shares the devices' weights is that of its moment, and leaves no trace.

use burn::module::Module;
use zerobubble::gpt::Gpt;
use zerobubble::plan::ZB_V;

use super::{ROWS, batch, builder, gpt, steps};

fn loss(model: &Gpt) -> f32 {
    let (tokens, targets) = batch(50, 0..ROWS);
    model.loss(tokens, targets).into_scalar()
}

#[test]
fn a_module_that_is_lent_stays_as_it_was_and_changes_no_bit_of_the_training() {
    let model = gpt(0.0);
    for post_validation in [false, true] {
        let trainer = || {
            let builder = builder(&model, "cpux2").schedule(&ZB_V).clip_norm(0.5);
            builder.post_validation(post_validation).build(&batch(0, 0..ROWS)).unwrap()
        };
        let mut alone = trainer();
        steps(&mut alone, 0..4);

        let mut lends = trainer();
        steps(&mut lends, 0..2);
        let lent = lends.with_model(Gpt::clone).unwrap();
        let copied = lends.model().unwrap();
        assert_eq!(loss(&lent).to_bits(), loss(&copied).to_bits());
        steps(&mut lends, 2..4);
        assert_eq!(loss(&lent).to_bits(), loss(&copied).to_bits());
        assert_eq!(lends.weights_hash().unwrap(), alone.weights_hash().unwrap());
        assert_ne!(lends.with_model(loss).unwrap().to_bits(), loss(&lent).to_bits());
        assert_eq!(lent.num_params() as u64, lends.parameters());
    }
}
