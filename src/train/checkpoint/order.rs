//! The orders of microbatches in a plan -> text that is the same where the bits are.

use std::ops::Range;

use crate::plan::{CheckedPlan, MicrobatchId, StageId, Work};

/// The order in which microbatches ascend on every stage.
pub(super) const STANDARD: &str = "standard";

/// In which order the gradients of every block are added and, where the model `keeps` states, its
/// states are replaced: [`STANDARD`], or as in `W 3 2 1 0 in blocks 0..4`. Where stages begin and
/// end is not in it. `stage_blocks` are the blocks of every stage.
pub(super) fn order(plan: &CheckedPlan, stage_blocks: &[Range<usize>], keeps: bool) -> String {
    let works = if keeps { &[Work::F, Work::W][..] } else { &[Work::W] };
    let of = works.iter().flat_map(|work| orders(plan, stage_blocks, *work));
    let of = of.collect::<Vec<_>>();
    if of.is_empty() { STANDARD.to_owned() } else { of.join(", ") }
}

fn orders(plan: &CheckedPlan, stage_blocks: &[Range<usize>], work: Work) -> Vec<String> {
    let mut ranges: Vec<(Range<usize>, Vec<MicrobatchId>)> = Vec::new();
    for (stage, blocks) in (0u32..).map(StageId).zip(stage_blocks) {
        let order = plan.order_of(stage, work).microbatches;
        match ranges.last_mut() {
            Some((range, before)) if *before == order => range.end = blocks.end,
            _ => ranges.push((blocks.clone(), order)),
        }
    }
    let is_one = ranges.len() == 1;
    ranges.retain(|(_, order)| !order.is_sorted());
    let text = |(blocks, order): (Range<usize>, Vec<MicrobatchId>)| {
        let order: String = order.iter().map(|k| format!(" {k}")).collect();
        let place = if is_one { String::new() } else { format!(" in blocks {blocks:?}") };
        format!("{work}{order}{place}")
    };
    ranges.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::check;

    fn of(placement: &str, lanes: &[&str], stage_blocks: &[Range<usize>], keeps: bool) -> String {
        let mut text = format!("schedule test\nmicrobatches 2\nplacement {placement}\n");
        for (device, lane) in lanes.iter().enumerate() {
            text += &format!("device {device}: {lane}\n");
        }
        order(&check(text.parse().unwrap()).unwrap(), stage_blocks, keeps)
    }

    #[test]
    fn the_text_says_what_bits_depend_on_and_nothing_else() {
        let (up, down) = ("0F0 0F1 0BW0 0BW1", "0F0 0F1 0BW1 0BW0");
        let all = 0..5;
        let one = std::slice::from_ref(&all);
        assert_eq!(of("0", &[up], one, true), STANDARD);
        assert_eq!(of("0", &[down], one, true), "W 1 0");
        let of_b = "0F0 0F1 0B1 0B0 0W0 0W1";
        assert_eq!(of("0", &[of_b], one, true), STANDARD);
        let of_f = "0F1 0F0 0BW0 0BW1";
        assert_eq!(of("0", &[of_f], one, false), STANDARD);
        assert_eq!(of("0", &[of_f], one, true), "F 1 0");
        let above = |lane: &str| lane.replace("0F", "1F").replace("0BW", "1BW");
        let two = &[0..2, 2..5];
        assert_eq!(of("0 1", &[down, &above(down)], two, false), "W 1 0");
        assert_eq!(of("0 1", &[down, &above(up)], two, false), "W 1 0 in blocks 0..2");
        assert_eq!(of("0 1", &[up, &above(down)], two, false), "W 1 0 in blocks 2..5");
    }
}
