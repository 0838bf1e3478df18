//! A line of text with colours: what is added is escaped, so that every colour is ours.

use std::fmt::Display;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{style::Ink, visible::visible_in_line};

/// Pieces of text, each with a colour or without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    spans: Vec<(Option<Ink>, String)>,
}

impl<T: Display> From<T> for Line {
    fn from(text: T) -> Self {
        Self::default().and(text)
    }
}

impl Line {
    /// `text` in a colour.
    pub fn inked(ink: Ink, text: impl Display) -> Self {
        Self::default().and_inked(ink, text)
    }

    /// The line with `text` at its end.
    #[must_use]
    pub fn and(self, text: impl Display) -> Self {
        self.with(None, text)
    }

    /// The line with `text` in a colour at its end.
    #[must_use]
    pub fn and_inked(self, ink: Ink, text: impl Display) -> Self {
        self.with(Some(ink), text)
    }

    /// The line with another one at its end.
    #[must_use]
    pub fn and_line(mut self, other: Self) -> Self {
        self.spans.extend(other.spans);
        self
    }

    fn with(mut self, ink: Option<Ink>, text: impl Display) -> Self {
        let text = text.to_string();
        if !text.is_empty() {
            self.spans.push((ink, visible_in_line(&text).into_owned()));
        }
        self
    }

    /// Whether it has no text.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Its width in columns of a terminal.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(_, text)| text.width()).sum()
    }

    /// Its text; `colours` adds the codes of a terminal. The end has no blanks.
    pub fn text(&self, colours: bool) -> String {
        let spans = self.spans.iter();
        let text: String = spans
            .map(|(ink, text)| match ink {
                Some(ink) if colours && !text.trim().is_empty() => ink.paint(text),
                _ => text.clone(),
            })
            .collect();
        text.trim_end().to_owned()
    }

    /// The line, cut to `width` columns: `…` marks the cut.
    #[must_use]
    pub fn cut(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut cut = self.split(width.saturating_sub(1)).0;
        if width > 0 {
            cut.spans.push((None, "…".to_owned()));
        }
        cut
    }

    /// The first letters up to `width` columns, and the rest.
    fn split(self, width: usize) -> (Self, Self) {
        let (mut head, mut tail) = (Self::default(), Self::default());
        let mut left = width;
        let mut is_full = false;
        for (ink, text) in self.spans {
            let mut end = 0;
            for letter in text.chars() {
                let own = letter.width().unwrap_or(0);
                is_full |= own > left;
                if is_full {
                    break;
                }
                left -= own;
                end += letter.len_utf8();
            }
            let (one, other) = text.split_at(end);
            for (line, text) in [(&mut head, one), (&mut tail, other)] {
                if !text.is_empty() {
                    line.spans.push((ink, text.to_owned()));
                }
            }
        }
        (head, tail)
    }

    /// The line as several of at most `width` columns, broken between words; all but the first
    /// begin with `indent` blanks.
    pub fn wrapped(self, width: usize, indent: usize) -> Vec<Self> {
        if self.width() <= width {
            return vec![self];
        }
        let indent = indent.min(width / 2);
        let begin = || Self::default().with(None, " ".repeat(indent));
        let (mut lines, mut line) = (Vec::new(), Self::default());
        let mut used = 0;
        for word in self.words() {
            let is_blank = word.text(false).is_empty();
            let own = word.width();
            let begins = lines.is_empty() && used == 0;
            if is_blank {
                // A blank at the end of a line is not written. At the beginning it is an indent.
                if begins || used > 0 && used + own <= width {
                    used += own;
                    line = line.and_line(word);
                } else if used > 0 {
                    lines.push(std::mem::replace(&mut line, begin()));
                    used = 0;
                }
                continue;
            }
            if used > 0 && used + own > width {
                lines.push(std::mem::replace(&mut line, begin()));
                used = 0;
            }
            if used == 0 && !lines.is_empty() {
                used = indent;
            }
            let mut rest = word;
            while used + rest.width() > width {
                let (head, tail) = rest.clone().split(width.saturating_sub(used).max(1));
                if head.is_empty() {
                    // A wide letter in a terminal of one column.
                    break;
                }
                lines.push(std::mem::replace(&mut line, begin()).and_line(head));
                (rest, used) = (tail, indent);
            }
            used += rest.width();
            line = line.and_line(rest);
        }
        if used > 0 {
            lines.push(line);
        }
        lines
    }

    /// Its words and the blanks between them.
    fn words(self) -> Vec<Self> {
        let mut words: Vec<(bool, Self)> = Vec::new();
        for (ink, text) in self.spans {
            let mut rest = text.as_str();
            while let Some(first) = rest.chars().next() {
                let is_blank = first == ' ';
                let end = rest.find(|letter| (letter == ' ') != is_blank);
                let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
                rest = after;
                match words.last_mut() {
                    Some((last, word)) if *last == is_blank => {
                        word.spans.push((ink, part.to_owned()));
                    }
                    _ => words.push((
                        is_blank,
                        Self {
                            spans: vec![(ink, part.to_owned())],
                        },
                    )),
                }
            }
        }
        words.into_iter().map(|(_, word)| word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.text(false)).collect()
    }

    #[test]
    fn foreign_colours_are_escaped_and_ours_are_not() {
        let line = Line::inked(Ink::Good, "a\x1b[31mb").and(" \u{202e}");
        assert_eq!(line.text(true), "\x1b[32ma\\u{1b}[31mb\x1b[0m \\u{202e}");
        assert_eq!(line.text(false), "a\\u{1b}[31mb \\u{202e}");
    }

    #[test]
    fn a_line_is_cut_by_columns() {
        assert_eq!(Line::from("comment").cut(7).text(false), "comment");
        assert_eq!(Line::from("comment").cut(5).text(false), "comm…");
        assert_eq!(Line::from("\u{4e2d}\u{4e2d}\u{4e2d}").cut(4).width(), 3);
        assert_eq!(Line::from("ab").cut(0).text(false), "");
    }

    #[test]
    fn a_line_is_broken_between_words() {
        let line = || Line::from("ranges  one two").and_inked(Ink::Bad, " three four");
        assert_eq!(texts(&line().wrapped(80, 8)), [line().text(false)]);
        assert_eq!(
            texts(&line().wrapped(16, 8)),
            ["ranges  one two", "        three", "        four"]
        );
        let long = Line::from("x 2001:db8:1111:2222:3333:4444:5555:6666");
        for width in 1..40 {
            let lines = long.clone().wrapped(width, 2);
            assert!(lines.iter().all(|line| line.width() <= width), "{width}");
            let all: String = texts(&lines).concat().replace(' ', "");
            assert_eq!(all, long.text(false).replace(' ', ""), "{width}");
        }
    }
}
