//! A plan in a file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use zerobubble::error::{Error, ErrorKind, Result};
use zerobubble::plan::{CheckedPlan, read_checked};

use crate::printable;

/// No file is read beyond this: the longest CSV that `plan` writes has half as many bytes.
const MOST_BYTES: u64 = 256 << 20;

const HINT: &str = "the path of a file that plan --format plan or csv wrote";

/// The plan in a file, proved. That a CSV has older letters is told on stderr.
pub fn read(path: &Path) -> Result<CheckedPlan> {
    let found = text(path, HINT).and_then(|text| Ok(read_checked(&text)?));
    let found = found.map_err(|error| error.in_file(path))?;
    if let Some(note) = found.note {
        // A closed stderr must not end anything.
        let line = printable::line(&format!("{}: {note}", path.display()));
        writeln!(io::stderr(), "{line}").ok();
    }
    Ok(found.plan)
}

/// What stands in a file that is a text, with a hint for where it cannot be read.
pub fn text(path: &Path, hint: &'static str) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    file.map_err(|error| Error::new(ErrorKind::Io, format!("cannot be read: {error}")).hint(hint))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::data(format!("more than {MOST_BYTES} bytes are too many")).hint(hint));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Error::data(format!("cannot be read: line {line} is not text in UTF-8"))
            .hint("save it as UTF-8")
    })
}
