//! What is being done while no step is: a line for everything that takes longer than a second.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use zerobubble::train::BuildPhase;

/// After this time it is told what takes so long, and again after every further one of the second.
const PATIENCE: Duration = Duration::from_secs(1);
const REMINDER: Duration = Duration::from_secs(10);

/// Something that goes on until this is dropped.
#[derive(Debug)]
pub struct Phase {
    /// Closed when it is over.
    over: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Phase {
    /// Begins what is called `name`.
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let (over, ended) = mpsc::channel::<()>();
        let started = Instant::now();
        let tell = move || {
            let mut patience = PATIENCE;
            while ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                patience = REMINDER;
                // On a terminal the bars are on the last lines: this one is put above them.
                let end = if io::stderr().is_terminal() { "\x1b[K\n" } else { "\n" };
                let seconds = started.elapsed().as_secs();
                let so_far =
                    if seconds > 1 { format!(", {seconds} s so far") } else { String::new() };
                write!(io::stderr(), "{name}{so_far} ...{end}").ok();
            }
        };
        // Without a thread the run is only quieter.
        let teller = thread::Builder::new().name("progress".into()).spawn(tell).ok();
        Self { over: Some(over), teller }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.over = None;
        self.teller.take().map(JoinHandle::join);
    }
}

/// Tells of the phases of a trainer's building, the last of which ends when this is dropped.
pub fn phases() -> impl FnMut(BuildPhase) + 'static {
    let mut current: Option<Phase> = None;
    move |phase| {
        drop(current.take());
        current = Some(Phase::begin(phase.to_string()));
    }
}
