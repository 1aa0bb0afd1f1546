//! Promise: a run that was ended anywhere goes on with the bits of one that was not, and what was
//! saved is never lost.

#[path = "checkpoint/broken.rs"]
mod broken;
#[path = "checkpoint/elsewhere.rs"]
mod elsewhere;
#[path = "checkpoint/foreign.rs"]
mod foreign;
#[path = "checkpoint/harness.rs"]
mod harness;
#[cfg(unix)]
#[path = "checkpoint/interrupted.rs"]
mod interrupted;
#[path = "checkpoint/killed.rs"]
mod killed;
#[path = "checkpoint/not_finite.rs"]
mod not_finite;
#[path = "checkpoint/other_programs.rs"]
mod other_programs;
#[path = "checkpoint/refused.rs"]
mod refused;
