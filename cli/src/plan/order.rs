//! Whether a plan takes microbatches in the standard order, and what it says about bits if not.

use std::fmt;

use serde::Serialize;
use zerobubble::plan::{CheckedPlan, Work};

/// The orders of a plan, as far as they are not the standard one.
#[derive(Serialize)]
pub struct Order {
    /// Whether microbatches ascend within every stage, for F, for B and for W.
    standard: bool,
    /// Whether trained weights get the bits of the standard order.
    same_weights: bool,
    /// Whether that holds for what F keeps, such as running statistics.
    same_statistics: bool,
    /// Every order that is another one.
    own: Vec<StageOrder>,
    /// One of them in words, and how many others there are.
    #[serde(skip)]
    first: Option<(String, usize)>,
    #[serde(skip)]
    is_forward_only: bool,
}

#[derive(Serialize)]
struct StageOrder {
    stage: u32,
    work: String,
    microbatches: Vec<u32>,
}

impl Order {
    pub fn of(plan: &CheckedPlan) -> Self {
        let orders = plan.own_orders();
        let has = |work: Work| orders.iter().find(|order| order.work == work);
        // What matters most.
        let first = has(Work::W).or_else(|| has(Work::F)).or_else(|| has(Work::B));
        Self {
            standard: orders.is_empty(),
            same_weights: has(Work::W).is_none(),
            same_statistics: has(Work::F).is_none(),
            first: first.map(|order| (order.to_string(), orders.len() - 1)),
            is_forward_only: plan.is_forward_only(),
            own: orders
                .iter()
                .map(|order| StageOrder {
                    stage: order.stage.0,
                    work: order.work.to_string(),
                    microbatches: order.microbatches.iter().map(|k| k.0).collect(),
                })
                .collect(),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = &self.first else {
            return f.write_str("standard: microbatches ascend within every stage");
        };
        write!(f, "of its own: {first}")?;
        if *others > 0 {
            write!(f, ", and {others} more")?;
        }
        f.write_str(match (self.same_weights, self.same_statistics) {
            _ if self.is_forward_only => "; nothing is trained",
            (false, _) => "; weights get other bits than in the standard order",
            (true, false) => {
                "; weights get the bits of the standard order, running statistics do not"
            }
            (true, true) => "; weights get the bits of the standard order",
        })
    }
}
