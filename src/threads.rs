//! What the runtime takes from the operating system: threads, channels and the time.
//!
//! In the runtime nothing else waits, and nothing else tells the time. So `tests/interleavings.rs`
//! can build it on a file of the same names in place of this one, and decide who runs when.

use std::io;
use std::time::Instant;

pub use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
pub use std::thread::JoinHandle;

/// The time.
pub fn now() -> Instant {
    Instant::now()
}

/// A thread of this name, which operating systems show.
///
/// # Errors
///
/// When the operating system gives none.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}
