//! Schedules of pipeline-parallel training: which device runs which action in which order, proved
//! before anything runs.
//!
//! An action is F (forward), B (gradient of a stage's input) or W (gradient of its weights) of one
//! stage on one microbatch. Nothing here knows a model, a tensor library, a device, a clock or a
//! file: a plan is data, and whoever trains with anything else can follow its lanes.
//!
//! ```
//! use zerobubble_plan::trace::draw;
//! use zerobubble_plan::{Costs, ZB_H1, check, generate, simulate};
//!
//! let plan = check(generate(&ZB_H1, 4, None, 8)?)?;
//! let simulation = simulate(&plan, &Costs::unit(4))?;
//! println!("{}", draw(&simulation.timeline, 81));
//! for (device, lane) in plan.plan().lanes.iter().enumerate() {
//!     println!("device {device} runs {} actions, first {}", lane.len(), lane[0]);
//! }
//! assert_eq!(simulation.bubble.makespan, 27.0);
//! # Ok::<(), zerobubble_plan::Error>(())
//! ```
//!
//! What is there, each a function from one plain value to another:
//!
//! ```text
//! place          blocks              -> Partition       blocks of every stage
//! generate       a family, sizes     -> Plan            one lane of actions per device
//! search         blocks on devices   -> SearchOutput    the fastest plan that fits in memory
//! read           &str                -> Plan            from the plan's own text or from CSV
//! read_checked   &str                -> ReadPlan        the same, proved, with errors by line
//! check          Plan                -> CheckedPlan     complete, ordered, free of deadlock
//! simulate       CheckedPlan, Costs  -> Simulation      times, bubble, bytes, channel capacities
//! fill           CheckedPlan, Costs  -> CheckedPlan     W where these costs leave time for it
//! dynamic        CheckedPlan, Costs  -> CheckedPlan     what run-time decisions come to
//! explain        steps as measured   -> Explanation     why their bubble is not as predicted
//! communication  Plan, Costs         -> Communication   bytes over every link
//! to_csv         CheckedPlan         -> String          one row of cells per device
//! trace          Timeline            -> String          as text, SVG, or for Perfetto
//! ```

mod action;
mod channels;
mod check;
mod communication;
mod csv;
mod dynamic;
mod error;
mod explain;
mod fill;
mod lines;
mod order;
mod place;
mod placement;
mod progress;
mod read;
mod schedule;
mod search;
mod simulate;
mod text;
mod token_run;
pub mod trace;
mod transfers;
mod work;

pub use action::{Action, DeviceId, MicrobatchId, StageId};
pub use channels::{Channel, channel_capacities};
pub use check::{CheckedPlan, Inputs, check};
pub use communication::{Communication, LinkBytes, communication};
pub use csv::{from_csv, to_csv};
pub use dynamic::{Choice, Policy, StashLimits, dynamic, dynamic_base, play, simulate_dynamic};
pub use error::{Error, ErrorKind, PlanPart};
pub use explain::{Explanation, explain};
pub use fill::fill;
pub use order::MicrobatchOrder;
pub use place::{BlockCost, Partition, PlaceOptions, place};
pub use placement::{Link, Placement};
pub use progress::progress;
pub use read::{ReadPlan, read, read_checked};
pub use schedule::*;
pub use search::{
    BestFamily, CostModel, Optimum, Outline, SearchInput, SearchOutput, lower_bound_within,
    optimum, outlines, search, sum_of_blocks,
};
pub use simulate::{
    BoundaryCost, BufferBytes, Costs, DeviceMemory, Simulation, StageBytes, StageCost, StashBytes,
    fit, simulate, stash_bytes,
};
pub use transfers::{TransferCost, Transfers};
pub use work::{PerWork, Work};

/// Which device runs which action in which order. Prints as text and parses back.
///
/// A plan is only a proposal: [`check`] proves that it is complete and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the plan comes from, such as `zb-h1`: one line of text.
    pub schedule: String,
    /// How many microbatches a step has.
    pub microbatches: u32,
    /// Which device holds which stage.
    pub placement: Placement,
    /// Every device's actions in order; the index is the [`DeviceId`].
    pub lanes: Vec<Vec<Action>>,
}

impl Plan {
    /// Whether there is no backward work at all: the plan evaluates and trains nothing.
    pub fn is_forward_only(&self) -> bool {
        self.lanes.iter().flatten().all(|action| action.work == Work::F)
    }
}
