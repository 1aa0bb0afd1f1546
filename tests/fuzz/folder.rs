//! An input as the files of a folder.
//!
//! ```text
//! sealed
//! ==> step-00000001/manifest.json
//! {"format": 1}
//! ==> .lock -> ../outside/file
//! ```
//!
//! With `sealed`, every folder has the checksums of the files that it has. So mutations of a file
//! get past them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_128;

pub const FILES: [&str; 4] =
    ["weights.safetensors", "optimizer.safetensors", "plan.txt", "manifest.json"];
pub const CHECKSUMS: &str = "checksums.xxh128";

const HEAD: &[u8] = b"\n==> ";

/// What is in a folder, by path.
pub type Files = BTreeMap<String, File>;

#[derive(Debug, Clone, PartialEq)]
pub enum File {
    Content(Vec<u8>),
    /// A link to this path, where the system has links that anybody may make.
    Link(String),
}

/// The files that an input describes.
pub fn files(input: &[u8]) -> Files {
    let mut parts = split(input).into_iter();
    let sealed = parts.next().is_some_and(|first| first.starts_with(b"sealed"));
    let mut files = Files::new();
    for part in parts {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let head = String::from_utf8_lossy(&part[..end]);
        let content = part.get(end + 1..).unwrap_or_default();
        let (name, file) = match head.split_once(" -> ") {
            Some((name, target)) => (name, File::Link(target.into())),
            None => (&*head, File::Content(with_length(&head, content))),
        };
        // Links lead to the folder that is there for it, and nowhere else.
        if let File::Link(target) = &file {
            let inside = target.trim_start_matches("../").strip_prefix("outside");
            if inside.is_none_or(|inside| inside.contains([':', '\\', '\0', '.'])) {
                continue;
            }
        }
        // Files of a folder and beside the folders: no more is read.
        let mut words = name.split('/');
        let plain = |word: &str| {
            !["", ".", ".."].contains(&word) && word.len() < 100 && !word.contains(['\0', '\\'])
        };
        if words.clone().count() <= 2 && words.all(plain) {
            files.insert(name.to_owned(), file);
        }
    }
    // What is below a link would be written where it leads.
    let links = files.clone();
    let is_link = |name: &str| matches!(links.get(name), Some(File::Link(_)));
    files.retain(|name, _| !name.split_once('/').is_some_and(|(folder, _)| is_link(folder)));
    if sealed { seal(files) } else { files }
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < input.len() {
        if input[at..].starts_with(HEAD) {
            parts.push(&input[start..at]);
            at += HEAD.len();
            start = at;
        } else {
            at += 1;
        }
    }
    parts.push(&input[start..]);
    parts
}

/// Tensors that begin with their header have its length put before it: so mutations keep it right.
pub fn with_length(name: &str, content: &[u8]) -> Vec<u8> {
    if !name.ends_with(".safetensors") || !content.starts_with(b"{") {
        return content.to_vec();
    }
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    let data = content.get(end + 1..).unwrap_or_default();
    [&(end as u64).to_le_bytes()[..], &content[..end], data].concat()
}

/// Puts checksums into every folder that has one of the files.
pub fn seal(mut files: Files) -> Files {
    let mut sums: BTreeMap<String, String> = BTreeMap::new();
    for (path, file) in &files {
        if let (Some((folder, name)), File::Content(content)) = (path.split_once('/'), file)
            && FILES.contains(&name)
        {
            let line = format!("{:032x}  {name}\n", xxh3_128(content));
            *sums.entry(format!("{folder}/{CHECKSUMS}")).or_default() += &line;
        }
    }
    for (path, text) in sums {
        files.insert(path, File::Content(text.into_bytes()));
    }
    files
}

/// A folder that is filled anew for every input, and a file beside it that no input may reach.
pub struct Scratch {
    scratch: TempDir,
    there: Files,
}

impl Scratch {
    fn new() -> Self {
        // In memory, where the system has such a folder: mutations are thousands a second.
        let memory = Path::new("/dev/shm");
        let scratch = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let scratch = scratch.expect("a folder can be made");
        fs::create_dir(scratch.path().join("outside")).expect("it can be made");
        fs::write(scratch.path().join("outside/file"), "outside").expect("it can be written");
        let new = Self { scratch, there: Files::new() };
        new.clear();
        new
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// The folder with these files. Those that it has are left as they are.
    fn fill(&mut self, files: &Files) {
        // What opening a folder clears or renames is not as it was written.
        let hidden = |files: &Files| files.keys().any(|path| path.starts_with('.'));
        if hidden(&self.there) || hidden(files) {
            self.clear();
            self.there.clear();
        }
        let path = self.path();
        for old in self.there.keys().filter(|path| files.get(*path) != self.there.get(*path)) {
            // A file may stand where another input had a folder.
            fs::remove_file(path.join(old)).ok();
            if let Some((folder, _)) = old.split_once('/') {
                fs::remove_dir(path.join(folder)).ok();
            }
        }
        for (name, file) in files.iter().filter(|(name, file)| self.there.get(*name) != Some(file))
        {
            let path = path.join(name);
            fs::create_dir_all(path.parent().expect("it is in the folder")).ok();
            match file {
                File::Content(content) => fs::write(path, content).ok(),
                File::Link(target) => link(target, &path).ok(),
            };
        }
        self.there = files.clone();
    }

    fn clear(&self) {
        fs::remove_dir_all(self.path()).ok();
        fs::create_dir(self.path()).expect("it can be made");
    }

    fn assert_outside_is_untouched(&self) {
        let outside = self.scratch.path().join("outside");
        assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 1, "a file was made");
        assert_eq!(fs::read(outside.join("file")).expect("it is there"), b"outside");
    }
}

/// Runs `body` with a folder of these files, and asserts that it leaves all others alone.
pub fn with(files: &Files, body: impl FnOnce(&Path)) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.fill(files);
        body(&scratch.path());
        scratch.assert_outside_is_untouched();
    });
}

#[cfg(unix)]
fn link(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn link(_target: &str, _path: &Path) -> std::io::Result<()> {
    Ok(())
}
