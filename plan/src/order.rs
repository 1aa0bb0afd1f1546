//! CheckedPlan -> the orders in which stages take microbatches, as far as they are not the standard
//! one.
//!
//! In the standard order microbatches ascend on every stage, for F, for B and for W alike. All
//! families have it, and so has what is searched for or decided at run time. The bits of trained
//! weights depend on the order of W on each stage, as that is the order in which gradients are
//! added; those of what F keeps, such as running statistics, depend on the order of F. They depend
//! on nothing else of a plan, so not on the order of B.
//!
//! No order of microbatches is faster than the standard one, or stashes less: let the k-th F of
//! every stage be of microbatch k, and so the k-th B and W. When a stage has done k + 1 F, its
//! neighbour has done as many before; so all that is needed is there, at the same times.

use std::fmt;

use super::action::{Action, MicrobatchId, StageId};
use super::check::CheckedPlan;
use super::work::Work;

/// The order in which a stage does one kind of work. Prints as `W of stage 2 runs 3 2 1 0`, where
/// of many microbatches the first are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrobatchOrder {
    /// Which stage.
    pub stage: StageId,
    /// Which kind of work.
    pub work: Work,
    /// All microbatches of a step, the first one first.
    pub microbatches: Vec<MicrobatchId>,
}

/// How many microbatches an order prints.
const MOST_PRINTED: usize = 16;

impl CheckedPlan {
    /// The order in which `stage` does `work`, the W of fused backwards among the others. Empty for
    /// B and W of a plan that is forward only.
    pub fn order_of(&self, stage: StageId, work: Work) -> MicrobatchOrder {
        let plan = self.plan();
        let lane = plan.lanes[plan.placement.device(stage).index()].iter();
        let of = lane.filter(|action| action.stage == stage && action.computes(work));
        MicrobatchOrder { stage, work, microbatches: of.map(|action| action.microbatch).collect() }
    }

    /// The orders that are not the standard one, by stage, F before B before W. None in a plan of
    /// the standard order.
    pub fn own_orders(&self) -> Vec<MicrobatchOrder> {
        let stages = (0..self.plan().placement.stage_count() as u32).map(StageId);
        let orders = stages.flat_map(|stage| Work::ALL.map(|work| self.order_of(stage, work)));
        orders.filter(|order| !order.ascends()).collect()
    }
}

impl MicrobatchOrder {
    /// Whether it is the standard one.
    pub fn ascends(&self) -> bool {
        self.microbatches.is_sorted()
    }
}

impl fmt::Display for MicrobatchOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, work, microbatches } = self;
        write!(f, "{work} of stage {stage} runs")?;
        microbatches.iter().take(MOST_PRINTED).try_for_each(|k| write!(f, " {k}"))?;
        if microbatches.len() > MOST_PRINTED { f.write_str(" ..") } else { Ok(()) }
    }
}

/// The same kinds of work of the same stages in the same order, each on its own, with microbatches
/// in the standard order.
pub(super) fn standard(lane: &[Action], stages: usize) -> impl Iterator<Item = Action> + '_ {
    let mut next = vec![super::PerWork([0u32; 3]); stages];
    let works = lane.iter().flat_map(|action| {
        let action = *action;
        action.works().iter().map(move |work| (action.stage, *work))
    });
    works.map(move |(stage, work)| {
        let k = &mut next[stage.index()][work];
        *k += 1;
        Action::new(stage, work, MicrobatchId(*k - 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    fn plan(lane: &str) -> CheckedPlan {
        let text = format!("schedule test\nmicrobatches 3\nplacement 0\ndevice 0: {lane}\n");
        check(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_work_has_an_order_of_its_own() {
        let orders = |lane| {
            let orders = plan(lane).own_orders();
            orders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(orders("0F0 0F1 0B0 0W0 0BW1 0F2 0BW2"), "");
        assert_eq!(orders("0F0 0F1 0F2"), "");
        assert_eq!(orders("0F2 0F1 0F0"), "F of stage 0 runs 2 1 0");
        let b = "0F0 0F1 0F2 0B2 0B1 0B0 0W0 0W1 0W2";
        assert_eq!(orders(b), "B of stage 0 runs 2 1 0");
        let fused = "0F0 0F1 0F2 0B1 0BW2 0W1 0BW0";
        assert_eq!(orders(fused), "B of stage 0 runs 1 2 0, W of stage 0 runs 2 1 0");
    }

    #[test]
    fn a_long_order_prints_its_beginning() {
        let microbatches = (0..17).rev().map(MicrobatchId).collect();
        let order = MicrobatchOrder { stage: StageId(1), work: Work::W, microbatches };
        let printed = "W of stage 1 runs 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 ..";
        assert_eq!(order.to_string(), printed);
    }

    #[test]
    fn the_same_work_in_the_standard_order_is_legal() {
        let own = plan("0F2 0F0 0B0 0F1 0BW1 0W0 0BW2");
        let lane: Vec<String> =
            standard(&own.plan().lanes[0], 1).map(|action| action.to_string()).collect();
        assert_eq!(lane.join(" "), "0F0 0F1 0B0 0F2 0B1 0W0 0W1 0B2 0W2");
        assert!(plan(&lane.join(" ")).own_orders().is_empty());
    }
}
