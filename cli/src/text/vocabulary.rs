//! The characters of a text as tokens.

use std::cmp::Reverse;
use std::collections::HashMap;

/// A vocabulary is no larger than this, so that a token fits 16 bits.
const LIMIT: usize = 1 << 16;
/// Stands for every character that is too rare for the vocabulary.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The distinct characters of a text, in order. A token is a character's position here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    characters: Vec<char>,
}

impl Vocabulary {
    /// The most frequent characters of `text`, at most 65,536; the rest become one replacement
    /// character.
    pub fn of(text: &str) -> Self {
        Self::limited(text, LIMIT)
    }

    fn limited(text: &str, limit: usize) -> Self {
        let mut counts: HashMap<char, usize> = HashMap::new();
        for character in text.chars() {
            *counts.entry(character).or_default() += 1;
        }
        let mut by_count: Vec<(char, usize)> = counts.into_iter().collect();
        // Equally frequent characters need an order too, or the map's own would decide.
        by_count.sort_unstable_by_key(|&(character, count)| (Reverse(count), character));
        let mut characters: Vec<char> = by_count.into_iter().map(|(c, _)| c).collect();
        if characters.len() > limit {
            characters.truncate(limit - 1);
            if !characters.contains(&REPLACEMENT) {
                characters.push(REPLACEMENT);
            }
        }
        characters.sort_unstable();
        Self { characters }
    }

    /// How many different tokens there are.
    pub fn size(&self) -> usize {
        self.characters.len()
    }

    /// All characters, by their token.
    pub fn characters(&self) -> String {
        self.characters.iter().collect()
    }

    /// The token of `character`, if it has one of its own.
    pub fn token(&self, character: char) -> Option<u16> {
        self.characters.binary_search(&character).ok().map(|position| position as u16)
    }

    /// The tokens of `text`, and how many of its characters were replaced.
    ///
    /// # Panics
    ///
    /// Panics on a character that neither is in the vocabulary nor can be replaced.
    pub fn encode(&self, text: &str) -> (Vec<u16>, usize) {
        let replacement = self.token(REPLACEMENT);
        let mut replaced = 0;
        let token = |character| {
            self.token(character).unwrap_or_else(|| {
                replaced += 1;
                replacement.expect("the vocabulary is of this text")
            })
        };
        (text.chars().map(token).collect(), replaced)
    }

    /// The text of `tokens`. What is no token is shown as the replacement character.
    pub fn decode(&self, tokens: &[i64]) -> String {
        let character = |token: &i64| usize::try_from(*token).ok().map(|t| self.characters.get(t));
        tokens.iter().map(|token| character(token).flatten().unwrap_or(&REPLACEMENT)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_characters_become_the_replacement_character_and_are_counted() {
        let common: String = ('\u{4e00}'..).take(127).flat_map(|c| [c, c]).collect();
        let vocabulary = Vocabulary::limited(&(common.clone() + "xy"), 128);
        assert_eq!(vocabulary.size(), 128);
        let (tokens, replaced) = vocabulary.encode("x\u{4e00}y");
        let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        assert_eq!(vocabulary.decode(&tokens), "\u{fffd}\u{4e00}\u{fffd}");
        assert_eq!(replaced, 2);
        // One fewer, and every character is kept.
        let vocabulary = Vocabulary::limited(&(common + "x"), 128);
        assert_eq!((vocabulary.size(), vocabulary.token('x')), (128, Some(0)));
        assert_eq!(vocabulary.decode(&[-1, 999]), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn every_character_of_a_text_in_any_language_is_kept() {
        let all: String = ('\u{1}'..='\u{ffff}').filter(|c| *c != REPLACEMENT).collect();
        let vocabulary = Vocabulary::of(&all);
        let (tokens, replaced) = vocabulary.encode(&all);
        assert_eq!((vocabulary.size(), replaced), (all.chars().count(), 0));
        let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        assert_eq!(vocabulary.decode(&tokens), all);
    }
}
