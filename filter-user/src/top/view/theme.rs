//! The styles. Without colours bold, dim and reversed remain.

use ratatui::style::{Color, Modifier, Style};

use crate::ui::style::on_stdout;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    colours: bool,
}

impl Theme {
    /// As `--color` and the environment say.
    pub(crate) fn chosen() -> Self {
        Self::new(on_stdout())
    }

    pub(crate) const fn new(colours: bool) -> Self {
        Self { colours }
    }

    pub(super) fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub(super) fn loud(self, colour: Color) -> Style {
        self.colour(colour).add_modifier(Modifier::BOLD)
    }

    pub(super) fn state(self, state: &str) -> Style {
        self.loud(match state {
            "enforcing" => Color::Green,
            "monitoring" => Color::Yellow,
            _ => Color::Red,
        })
    }

    /// The frame of a pane.
    pub(super) fn frame(self, is_focused: bool) -> Style {
        match is_focused {
            true => self.loud(Color::Cyan),
            false => Style::new(),
        }
    }

    pub(super) const fn bold() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) const fn dim() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) const fn reversed() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
