//! This process's command line as a shell reads it.

/// The command that repeats this run.
pub fn command() -> String {
    let arguments = std::env::args_os().skip(1);
    let words = arguments.map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once("zerobubble".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// `word` so that a POSIX shell takes it for one word.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_stays_one_word() {
        let rows = [
            ("--devices", "--devices"),
            ("gpu:0x2,cpu", "gpu:0x2,cpu"),
            ("my text.txt", "'my text.txt'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ];
        for (word, expected) in rows {
            assert_eq!(quoted(word), expected);
        }
    }
}
