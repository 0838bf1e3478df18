//! Faults of a line, and of a file.

use super::{
    InputError,
    meant::parse_range,
    meant::{hidden, shown, together},
    parse::{only_implicit_with_others, read_range},
};
use crate::ui::{error::InputErrors, visible::code};

/// The faults of a file: the first refusals with their line numbers, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// In the order of the lines, which count from 1; 0 stands for the whole file.
    pub first: Vec<(usize, InputError)>,
    /// The number of the others.
    pub more: usize,
}

impl Faults {
    /// Keeps a refusal unless there are enough: a file may have a million.
    pub(super) fn push(&mut self, line: usize, refusal: impl FnOnce() -> InputError) {
        if self.first.len() < InputErrors::MAX_SHOWN {
            self.first.push((line, refusal()));
        } else {
            self.more += 1;
        }
    }

    /// Adds a refusal of the list as a whole.
    pub(super) fn push_always(&mut self, line: usize, refusal: InputError) {
        self.first.push((line, refusal));
        self.first.sort_by_key(|(line, _)| *line);
        self.more += self.first.len().saturating_sub(InputErrors::MAX_SHOWN);
        self.first.truncate(InputErrors::MAX_SHOWN);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// Why a line is refused, not yet as text.
pub(super) enum Fault {
    /// A hidden character, or one that ends a line in other programs.
    Hidden,
    /// The range.
    Range,
    /// The expiry.
    Time(InputError),
    /// The word with this number.
    Word(usize),
}

impl Fault {
    pub(super) fn explain(self, line: &str) -> InputError {
        let (text, comment) = split(line);
        let words: Vec<&str> = text.split_whitespace().collect();
        let fields = words[0..words.len().min(1)].concat();
        let fields = fields.split([',', ';']).filter(|field| !field.is_empty());
        let second = words.get(1).copied().unwrap_or_default();
        match self {
            Self::Time(refusal) => refusal,
            Self::Hidden => hidden(text).unwrap_or_else(|| hidden_in_comment(text, comment)),
            _ if fields.count() > 1
                || read_range(second.trim_end_matches([',', ';'])).is_some() =>
            {
                InputError::new(
                    "the line holds more than one range",
                    "write one range on each line",
                )
            }
            Self::Range => parse_range(words[0])
                .err()
                .unwrap_or_else(only_implicit_with_others),
            Self::Word(index) => together(&words[..words.len().min(3)]).unwrap_or_else(|| {
                InputError::new(
                    format!(
                        "unknown word `{}` after `{}`",
                        shown(words[index]),
                        shown(words[0])
                    ),
                    "a line is: RANGE [expires=TIME] [# comment]",
                )
            }),
        }
    }
}

fn hidden_in_comment(text: &str, comment: Option<&str>) -> InputError {
    let before = text.chars().count() + 2;
    let found = (before..).zip(comment.unwrap_or_default().chars());
    let mut found = found.skip_while(|(_, letter)| !ends_a_line(*letter));
    let (column, letter) = found.next().unwrap_or_default();
    InputError::new(
        format!(
            "the comment has a character in column {column} that ends a line in other programs: {}",
            code(letter)
        ),
        "end each line with a line feed; check that the rest is a comment, too",
    )
}

/// The text before the comment, and the comment.
pub(super) fn split(line: &str) -> (&str, Option<&str>) {
    let line = line.trim_end_matches('\r');
    match line.split_once('#') {
        Some((words, comment)) => (words, Some(comment)),
        None => (line, None),
    }
}

/// Whether other programs end a line at the character, or a file was torn there. Text after it may
/// not have been meant as a comment.
pub(super) fn ends_a_line(letter: char) -> bool {
    matches!(
        letter,
        '\0' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether the file can hold this comment.
pub fn can_be_comment(text: &str) -> bool {
    !text.contains(|letter| letter == '\n' || ends_a_line(letter))
}

#[cfg(test)]
mod tests {
    use crate::ranges::RangesFile;

    fn parse(text: &str) -> RangesFile {
        RangesFile::parse(text).expect(text)
    }

    #[test]
    fn hidden_characters_are_named() {
        for (text, words) in [
            (
                "10.0.0.0/8\u{200b}\n",
                "column 11 has a hidden character: U+200B (zero width space)",
            ),
            (
                "10.0.0.0/8\u{a0}# office\n",
                "column 11 has a hidden character: U+00A0 (no-break space)",
            ),
            (
                "10.0.0.0/8\0\0\0\n",
                "column 11 has a hidden character: U+0000 (NUL)",
            ),
            (
                "\u{202e}10.0.0.0/8\n",
                "column 1 has a hidden character: U+202E (writing direction)",
            ),
            (
                "\u{1b}[31m10.0.0.0/8\n",
                "column 1 has a hidden character: U+001B (escape)",
            ),
            (
                "10.0.0.0/8\r192.0.2.0/24\r",
                "column 11 has a hidden character: U+000D (carriage return)",
            ),
            (
                "# office\r10.0.0.0/8\r",
                "column 9 that ends a line in other programs: U+000D",
            ),
            (
                "10.0.0.0/8 # office\0\0",
                "column 20 that ends a line in other programs: U+0000",
            ),
        ] {
            let faults = RangesFile::parse(text).expect_err(text);
            let cause = &faults.first[0].1.cause;
            assert!(cause.contains(words), "{text:?}: {cause}");
        }
        // A comment may use any script.
        for text in [
            "10.0.0.0/8 # \u{1f468}\u{200d}\u{1f4bb} \u{5d0}\u{200f}\u{a0}\u{1b}[31m\n",
            "10.0.0.0/8\t# x\t\r\n",
        ] {
            parse(text);
        }
    }

    #[test]
    fn words_that_belong_together_are_named() {
        for (text, words, hint) in [
            (
                "198.51.100.0 255.255.255.0\n",
                "network mask",
                "`198.51.100.0/24`",
            ),
            ("198.51.100.0 /24 # x\n", "space in it", "`198.51.100.0/24`"),
            (
                "192.0.2.4 - 192.0.2.7\n",
                "from one address",
                "as a CIDR: `192.0.2.4/30`",
            ),
            (
                "10.0.0.0/8, 192.0.2.0/24\n",
                "more than one",
                "write one range on each line",
            ),
            (
                "10.0.0.0/8,192.0.2.0/24\n",
                "more than one",
                "write one range on each line",
            ),
            (
                "10.0.0.0/8 192.0.2.0/24\n",
                "more than one",
                "write one range on each line",
            ),
            ("10.0.0.0/8, # office\n", "punctuation", "`10.0.0.0/8`"),
        ] {
            let faults = RangesFile::parse(text).expect_err(text);
            let refusal = &faults.first[0].1;
            assert!(refusal.cause.contains(words), "{text}: {refusal}");
            assert_eq!(refusal.hint, hint, "{text}");
        }
        let long = format!("10.0.0.0/8 {}\n", "x".repeat(100_000));
        let faults = RangesFile::parse(&long).expect_err("a long line");
        assert!(faults.first[0].1.cause.len() < 200, "{faults:?}");
    }

    #[test]
    fn the_first_of_many_faults_are_kept() {
        let text = "10.0.0.1/8\n".repeat(30_000);
        let faults = RangesFile::parse(&text).expect_err("all wrong");
        assert_eq!((faults.first.len(), faults.more), (10, 29_990));
        let text = format!("{text}128.0.0.0/1");
        let faults = RangesFile::parse(&text).expect_err("all wrong");
        assert_eq!((faults.first.len(), faults.more), (10, 29_991));
    }

    #[test]
    fn a_time_beyond_all_clocks_is_never() {
        let text = "10.0.0.0/8 expires=9999-12-31T23:59:59Z # for ever\n";
        let file = parse(text);
        assert_eq!(file.to_string(), text);
        assert_eq!(file.list().entries()[0].expires, None);
    }
}
