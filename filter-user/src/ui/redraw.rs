//! A page that is shown again and again: in place on a terminal, else one after another.

use std::io::{self, IsTerminal as _};

use anyhow::Result;

use super::output::print_unescaped;

/// What was drawn last.
#[derive(Debug, Default)]
pub struct Redraw {
    lines: usize,
    size: Option<(u16, u16)>,
}

impl Redraw {
    /// Shows `text`, a page without foreign control characters.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn show(&mut self, text: &str) -> Result<()> {
        let stdout = io::stdout();
        let size = terminal_size::terminal_size_of(&stdout);
        let size = size.map(|(width, height)| (width.0, height.0));
        let Some((_, height)) = size.filter(|_| stdout.is_terminal()) else {
            return print_unescaped(&format!("{text}\n\n"));
        };
        let text = fitted(text, usize::from(height));
        // After another width earlier lines are broken otherwise: the whole screen is new.
        let start = match (self.lines, self.size == size) {
            (0, _) => String::new(),
            (lines, true) => format!("\x1b[{lines}A\r\x1b[J"),
            (_, false) => "\x1b[2J\x1b[H".to_owned(),
        };
        self.lines = text.lines().count();
        self.size = size;
        print_unescaped(&format!("{start}{text}"))
    }
}

/// The first lines of `text`, so that the terminal does not scroll.
fn fitted(text: &str, height: usize) -> String {
    // The cursor is on a line of its own.
    let most = height.saturating_sub(1).max(1);
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= most {
        return text.to_owned();
    }
    let shown = most - 1;
    let more = format!("... {} more lines", lines.len() - shown);
    let shown = lines[..shown].iter().copied();
    shown.chain([more.as_str()]).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_page_is_cut_to_the_terminal() {
        let text = "1\n2\n3\n4";
        assert_eq!(fitted(text, 5), text);
        assert_eq!(fitted(text, 4), "1\n2\n... 2 more lines");
        assert_eq!(fitted(text, 1), "... 4 more lines");
    }
}
