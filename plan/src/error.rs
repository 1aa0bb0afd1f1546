//! The planner's one error: where it happened, what was wrong, what to try.

use std::fmt;

use crate::action::{Action, DeviceId, StageId};

/// Shorthand within this crate: outside, the name would hide that of whoever imports all.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What kind of trouble an [`Error`] reports, for callers that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or name that cannot be used.
    Config,
    /// A plan that is malformed, incomplete, would deadlock, or does not fit.
    Plan,
}

/// The part of a plan that an [`Error`] is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanPart {
    /// The number of microbatches.
    Microbatches,
    /// The devices of the stages.
    Placement,
    /// A device's lane as a whole.
    Lane(DeviceId),
    /// The action at this position of a device's lane, counted from 0.
    Action(DeviceId, usize),
}

/// One error: which stage and action; what was expected; what to try.
///
/// Prints on one line: `where: problem (try: hint)`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct Error {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// The stage, if it is of one.
    pub stage: Option<StageId>,
    /// The action, if it is of one.
    pub action: Option<Action>,
    /// The part of the plan, if it is of one.
    pub part: Option<PlanPart>,
    /// What was found and what was expected instead.
    pub problem: String,
    /// What the user can do about it; empty when nothing sensible is known.
    pub hint: String,
}

impl Error {
    /// An error of `kind` that says what was found and what was expected.
    pub fn new(kind: ErrorKind, problem: impl Into<String>) -> Self {
        Self {
            kind,
            stage: None,
            action: None,
            part: None,
            problem: problem.into(),
            hint: String::new(),
        }
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, problem)
    }

    /// Shorthand for [`ErrorKind::Plan`].
    pub fn plan(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Plan, problem)
    }

    /// Adds what the user can try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Names the stage.
    pub fn in_stage(mut self, stage: StageId) -> Self {
        self.stage = Some(stage);
        self
    }

    /// Names the action, unless a deeper place already named one.
    pub fn in_action(mut self, action: Action) -> Self {
        self.action.get_or_insert(action);
        self
    }

    /// Names the part of the plan.
    pub(crate) fn in_part(mut self, part: PlanPart) -> Self {
        self.part = Some(part);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(f, "stage {stage}: ")?;
        }
        if let Some(action) = self.action {
            write!(f, "action {action}: ")?;
        }
        f.write_str(&self.problem)?;
        if !self.hint.is_empty() {
            write!(f, " (try: {})", self.hint)?;
        }
        Ok(())
    }
}

/// As much of a text from outside as an error repeats.
const QUOTED_CHARS: usize = 40;

/// The start of a text from outside, in quotes and without characters that a terminal obeys.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTED_CHARS).collect();
    let more = if start.len() < text.len() { "..." } else { "" };
    format!("'{}{more}'", start.escape_debug())
}
