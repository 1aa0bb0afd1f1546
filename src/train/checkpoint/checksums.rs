//! What tells a torn, altered or foreign file from one that was written whole.

use xxhash_rust::xxh3::xxh3_128;

use super::FILES;
use crate::error::{Error, Result};

/// A hash of the content of every file: text with one line `hash  name` for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checksums(Vec<(String, u128)>);

impl Checksums {
    pub(super) fn add(&mut self, name: &str, content: &[u8]) {
        self.0.push((name.to_owned(), xxh3_128(content)));
    }

    /// Reads what [`text`](Self::text) gives for all of [`FILES`].
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let wrong = || {
            let names = FILES.join(", ");
            Error::data(format!("not the checksums of {names}"))
        };
        let line = |line: &str| {
            let (hash, name) = line.split_once("  ")?;
            Some((name.to_owned(), u128::from_str_radix(hash, 16).ok()?))
        };
        let lines =
            std::str::from_utf8(text).ok().and_then(|text| text.lines().map(line).collect());
        let sums = Self(lines.ok_or_else(wrong)?);
        let complete = FILES.iter().all(|file| sums.0.iter().any(|(name, _)| name == file));
        // Anything else than the very text that was written is not to be trusted.
        if complete && sums.text().as_bytes() == text { Ok(sums) } else { Err(wrong()) }
    }

    /// Whether `content` is what was written to `name`.
    pub(super) fn check(&self, name: &str, content: &[u8]) -> Result<()> {
        let found = xxh3_128(content);
        match self.0.iter().find(|(of, _)| of == name) {
            Some((_, expected)) if *expected == found => Ok(()),
            Some((_, expected)) => Err(Error::data(format!(
                "the content of {} bytes has the checksum {found:032x}, it was written with \
                 {expected:032x}",
                content.len()
            ))),
            None => Err(Error::data("it has no checksum")),
        }
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(name, hash)| format!("{hash:032x}  {name}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(contents: &[Vec<u8>; 4]) -> Checksums {
        let mut sums = Checksums::default();
        FILES.iter().zip(contents).for_each(|(name, content)| sums.add(name, content));
        sums
    }

    #[test]
    fn hashes_are_those_of_xxh128sum() {
        let mut sums = Checksums::default();
        sums.add("abc", b"abc");
        assert_eq!(sums.text(), "06b05ab6733a618578af5f94892f3950  abc\n");
    }

    proptest! {
        #[test]
        fn text_parses_back_and_knows_the_contents(
            contents: [Vec<u8>; 4], at: prop::sample::Index, bit in 0u8..8
        ) {
            let sums = sums(&contents);
            let text = sums.text();
            prop_assert_eq!(&Checksums::parse(text.as_bytes()).unwrap(), &sums);
            for (name, content) in FILES.iter().zip(&contents) {
                prop_assert!(sums.check(name, content).is_ok());
                let longer = [&content[..], b"x"].concat();
                prop_assert!(sums.check(name, &longer).is_err());
            }
            // A flipped bit of the text is no longer a text of checksums, or none of the contents'.
            let mut torn = text.clone().into_bytes();
            torn[at.index(text.len())] ^= 1u8 << bit;
            let check = |sums: Checksums| {
                FILES.iter().zip(&contents).try_for_each(|(name, of)| sums.check(name, of))
            };
            prop_assert!(Checksums::parse(&torn).and_then(check).is_err());
            prop_assert!(Checksums::parse(&text.as_bytes()[..at.index(text.len())]).is_err());
        }
    }
}
