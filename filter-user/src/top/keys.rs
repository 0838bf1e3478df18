//! The keys: which table is in front, how it is sorted, how far it is scrolled.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{model::Model, rows::Sort};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panel {
    Sources = 0,
    Entries = 1,
    Interfaces = 2,
}

impl Panel {
    pub(crate) const ALL: [Self; 3] = [Self::Sources, Self::Entries, Self::Interfaces];
}

/// The state that the keys change.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) focus: Panel,
    pub(crate) sort: Sort,
    /// The first line that is shown of each table.
    pub(crate) scroll: [usize; Panel::ALL.len()],
    /// How many lines of the front table fit, as it was last drawn.
    pub(crate) page: usize,
    pub(crate) help: bool,
    /// The model that is shown while the display is frozen.
    pub(crate) frozen: Option<Box<Model>>,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            focus: Panel::Sources,
            sort: Sort::default(),
            scroll: [0; Panel::ALL.len()],
            page: 1,
            help: false,
            frozen: None,
        }
    }
}

/// The keys, as the help shows them.
pub(crate) const HELP: [(&str, &str); 7] = [
    ("q, Esc, ctrl-c", "quit"),
    ("p, space", "pause; nothing is missed meanwhile"),
    ("s", "sort by rate, total, last seen, name"),
    ("Tab, 1 2 3", "sources, entries, interfaces"),
    ("arrows, PgUp, PgDn", "scroll; Home for the top"),
    ("h, ?", "this help"),
    ("any key", "leaves it"),
];

impl Controls {
    /// Handles `key`; returns whether to quit.
    pub(crate) fn press(&mut self, key: KeyEvent, model: &Model) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        if self.help {
            self.help = false;
            return key.code == KeyCode::Char('q');
        }
        let scroll = &mut self.scroll[self.focus as usize];
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('p' | ' ') => {
                self.frozen = match self.frozen.take() {
                    None => Some(Box::new(model.clone())),
                    Some(_) => None,
                };
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Panel::ALL.len() - 1),
            KeyCode::Char('1') => self.focus = Panel::Sources,
            KeyCode::Char('2') => self.focus = Panel::Entries,
            KeyCode::Char('3') => self.focus = Panel::Interfaces,
            KeyCode::Down => *scroll += 1,
            KeyCode::Up => *scroll = scroll.saturating_sub(1),
            KeyCode::PageDown => *scroll += self.page,
            KeyCode::PageUp => *scroll = scroll.saturating_sub(self.page),
            KeyCode::Home => *scroll = 0,
            KeyCode::Char('h' | '?') => self.help = true,
            _ => {}
        }
        false
    }

    fn turn(&mut self, by: usize) {
        self.focus = Panel::ALL[(self.focus as usize + by) % Panel::ALL.len()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let model = Model::default();
        let mut controls = Controls::default();
        let mut press = |code: KeyCode| controls.press(code.into(), &model);
        for code in [KeyCode::Tab, KeyCode::Down, KeyCode::Char('s')] {
            assert!(!press(code));
        }
        assert!(press(KeyCode::Esc) && press(KeyCode::Char('q')));
        assert!(!press(KeyCode::Char('c')), "without control it is a letter");
        assert_eq!(controls.focus, Panel::Entries);
        assert_eq!(controls.scroll, [0, 1, 0]);
        assert_eq!(controls.sort, Sort::Total);

        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(controls.press(control_c, &model));
        controls.press(KeyCode::BackTab.into(), &model);
        controls.press(KeyCode::Up.into(), &model);
        assert_eq!(
            (controls.focus, controls.scroll),
            (Panel::Sources, [0, 1, 0])
        );
        controls.press(KeyCode::Char('p').into(), &model);
        assert!(controls.frozen.is_some());
        controls.press(KeyCode::Char(' ').into(), &model);
        assert!(controls.frozen.is_none());
        controls.press(KeyCode::Char('?').into(), &model);
        assert!(controls.help);
        assert!(
            !controls.press(KeyCode::Esc.into(), &model),
            "it leaves the help"
        );
        assert!(!controls.help);
    }
}
