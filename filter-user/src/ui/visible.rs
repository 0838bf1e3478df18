//! Hidden characters, and those that change how others appear: named in input, escaped in output.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a terminal obeys the character or shows nothing for it: control characters, marks and
/// overrides of the writing direction, and characters without width.
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text for output, lines kept: hidden characters as `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |letter| letter != '\n' && is_hidden(letter))
}

/// The text for use within a line.
pub fn visible_in_line(text: &str) -> Cow<'_, str> {
    escape(text, is_hidden)
}

fn escape(text: &str, escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escaped) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if escaped(letter) {
            visible.extend(letter.escape_unicode());
        } else {
            visible.push(letter);
        }
    }
    Cow::Owned(visible)
}

/// JSON with hidden characters escaped by JSON's own rule. They occur only in strings.
pub fn visible_json(json: String) -> String {
    let escaped = |letter: char| letter != '\n' && is_hidden(letter);
    if !json.contains(escaped) {
        return json;
    }
    let mut visible = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        if escaped(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(visible, "\\u{unit:04x}");
            }
        } else {
            visible.push(letter);
        }
    }
    visible
}

/// The character as a code and, if well known, with its name.
pub fn code(letter: char) -> String {
    let name = match letter {
        '\0' => "NUL",
        '\t' => "tab",
        '\r' => "carriage return",
        '\u{1b}' => "escape",
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero width space",
        '\u{200c}' | '\u{200d}' => "zero width joiner",
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "writing direction"
        }
        '\u{85}' | '\u{2028}' | '\u{2029}' => "line separator",
        '\u{feff}' => "byte order mark",
        letter if letter.is_control() => "control character",
        letter if letter.is_whitespace() => "space",
        _ => "invisible",
    };
    format!("U+{:04X} ({name})", u32::from(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, want) in [
            (
                "plain, \u{e9}\u{4e2d}\u{1f600}",
                "plain, \u{e9}\u{4e2d}\u{1f600}",
            ),
            ("a\x1b[31mb\x07", "a\\u{1b}[31mb\\u{7}"),
            ("two\nlines\r", "two\nlines\\u{d}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            (
                "a\u{202e}b\u{2066}c\u{200b}\u{feff}",
                "a\\u{202e}b\\u{2066}c\\u{200b}\\u{feff}",
            ),
        ] {
            assert_eq!(visible(text), want);
        }
        assert_eq!(visible_in_line("a\nb"), "a\\u{a}b");
    }

    #[test]
    fn json_says_the_same() {
        let text = "\x1b\u{9b}\u{202e}\u{e0041}\u{7f}\n";
        let json = visible_json(serde_json::to_string(text).expect("JSON"));
        assert!(json.is_ascii(), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }
}
