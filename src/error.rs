//! The crate's one error: where it happened, what was wrong, what to try.

use std::cell::Cell;
use std::fmt;
use std::panic::{UnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::sync::Once;

use zerobubble_plan::{Action, StageId};

use crate::out_of_memory::OutOfMemory;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of trouble an [`Error`] reports, for callers that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, argument or name that cannot be used.
    Config,
    /// The model cannot be captured, differentiated or trained as it is.
    Model,
    /// A plan that is malformed, incomplete, would deadlock, or does not fit.
    Plan,
    /// A batch, text or file with unusable content.
    Data,
    /// A file could not be read or written.
    Io,
    /// A device, worker thread or kernel failed while running.
    Run,
    /// A loss, a gradient, or a weight is not a finite number.
    NotFinite,
    /// A file that is whole, but of a form that this version does not know.
    NotUnderstood,
    /// Somebody asked for the end.
    Interrupted,
}

/// One error: which stage, action, op, module or file; what was expected; what to try.
///
/// Prints on one line: `where: problem (try: hint)`.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// Where it happened, as far as it is known.
    pub site: Box<Site>,
    /// What was found and what was expected instead.
    pub problem: String,
    /// What the user can do about it; empty when nothing sensible is known.
    pub hint: String,
}

/// The place an [`Error`] names. Every field is optional; what is set is printed in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Site {
    /// File, with a line when one is known.
    pub file: Option<PathBuf>,
    /// Training step, counted from 1 as it is printed.
    pub step: Option<u64>,
    /// Pipeline stage.
    pub stage: Option<StageId>,
    /// Action that was running (names stage and microbatch itself).
    pub action: Option<Action>,
    /// Module path in the user's model, such as `blocks.3.attention`.
    pub module: Option<String>,
    /// Graph op, as the graph prints it.
    pub op: Option<String>,
}

impl Error {
    /// An error of `kind` that says what was found and what was expected.
    pub fn new(kind: ErrorKind, problem: impl Into<String>) -> Self {
        Self { kind, site: Box::default(), problem: problem.into(), hint: String::new() }
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, problem)
    }

    /// Shorthand for [`ErrorKind::Model`].
    pub fn model(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Model, problem)
    }

    /// Shorthand for [`ErrorKind::Plan`].
    pub fn plan(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Plan, problem)
    }

    /// Shorthand for [`ErrorKind::Data`].
    pub fn data(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, problem)
    }

    /// Shorthand for [`ErrorKind::Run`].
    pub fn run(problem: impl Into<String>) -> Self {
        Self::new(ErrorKind::Run, problem)
    }

    /// Adds what the user can try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Names the file.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.site.file = Some(file.into());
        self
    }

    /// Names the training step (counted from 1).
    pub fn in_step(mut self, step: u64) -> Self {
        self.site.step = Some(step);
        self
    }

    /// Names the stage.
    pub fn in_stage(mut self, stage: StageId) -> Self {
        self.site.stage = Some(stage);
        self
    }

    /// Names the action, unless a deeper place already named one.
    pub fn in_action(mut self, action: Action) -> Self {
        self.site.action.get_or_insert(action);
        self
    }

    /// Names the module path.
    pub fn in_module(mut self, module: impl Into<String>) -> Self {
        self.site.module = Some(module.into());
        self
    }

    /// Names the graph op.
    pub fn in_op(mut self, op: impl Into<String>) -> Self {
        self.site.op = Some(op.into());
        self
    }
}

impl From<zerobubble_plan::Error> for Error {
    fn from(error: zerobubble_plan::Error) -> Self {
        let kind = match error.kind {
            zerobubble_plan::ErrorKind::Config => ErrorKind::Config,
            _ => ErrorKind::Plan,
        };
        let site = Site { stage: error.stage, action: error.action, ..Site::default() };
        Self { kind, site: Box::new(site), problem: error.problem, hint: error.hint }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.site, self.problem)?;
        if !self.hint.is_empty() {
            write!(f, " (try: {})", self.hint)?;
        }
        Ok(())
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(step) = self.step {
            write!(f, "step {step}: ")?;
        }
        if let Some(stage) = self.stage {
            write!(f, "stage {stage}: ")?;
        }
        if let Some(action) = self.action {
            write!(f, "action {action}: ")?;
        }
        if let Some(module) = &self.module {
            write!(f, "module {module}: ")?;
        }
        if let Some(op) = &self.op {
            write!(f, "op {op}: ")?;
        }
        Ok(())
    }
}

/// Runs `body` and catches its panic, of which nothing is printed: the caller makes an error of it.
pub(crate) fn quietly<T>(body: impl FnOnce() -> T + UnwindSafe) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(body);
    QUIET.set(before);
    result
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The error of a caught panic.
pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> Error {
    match panic.downcast_ref::<OutOfMemory>() {
        Some(refused) => Error::run(refused.to_string())
            .hint("smaller microbatches, `recompute(stage)`, or fewer devices in this memory"),
        None => Error::run(format!("panicked: {}", panic_message(panic))),
    }
}

/// What a caught panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
