//! The words a plan is written in: typed ids, and `2F0` for "stage 2, forward, microbatch 0".

use std::fmt;

use super::work::Work;

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

/// One piece of work of one stage on one microbatch. Prints as `2F0` and parses back; a fused
/// backward prints as `2BW0`.
///
/// An action is of one kind of work, but for a fused backward, which is B directly followed by W.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Action {
    /// The stage whose work this is.
    pub stage: StageId,
    /// The kind of work, the first of the two in a fused backward.
    pub work: Work,
    /// The microbatch it works on.
    pub microbatch: MicrobatchId,
    /// Whether W follows directly. Only a B is fused.
    fused: bool,
}

impl Action {
    /// `stage`, `work`, `microbatch`, in the order they print.
    pub fn new(stage: StageId, work: Work, microbatch: MicrobatchId) -> Self {
        Self { stage, work, microbatch, fused: false }
    }

    /// B of a stage on a microbatch, directly followed by W.
    pub fn fused(stage: StageId, microbatch: MicrobatchId) -> Self {
        Self { fused: true, ..Self::new(stage, Work::B, microbatch) }
    }

    /// Whether this is a fused backward.
    pub fn is_fused(self) -> bool {
        self.fused
    }

    /// The kinds of work that it does, in order.
    pub fn works(self) -> &'static [Work] {
        match (self.work, self.fused) {
            (Work::F, _) => &[Work::F],
            (Work::B, false) => &[Work::B],
            (Work::B, true) => &[Work::B, Work::W],
            (Work::W, _) => &[Work::W],
        }
    }

    /// Whether it does this kind of work.
    pub fn computes(self, work: Work) -> bool {
        self.works().contains(&work)
    }

    /// This kind of work alone, of the same stage on the same microbatch.
    pub fn alone(self, work: Work) -> Self {
        Self::new(self.stage, work, self.microbatch)
    }

    /// The same work of the same stage on another microbatch.
    pub fn on(self, microbatch: MicrobatchId) -> Self {
        Self { microbatch, ..self }
    }

    /// The letters of its work, as they print: `F`, `B`, `W` or `BW`.
    pub fn letters(self) -> &'static str {
        match (self.work, self.fused) {
            (Work::F, _) => "F",
            (Work::B, false) => "B",
            (Work::B, true) => "BW",
            (Work::W, _) => "W",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}{}", self.stage, self.letters(), self.microbatch))
    }
}
