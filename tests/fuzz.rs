//! Promise: whatever is in a folder of checkpoints, `resume` ends with a whole checkpoint or an
//! error that names a file; it stays within the folder, and within memory of the size of the files.

#[path = "fuzz/checkpoint.rs"]
mod checkpoint;
#[path = "fuzz/folder.rs"]
mod folder;
#[path = "../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/memory.rs"]
mod memory;

#[test]
fn checkpoint() {
    harness::run("checkpoint", 2_000, checkpoint::folder);
}

#[test]
fn safetensors() {
    harness::run("safetensors", 2_000, checkpoint::safetensors);
}

/// If a checkpoint has another form on purpose, the variable `ZEROBUBBLE_WRITE_FILES` writes the
/// input anew.
#[test]
fn the_corpus_has_a_checkpoint_that_resumes() {
    checkpoint::the_good_one_resumes();
}
