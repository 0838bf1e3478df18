//! The keys: which table is in front, how it is sorted and filtered, where the cursor is, and what
//! lies over the tables.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    cursor::Cursor,
    form::{Form, Request, Step},
    model::Model,
    rows::{Panel, RowKey, Sort, TableRow, rows},
};

/// What lies over the tables.
#[derive(Clone, Debug)]
pub(crate) enum Popup {
    Help,
    Detail(RowKey),
    Form(Form),
    /// A command that was copied.
    Command(String),
}

/// The state that the keys change.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) focus: Panel,
    pub(crate) sort: Sort,
    pub(crate) cursors: [Cursor; Panel::ALL.len()],
    /// How many lines of the front table fit, as it was last drawn.
    pub(crate) page: usize,
    pub(crate) filter: String,
    /// Whether the keys go to the filter.
    pub(crate) is_typing: bool,
    pub(crate) popup: Option<Popup>,
    /// The first line of the popup that is shown.
    pub(crate) popup_scroll: usize,
    /// A sentence in place of the keys, until the next key.
    pub(crate) note: Option<String>,
    /// The model that is shown while the display is frozen.
    pub(crate) frozen: Option<Box<Model>>,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            focus: Panel::Sources,
            sort: Sort::default(),
            cursors: Default::default(),
            page: 1,
            filter: String::new(),
            is_typing: false,
            popup: None,
            popup_scroll: 0,
            note: None,
            frozen: None,
        }
    }
}

/// What a key asks of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    Quit,
    /// Put a command into the clipboard.
    Copy(String),
    /// Add to a list, or show what that would do.
    Add {
        request: Request,
        dry_run: bool,
    },
}

/// The keys, as the help shows them.
pub(crate) const HELP: [(&str, &str); 12] = [
    ("q, ctrl-c", "quit"),
    ("p, space", "pause; nothing is missed meanwhile"),
    ("s", "sort by rate, total, last seen, name"),
    ("/", "filter by address, comment, reason"),
    ("Tab, 1 2 3", "sources, entries, interfaces"),
    ("arrows, PgUp, PgDn", "move the cursor; Home, End"),
    ("Enter", "details of the row"),
    ("a", "add the source to a list"),
    ("c", "copy the command that adds it"),
    ("Esc", "clear the filter; without one quit"),
    ("h, ?", "this help"),
    ("any key", "leaves it"),
];

impl Controls {
    /// The rows of the front table, of the model that is shown.
    fn rows(&self, model: &Model) -> Vec<TableRow> {
        let model = self.frozen.as_deref().unwrap_or(model);
        rows(model, self.focus, self.sort, &self.filter)
    }

    /// The thing under the cursor.
    fn chosen(&self, model: &Model) -> Option<RowKey> {
        let rows = self.rows(model);
        let place = self.cursors[self.focus as usize].place(&rows)?;
        rows.get(place).map(|row| row.key.clone())
    }

    /// Handles `key`.
    pub(crate) fn press(&mut self, key: KeyEvent, model: &Model) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        self.note = None;
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.popup.is_some() {
            return self.press_in_popup(key, model);
        }
        if is_control {
            return Action::None;
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Action::None;
        }
        self.press_in_tables(key.code, model)
    }

    fn press_in_tables(&mut self, code: KeyCode, model: &Model) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Action::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.is_typing = true,
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
            KeyCode::Char('h' | '?') => self.open(Popup::Help),
            KeyCode::Enter => {
                if let Some(chosen) = self.chosen(model) {
                    self.open(Popup::Detail(chosen));
                }
            }
            KeyCode::Char('a') => self.ask(self.chosen(model).as_ref(), model),
            KeyCode::Char('c') => return self.copy(self.chosen(model).as_ref(), model),
            code => {
                let rows = self.rows(model);
                self.cursors[self.focus as usize].press(code, &rows, self.page);
            }
        }
        Action::None
    }

    fn turn(&mut self, by: usize) {
        self.focus = Panel::ALL[(self.focus as usize + by) % Panel::ALL.len()];
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn open(&mut self, popup: Popup) {
        self.popup = Some(popup);
        self.popup_scroll = 0;
    }

    fn press_in_popup(&mut self, key: KeyEvent, model: &Model) -> Action {
        let Some(mut popup) = self.popup.take() else {
            return Action::None;
        };
        match &mut popup {
            Popup::Help | Popup::Command(_) if key.code == KeyCode::Char('q') => {
                return Action::Quit;
            }
            Popup::Help | Popup::Command(_) => return Action::None,
            Popup::Detail(chosen) => match key.code {
                KeyCode::Char('q') => return Action::Quit,
                KeyCode::Char('a') => {
                    self.ask(Some(chosen), model);
                    return Action::None;
                }
                KeyCode::Char('c') => return self.copy(Some(chosen), model),
                KeyCode::Enter | KeyCode::Esc => return Action::None,
                _ => {}
            },
            Popup::Form(form) => match form.press(key) {
                Step::Close => return Action::None,
                Step::Copy(command) => {
                    self.open(Popup::Command(command.clone()));
                    return Action::Copy(command);
                }
                Step::Make { request, dry_run } => {
                    self.open(popup);
                    return Action::Add { request, dry_run };
                }
                Step::Stay => {}
            },
        }
        match key.code {
            KeyCode::Down | KeyCode::PageDown => self.popup_scroll += 1,
            KeyCode::Up | KeyCode::PageUp => {
                self.popup_scroll = self.popup_scroll.saturating_sub(1);
            }
            _ => {}
        }
        self.popup = Some(popup);
        Action::None
    }

    /// What `a` and `c` propose for the chosen row, or why they do not.
    fn proposal(&self, chosen: Option<&RowKey>, model: &Model) -> Result<Request, &'static str> {
        match chosen {
            None => Err("no row is chosen"),
            Some(RowKey::Source(None)) => {
                Err("the source of these packets is unknown: there is no address to add")
            }
            Some(RowKey::Source(Some(address))) => {
                let model = self.frozen.as_deref().unwrap_or(model);
                let source = model.sources.known.get(&Some(*address));
                let port = source.and_then(|source| source.port());
                Ok(Request::new(*address, &model.list_for(port)))
            }
            Some(_) => Err("choose a refused source: `1` shows them"),
        }
    }

    /// Opens the form.
    fn ask(&mut self, chosen: Option<&RowKey>, model: &Model) {
        match self.proposal(chosen, model) {
            Ok(request) => self.open(Popup::Form(Form::new(request))),
            Err(why) => self.note = Some(why.to_owned()),
        }
    }

    fn copy(&mut self, chosen: Option<&RowKey>, model: &Model) -> Action {
        match self.proposal(chosen, model) {
            Ok(request) => {
                let command = request.command();
                self.open(Popup::Command(command.clone()));
                Action::Copy(command)
            }
            Err(why) => {
                self.note = Some(why.to_owned());
                Action::None
            }
        }
    }
}
