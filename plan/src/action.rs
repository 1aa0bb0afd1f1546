//! The words a plan is written in: typed ids, and `2F0` for "stage 2, forward, microbatch 0".

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as a position in a list of all such things.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A contiguous part of the model on one device, numbered from the model's input.
    StageId
}
id! {
    /// A device of the run: one worker thread, one lane of the plan.
    DeviceId
}
id! {
    /// One of the equal parts a step's batch is cut into.
    MicrobatchId
}

/// What an [`Action`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Forward.
    F,
    /// Gradient of the stage's input, which the previous stage waits for.
    B,
    /// Gradient of the stage's weights, which only the optimizer waits for.
    W,
    /// A fused backward: B directly followed by W.
    BW,
}

/// One piece of work of one stage on one microbatch. Prints as `2F0` and parses back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Action {
    /// The stage whose work this is.
    pub stage: StageId,
    /// Which of the stage's kinds of work.
    pub work: Work,
    /// The microbatch it works on.
    pub microbatch: MicrobatchId,
}

impl Action {
    /// `stage`, `work`, `microbatch`, in the order they print.
    pub fn new(stage: StageId, work: Work, microbatch: MicrobatchId) -> Self {
        Self { stage, work, microbatch }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Work::F => "F",
            Work::B => "B",
            Work::W => "W",
            Work::BW => "BW",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}{}", self.stage, self.work, self.microbatch))
    }
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::plan(format!("'{text}' is not an action"))
                .hint("stage, work, microbatch, as in 2F0, 2B0, 2W0 or 2BW0")
        };
        let letters = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (stage, rest) = text.split_at(letters);
        let digits = rest.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
        let (work, microbatch) = rest.split_at(digits);
        let work = match work {
            "F" => Work::F,
            "B" => Work::B,
            "W" => Work::W,
            "BW" => Work::BW,
            _ => return Err(bad()),
        };
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| bad());
        Ok(Self::new(StageId(number(stage)?), work, MicrobatchId(number(microbatch)?)))
    }
}
