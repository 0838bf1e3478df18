//! The styles. Without colours bold, dim and reversed remain.

use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    colours: bool,
}

impl Theme {
    /// Follows `NO_COLOR` (no-color.org: any value but the empty one).
    pub(crate) fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
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
