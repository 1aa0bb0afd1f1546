//! A family of schedules -> Plan, by pure generators: one file per family and one row here.
//!
//! The generators know no cost: a plan is an order of actions, and the order fits any time.

mod folded_lane;
mod request;
mod rounds;
mod squeeze;
mod v_stash;

use std::fmt;

pub use forward_only::evaluation;
pub use request::Schedule;
pub(crate) use v_stash::plans_by_stash;

use super::action::{Action, DeviceId, MicrobatchId, StageId};
use super::work::Work;
use super::{Placement, Plan};
use crate::error::{Error, Result};

/// Declares the file of every family and lists the constants in [`FAMILIES`].
macro_rules! families {
    ($($file:ident::$family:ident,)*) => {
        $(
            mod $file;
            pub use $file::$family;
        )*

        /// Every family, in the order they were invented.
        pub static FAMILIES: &[&Family] = &[$(&$family,)*];
    };
}

families! {
    gpipe::GPIPE,
    one_f_one_b::ONE_F_ONE_B,
    interleaved_1f1b::INTERLEAVED_1F1B,
    looped_bfs::LOOPED_BFS,
    zb_h1::ZB_H1,
    zb_h2::ZB_H2,
    zb_v::ZB_V,
    v_half::V_HALF,
    v_min::V_MIN,
    dualpipe_v::DUALPIPE_V,
    forward_only::FORWARD_ONLY,
}

/// A family of schedules: one rule that gives a plan for any number of devices and microbatches.
///
/// Prints as its name, and two families are equal when their names are.
pub struct Family {
    /// What it is called where a schedule is chosen by name, and in a plan's text.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    shape: Shape,
    /// Every device's actions in order, on the placement of the shape.
    lanes: fn(Size) -> Vec<Vec<Action>>,
}

/// How a family places its stages.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// One stage per device: [`Placement::linear`].
    Line,
    /// Any number of chunks per device, so many where none is asked for: [`Placement::looped`].
    Loop { chunks: u32 },
    /// Two chunks per device: [`Placement::folded`].
    Fold,
}

/// What a generator is asked for. None of the three is 0.
#[derive(Debug, Clone, Copy)]
struct Size {
    devices: u32,
    chunks: u32,
    microbatches: u32,
}

/// The most actions a plan may have, with as many microbatches as devices at least. A family that
/// works in rounds of as many microbatches as there are devices lays out whole rounds.
const MOST_ACTIONS: u64 = 1 << 28;

/// The plan of `family` for `devices` devices and `microbatches` microbatches a step.
///
/// `chunks` is how many stages each device holds. `None` is the family's own number: 1 in a line,
/// 2 in a V, and in a loop, where the caller may choose, 2 for training and 1 for evaluation.
///
/// # Errors
///
/// When a number is 0, the family cannot have so many chunks, or the plan would have too many
/// actions.
pub fn generate(
    family: &Family,
    devices: u32,
    chunks: Option<u32>,
    microbatches: u32,
) -> Result<Plan> {
    if devices == 0 || microbatches == 0 {
        return Err(Error::config(format!(
            "{family} on {devices} devices with {microbatches} microbatches: nothing to schedule"
        ))
        .hint("at least 1 device and 1 microbatch"));
    }
    let chunks = chunk_count(family, chunks)?;
    let actions = [devices, chunks, devices.max(microbatches)]
        .into_iter()
        .fold(3u64, |product, factor| product.saturating_mul(u64::from(factor)));
    if actions > MOST_ACTIONS {
        return Err(Error::config(format!(
            "{family} with {devices} x {chunks} stages and {microbatches} microbatches: too long a \
             plan"
        ))
        .hint("fewer devices, chunks or microbatches"));
    }
    Ok(Plan {
        schedule: family.name.to_owned(),
        microbatches,
        placement: match family.shape {
            Shape::Line => Placement::linear(devices),
            Shape::Loop { .. } => Placement::looped(devices, chunks),
            Shape::Fold => Placement::folded(devices),
        },
        lanes: (family.lanes)(Size { devices, chunks, microbatches }),
    })
}

fn chunk_count(family: &Family, asked: Option<u32>) -> Result<u32> {
    let (own, other) = match family.shape {
        Shape::Line => (1, "it holds one stage per device"),
        Shape::Fold => (2, "it holds two stages per device, one on the way up and one back"),
        Shape::Loop { chunks } => (chunks, "a device holds at least one stage"),
    };
    match (family.shape, asked) {
        (_, None) => Ok(own),
        (Shape::Loop { .. }, Some(chunks)) if chunks > 0 => Ok(chunks),
        (_, Some(chunks)) if chunks == own => Ok(own),
        (_, Some(chunks)) => {
            let loops = FAMILIES
                .iter()
                .filter(|family| matches!(family.shape, Shape::Loop { chunks: 2.. }));
            let names: Vec<&str> = loops.map(|family| family.name).collect();
            Err(Error::config(format!("{family} with {chunks} chunks per device: {other}"))
                .hint(format!("{own}, or a schedule that takes any number: {}", names.join(", "))))
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.name).finish()
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl Size {
    /// The lane of every device.
    fn lanes(self, lane: impl Fn(DeviceId, Self) -> Vec<Action>) -> Vec<Vec<Action>> {
        (0..self.devices).map(|device| lane(DeviceId(device), self)).collect()
    }

    /// The lane of every device in a line, each of one stage.
    fn line(self, lane: impl Fn(StageId, Self) -> Vec<Action>) -> Vec<Vec<Action>> {
        self.lanes(|DeviceId(device), size| lane(StageId(device), size))
    }
}

/// The actions of one kind of `stage`, by microbatch.
fn actions(stage: StageId, work: Work) -> impl Fn(u32) -> Action {
    move |microbatch| Action::new(stage, work, MicrobatchId(microbatch))
}

/// The fused backwards of `stage`, by microbatch.
fn fused(stage: StageId) -> impl Fn(u32) -> Action {
    move |microbatch| Action::fused(stage, MicrobatchId(microbatch))
}
