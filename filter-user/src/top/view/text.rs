//! Text that fits its place.

use ratatui::text::Span;

/// The number of columns of a text.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text, or its beginning and an ellipsis if it is wider than `most`.
pub(super) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut cut = String::new();
    for letter in text.chars() {
        cut.push(letter);
        if width(&cut) >= most {
            cut.pop();
            break;
        }
    }
    if most > 0 {
        cut.push('…');
    }
    cut
}

/// The end of the text, at most `most` columns of it.
pub(super) fn tail(text: &str, most: usize) -> String {
    let mut starts = text.char_indices().map(|(start, _)| start);
    let start = starts.find(|start| width(&text[*start..]) <= most);
    text[start.unwrap_or(text.len())..].to_owned()
}

/// The text in lines of at most `most` columns, at spaces where there are some.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    let most = most.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && width(&line) + 1 + width(word) > most {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        // A word that is wider than a line continues on the next one.
        for letter in word.chars() {
            if width(&line) + width(letter.encode_utf8(&mut [0; 4])) > most && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines
}

/// As many of the `parts` as fit on a line, with this `gap`; the first one always.
pub(super) fn fitting(parts: &[&str], gap: &str, most: usize) -> String {
    let mut line = String::new();
    for part in parts {
        if !line.is_empty() {
            if width(&line) + width(gap) + width(part) > most {
                break;
            }
            line.push_str(gap);
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_wider_than_its_place() {
        let texts = [
            "",
            "one",
            "one two three",
            "\u{4e2d}\u{6587}\u{4e2d}\u{6587}",
            "unbreakable",
        ];
        for text in texts {
            for most in 0..20 {
                assert!(width(&cut(text, most)) <= most, "{text} {most}");
                let most = most.max(2);
                let lines = wrap(text, most);
                assert!(lines.iter().all(|line| width(line) <= most), "{lines:?}");
            }
        }
        assert_eq!(cut("one two", 5), "one …");
        assert_eq!(cut("one two", 7), "one two");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 6), ["unbrea", "kable"]);
        assert_eq!(tail("one two", 3), "two");
        assert_eq!(fitting(&["a b", "c", "d"], "  ", 6), "a b  c");
    }
}
