//! Ctrl-C, and what else asks a program to end: the first time after the step, then at once.

use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zerobubble::error::{Error, Result};

/// Whether the run was asked to end.
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on Ctrl-C, SIGTERM and SIGHUP ask; once per process.
    pub fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let heard = asked.clone();
        let hear = move || {
            if heard.swap(true, Ordering::Relaxed) {
                process::exit(crate::INTERRUPTED.into());
            }
            // Whoever listens may be gone with the terminal.
            writeln!(io::stderr(), "\nending after this step; once more ends at once").ok();
        };
        ctrlc::set_handler(hear)
            .map_err(|error| Error::run(format!("Ctrl-C cannot be listened for: {error}")))?;
        Ok(Self { asked })
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
