//! A file or a folder -> its text.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};
use zerobubble::error::{Error, ErrorKind, Result};

/// What counts as text in a folder.
const EXTENSIONS: [&str; 5] = ["md", "rs", "toml", "txt", "wgsl"];
/// What some programs write before the first character of a text in UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a file, or of all text files below a folder in the order of their paths.
///
/// In a folder, hidden entries, links, folders named `target` and the folder `besides` are skipped.
pub fn read(path: &Path, besides: Option<&Path>) -> Result<String> {
    if !fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir() {
        return read_text(path);
    }
    let files = text_files(path, besides)?;
    if files.is_empty() {
        return Err(Error::data("the folder has no text files")
            .in_file(path)
            .hint(format!("a folder with files of type {}", EXTENSIONS.join(", "))));
    }
    let mut text = String::new();
    for file in files {
        text += &read_text(&file)?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// All text files below `folder`, in the order of their paths.
fn text_files(folder: &Path, besides: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let besides = besides.and_then(|besides| fs::canonicalize(besides).ok());
    let is_besides = |entry: &DirEntry| {
        besides.is_some()
            && entry.file_type().is_dir()
            && fs::canonicalize(entry.path()).ok() == besides
    };
    // Links below the folder are neither folders nor files.
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter();
    for entry in
        entries.filter_entry(|entry| entry.depth() == 0 || !is_skipped(entry) && !is_besides(entry))
    {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            let error = error.into_io_error().expect("who follows no links finds no loop");
            unreadable(&path, &error)
        })?;
        if entry.file_type().is_file() && is_text(entry.path()) {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn is_skipped(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    is_hidden || (entry.file_type().is_dir() && name == "target")
}

/// Whether a file of this name is text in a folder.
pub fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|text| extension == *text))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Error::data(format!("not UTF-8 text: byte {position} cannot be read"))
            .in_file(path)
            .hint("convert the file to UTF-8, or leave it out")
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.remove(0);
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be read: {error}"))
        .in_file(path)
        .hint("the path of a text file or of a folder with text files")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_its_text_files_in_the_order_of_their_paths() {
        let folder = folder(&[
            ("b.rs", b"B"),
            ("a.md", b"\xef\xbb\xbfA"),
            ("a/z.md", b"Z\n"),
            ("a/image.png", &[0xff]),
            (".git/c.txt", b"hidden"),
            (".d.txt", b"hidden"),
            ("target/e.rs", b"built"),
            ("run/checkpoints/plan.txt", b"saved"),
        ]);
        let checkpoints = folder.path().join("run/../run/checkpoints");
        assert_eq!(read(folder.path(), Some(&checkpoints)).unwrap(), "Z\nA\nB\n");
        assert_eq!(read(folder.path(), None).unwrap(), "Z\nA\nB\nsaved\n");
    }

    #[test]
    fn unusable_texts_are_errors_that_name_the_file() {
        let folder = folder(&[("latin.txt", b"caf\xe9"), ("pictures/a.png", b"")]);
        let rows = [
            ("latin.txt", ErrorKind::Data, "not UTF-8 text: byte 3 cannot be read"),
            ("pictures", ErrorKind::Data, "the folder has no text files"),
            ("absent.txt", ErrorKind::Io, "cannot be read: No such file"),
        ];
        for (file, kind, problem) in rows {
            let path = folder.path().join(file);
            let error = read(&path, None).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.problem.starts_with(problem), "{error}");
            assert_eq!(error.site.file.as_ref(), Some(&path));
        }
    }
}
