//! What tells a torn, altered or foreign file from one that was written whole.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Component, Path};

use super::{CHECKSUMS, MANIFEST, disk};
use crate::error::{Error, Result};

/// A hash of the content of every file: text with one line `hash  name` for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checksums(Vec<(String, u128)>);

impl Checksums {
    pub(super) fn add(&mut self, name: &str, hash: u128) {
        self.0.push((name.to_owned(), hash));
    }

    /// Reads what [`text`](Self::text) gives, with line ends of any system. The manifest is the
    /// last that is written, so it is missing where the rest was torn off.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let wrong = || Error::data("not the checksums of a checkpoint");
        let line = |line: &str| {
            let (hash, name) = line.split_once("  ")?;
            is_plain(name).then_some((name.to_owned(), u128::from_str_radix(hash, 16).ok()?))
        };
        let text = std::str::from_utf8(text).map_err(|_| wrong())?.replace("\r\n", "\n");
        let sums = Self(text.lines().map(line).collect::<Option<_>>().ok_or_else(wrong)?);
        // A file that is listed many times would be read as often.
        let names: BTreeSet<&str> = sums.0.iter().map(|(name, _)| name.as_str()).collect();
        let once = names.len() == sums.0.len();
        // Anything else than the very text that was written is not to be trusted.
        if once && sums.has(MANIFEST) && sums.text() == text { Ok(sums) } else { Err(wrong()) }
    }

    /// Whether all of these files in `folder` have the content that was written.
    ///
    /// # Errors
    ///
    /// The first that has not.
    pub(super) fn check(&self, folder: &Path) -> Result<()> {
        for (name, expected) in &self.0 {
            let path = folder.join(name);
            if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                let problem = format!("{CHECKSUMS} lists it, and it is not there");
                return Err(Error::data(problem).in_file(path));
            }
            let found = disk::hash(&path).map_err(|error| error.in_file(&path))?;
            if found != *expected {
                return Err(Error::data(format!(
                    "its content has the checksum {found:032x}, it was written with \
                     {expected:032x}"
                ))
                .in_file(path));
            }
        }
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(of, _)| of == name)
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(name, hash)| format!("{hash:032x}  {name}\n")).collect()
    }
}

/// Whether a name is that of a file in the very folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    first && parts.next().is_none() && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_128;

    use super::super::FILES;
    use super::*;

    fn sums(contents: &[Vec<u8>; 4]) -> Checksums {
        let mut sums = Checksums::default();
        FILES.iter().zip(contents).for_each(|(name, content)| sums.add(name, xxh3_128(content)));
        sums
    }

    #[test]
    fn hashes_are_those_of_xxh128sum() {
        let mut sums = Checksums::default();
        sums.add("abc", xxh3_128(b"abc"));
        assert_eq!(sums.text(), "06b05ab6733a618578af5f94892f3950  abc\n");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let hash = "0".repeat(32);
        for name in ["../a", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a/"] {
            let text = format!("{hash}  {name}\n{hash}  manifest.json\n");
            assert!(Checksums::parse(text.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn no_file_is_listed_twice() {
        let line = format!("{}  manifest.json\n", "0".repeat(32));
        assert!(Checksums::parse(line.as_bytes()).is_ok());
        assert!(Checksums::parse(line.repeat(2).as_bytes()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn text_parses_back_and_knows_the_contents(
            contents: [Vec<u8>; 4], at: prop::sample::Index, bit in 0u8..8
        ) {
            let folder = tempfile::tempdir().unwrap();
            let sums = sums(&contents);
            let text = sums.text();
            prop_assert_eq!(&Checksums::parse(text.as_bytes()).unwrap(), &sums);
            let windows = text.replace('\n', "\r\n");
            prop_assert_eq!(&Checksums::parse(windows.as_bytes()).unwrap(), &sums);
            for (name, content) in FILES.iter().zip(&contents) {
                fs::write(folder.path().join(name), content).unwrap();
            }
            prop_assert!(sums.check(folder.path()).is_ok());
            // A flipped bit of the text is no longer a text of checksums, or none of the contents'.
            let mut torn = text.clone().into_bytes();
            torn[at.index(text.len())] ^= 1u8 << bit;
            let check = |sums: Checksums| sums.check(folder.path());
            prop_assert!(Checksums::parse(&torn).and_then(check).is_err());
            prop_assert!(Checksums::parse(&text.as_bytes()[..at.index(text.len())]).is_err());
            let (name, content) = (FILES[at.index(4)], &contents[at.index(4)]);
            fs::write(folder.path().join(name), [content, &b"x"[..]].concat()).unwrap();
            prop_assert!(sums.check(folder.path()).is_err());
        }
    }
}
