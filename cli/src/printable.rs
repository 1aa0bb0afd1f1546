//! Text from outside as it may be printed: a file's name, a driver's message, a model's own text.
//!
//! What a terminal takes for a command is written as an escape, as Rust writes it.

/// One line, whatever a path or a message contains.
pub fn line(text: &str) -> String {
    escaped(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Lines without control characters; tabs stay.
pub fn lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        if is_command(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Control characters, and those that change the direction of what follows (Unicode 15, UAX 9).
fn is_command(character: char) -> bool {
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || character.is_control() && character != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let rows = [
            ("a  b\n c", "a b c"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("a\u{202e}txt.exe", "a\\u{202e}txt.exe"),
            ("caf\u{e9} \u{4e00}", "caf\u{e9} \u{4e00}"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ];
        for (text, expected) in rows {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\tb\r\n\u{8}c"), "a\tb\\r\n\\u{8}c");
    }
}
