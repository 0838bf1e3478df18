//! A manual page as roff text, with the macros of man(7).

use std::fmt::Write as _;

/// The day on which the texts of the pages changed last.
const DATE: &str = "2026-12-01";

/// A page that is written from its top to its end.
pub(super) struct Page {
    text: String,
}

impl Page {
    /// The page `name`, with its heading and the section `NAME`.
    pub(super) fn new(name: &str, section: u8, about: &str) -> Self {
        let mut page = Self {
            text: String::new(),
        };
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            page.text,
            ".TH {} {section} {DATE} \"apifence {version}\" \"apifence manual\"",
            name.to_uppercase()
        );
        // No hyphens in names of options, and no wide spaces.
        page.line(".nh\n.ad l");
        page.section("NAME");
        let _ = writeln!(page.text, "{} \\- {}", plain(name), plain(about));
        page
    }

    /// Begins a section.
    pub(super) fn section(&mut self, title: &str) {
        let _ = writeln!(self.text, ".SH {}", quoted(title));
    }

    /// Begins a part of a section.
    pub(super) fn part(&mut self, title: &str) {
        let _ = writeln!(self.text, ".SS {}", quoted(title));
    }

    /// A line of roff text.
    pub(super) fn line(&mut self, roff: &str) {
        let _ = writeln!(self.text, "{roff}");
    }

    /// The paragraphs of `text`, which has empty lines between them.
    pub(super) fn paragraphs(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.begin_paragraph();
            let _ = writeln!(self.text, "{}", plain(&unwrapped(paragraph)));
        }
    }

    /// Begins a paragraph, except where a section begins: its title does.
    fn begin_paragraph(&mut self) {
        let last = self.text.lines().next_back().unwrap_or_default();
        if !last.starts_with(".S") && last != ".RS" {
            self.line(".PP");
        }
    }

    /// `head`, which is roff, and what is to be said of it.
    pub(super) fn entry(&mut self, head: &str, texts: &[String]) {
        let _ = writeln!(self.text, ".TP\n{head}");
        let paragraphs = texts.iter().flat_map(|text| text.split("\n\n"));
        for (index, paragraph) in paragraphs.enumerate() {
            let space = if index == 0 { "" } else { ".sp\n" };
            let _ = writeln!(self.text, "{space}{}", plain(&unwrapped(paragraph)));
        }
    }

    /// What an example does, and its lines.
    pub(super) fn example(&mut self, about: &str, lines: &str) {
        self.begin_paragraph();
        let _ = writeln!(self.text, "{}\n.PP\n.RS 4\n.EX", plain(about));
        for line in lines.lines() {
            let _ = writeln!(self.text, "{}", literal(line));
        }
        let _ = writeln!(self.text, ".EE\n.RE");
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn unwrapped(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A title as one argument of a macro.
fn quoted(title: &str) -> String {
    format!("\"{}\"", escaped(title))
}

/// Text, with words between backticks in bold.
pub(super) fn plain(text: &str) -> String {
    let mut roff = String::new();
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            1 => roff.push_str(&bold(part)),
            _ => roff.push_str(&escaped(part)),
        }
    }
    at_line_start(roff)
}

/// Text as it stands.
fn literal(text: &str) -> String {
    at_line_start(escaped(text))
}

pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

pub(super) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

fn escaped(text: &str) -> String {
    let mut roff = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str("\\-"),
            '\'' => roff.push_str("\\(aq"),
            '"' => roff.push_str("\\(dq"),
            '^' => roff.push_str("\\(ha"),
            '~' => roff.push_str("\\(ti"),
            letter => roff.push(letter),
        }
    }
    roff
}

/// A line that begins with a dot would be a macro.
fn at_line_start(roff: String) -> String {
    match roff.starts_with('.') {
        true => format!("\\&{roff}"),
        false => roff,
    }
}
