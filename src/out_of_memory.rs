//! What unwinds a device's thread when the system gives no more memory.

use std::fmt;
use std::panic::resume_unwind;

/// So many bytes were refused beside those that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    pub asked: usize,
    pub held: usize,
}

impl OutOfMemory {
    /// Unwinds with this, of which nothing is printed: whoever catches it has an error to report.
    pub(crate) fn unwind(self) -> ! {
        resume_unwind(Box::new(self))
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, held } = self;
        write!(f, "out of memory: {asked} bytes beside {held} are not to be had")
    }
}
