//! The project's own sources -> `sources.txt`, the text that the binary trains on by default.
//!
//! It is made here, and not read when it is needed, because an installed binary outlives them.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Folders of sources, from this package's own. A published package has only the last one.
const FOLDERS: [&str; 3] = ["../src", "../plan/src", "src"];

fn main() -> io::Result<()> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut text = String::new();
    for folder in FOLDERS.map(|folder| package.join(folder)) {
        println!("cargo::rerun-if-changed={}", folder.display());
        if folder.is_dir() {
            append(&folder, &mut text)?;
        }
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("sources.txt"), text)
}

/// Appends every Rust file below `folder`, in the order of the paths.
fn append(folder: &Path, text: &mut String) -> io::Result<()> {
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry?;
        let is_rust = entry.path().extension().is_some_and(|extension| extension == "rs");
        if entry.file_type().is_file() && is_rust {
            // The same text on every system: git may check files out with other line ends.
            *text += &fs::read_to_string(entry.path())?.replace("\r\n", "\n");
        }
    }
    Ok(())
}
