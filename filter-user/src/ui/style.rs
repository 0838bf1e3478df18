//! Colours. They are ours alone, and are written only if the reader of the stream takes them.

use std::{env, fmt::Write as _, io};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use clap::builder::styling::{AnsiColor, Style};

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it should be: enforcing, allowed, added.
    Good,
    /// Worth a look: monitoring, a warning, a change.
    Caution,
    /// Wrong or refused: open, dropped, removed, an error.
    Bad,
    /// The next step.
    Hint,
    /// Less important: units, `never`.
    Dim,
    /// Headings.
    Strong,
}

impl Ink {
    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Caution => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Hint => AnsiColor::Cyan.on_default(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }

    /// `text` in this colour.
    pub fn paint(self, text: &str) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// Sets the choice for all streams, also for the texts of `clap`. `auto` is for a terminal, and
/// follows `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR` and `TERM`.
pub fn choose(choice: clap::ColorChoice) {
    match choice {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    }
    .write_global();
}

/// The same from the words of a command line that is not parsed: for its own error.
pub fn choose_from_words() {
    let mut words = env::args_os().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let value = match word.split_once('=') {
            Some(("--color", value)) => value.to_owned(),
            None if word == "--color" => match words.next() {
                Some(value) => value.to_string_lossy().into_owned(),
                None => return,
            },
            None if word == "--" => return,
            _ => continue,
        };
        if let Ok(choice) = value.parse() {
            choose(choice);
        }
    }
}

/// Whether stdout takes colours.
pub fn on_stdout() -> bool {
    takes(&io::stdout())
}

/// Whether stderr takes colours.
pub fn on_stderr() -> bool {
    takes(&io::stderr())
}

fn takes<S: RawStream>(stream: &S) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// The first word of a message, and the colour of what it announces.
const WORDS: [(&str, Ink); 6] = [
    ("error:", Ink::Bad),
    ("refused:", Ink::Bad),
    ("warning:", Ink::Caution),
    ("note:", Ink::Hint),
    ("info:", Ink::Hint),
    ("hint:", Ink::Hint),
];

/// A message with the first words of its lines in colour, and the lines of a difference.
pub fn message(text: &str) -> String {
    let mut coloured = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let (line, end) = match line.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (line, ""),
        };
        let word = WORDS.iter().find(|(word, _)| line.starts_with(word));
        if let Some((word, ink)) = word {
            let rest = &line[word.len()..];
            let _ = write!(coloured, "{}{rest}{end}", ink.paint(word));
        } else if let Some(ink) = of_difference(line) {
            let _ = write!(coloured, "{}{end}", ink.paint(line));
        } else {
            let _ = write!(coloured, "{line}{end}");
        }
    }
    coloured
}

/// The colour of a line like `+192.0.2.1`.
fn of_difference(line: &str) -> Option<Ink> {
    let mut letters = line.chars();
    let ink = match letters.next()? {
        '+' => Ink::Good,
        '-' => Ink::Bad,
        '~' => Ink::Caution,
        _ => return None,
    };
    letters.next()?.is_ascii_hexdigit().then_some(ink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_and_differences_have_a_colour() {
        assert_eq!(
            message("error: no such `\\u{1b}`\nhint: look\nplain: text"),
            "\x1b[31merror:\x1b[0m no such `\\u{1b}`\n\x1b[36mhint:\x1b[0m look\nplain: text"
        );
        assert_eq!(
            message("+192.0.2.1\n-2001:db8::/32\n~fe80::1\n- - -\n"),
            "\x1b[32m+192.0.2.1\x1b[0m\n\x1b[31m-2001:db8::/32\x1b[0m\n\x1b[33m~fe80::1\x1b[0m\n- - -\n"
        );
        assert_eq!(message(""), "");
    }
}
