//! The questions before a source is added to a list, and what became of the answers. Pure: its
//! caller makes the change.

use std::net::IpAddr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{policy::author::quoted, ranges::ListName};

/// The expiry that the form proposes.
const EXPIRY: &str = "8h";
/// The longest answer, in characters.
const MAX_ANSWER: usize = 200;

/// The answers, as they were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) range: String,
    pub(crate) list: String,
    /// Empty: the entry never expires.
    pub(crate) expires: String,
    pub(crate) comment: String,
}

impl Request {
    /// What the form proposes for a source.
    pub(crate) fn new(source: IpAddr, list: &ListName) -> Self {
        Self {
            range: source.to_string(),
            list: list.to_string(),
            expires: EXPIRY.to_owned(),
            comment: String::new(),
        }
    }

    /// The same change as words of `apifence`.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("ranges add {}", quoted(&self.range));
        let is_default = self.list == ListName::DEFAULT;
        for (flag, value) in [
            ("--list", Some(&self.list).filter(|_| !is_default)),
            ("--expires", Some(&self.expires)),
            ("--comment", Some(&self.comment)),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                words.push_str(&format!(" {flag} {}", quoted(value)));
            }
        }
        words
    }

    /// The command to copy.
    pub(crate) fn command(&self) -> String {
        format!("apifence {}", self.words())
    }
}

/// How far the form is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The operator types.
    Asking,
    /// A dry run checks the answers.
    Checking,
    /// The dry run's report; the operator decides.
    Ready(Vec<String>),
    /// The change is being made.
    Making,
    /// The change is made; its report.
    Done(Vec<String>),
    /// Nothing changed; the reasons.
    Failed(Vec<String>),
}

/// What a key asks of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Stay,
    Close,
    /// Make the change, or show what it would do.
    Make {
        request: Request,
        dry_run: bool,
    },
    /// Copy the command.
    Copy(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) request: Request,
    /// The index of the answer that is typed.
    pub(crate) field: usize,
    pub(crate) stage: Stage,
}

/// The index of the expiry: the range and the list are proposed rightly most of the time.
const EXPIRES: usize = 2;

impl Form {
    pub(crate) const FIELDS: [&str; 4] = ["range", "list", "expires", "comment"];

    pub(crate) const fn new(request: Request) -> Self {
        Self {
            request,
            field: EXPIRES,
            stage: Stage::Asking,
        }
    }

    /// The answers, in the order of [`FIELDS`](Self::FIELDS).
    pub(crate) fn answers(&self) -> [&str; 4] {
        let Request {
            range,
            list,
            expires,
            comment,
        } = &self.request;
        [range, list, expires, comment]
    }

    fn answer(&mut self) -> &mut String {
        match self.field {
            0 => &mut self.request.range,
            1 => &mut self.request.list,
            EXPIRES => &mut self.request.expires,
            _ => &mut self.request.comment,
        }
    }

    /// The keys that work now, in words.
    pub(crate) const fn keys(&self) -> &'static str {
        match self.stage {
            Stage::Asking => "Enter next  Tab, arrows move  Esc leave",
            Stage::Checking => "wait: this is a dry run",
            Stage::Ready(_) => "y add it  Enter edit  c copy  Esc leave",
            Stage::Making => "wait: the change is being made",
            Stage::Done(_) => "Enter close",
            Stage::Failed(_) => "Enter edit  c copy  Esc leave",
        }
    }

    /// The report to show.
    pub(crate) fn report(&self) -> &[String] {
        match &self.stage {
            Stage::Ready(lines) | Stage::Done(lines) | Stage::Failed(lines) => lines,
            _ => &[],
        }
    }

    /// The end of a dry run or of a change.
    pub(crate) fn finish(&mut self, is_done: bool, report: Vec<String>) {
        self.stage = match (&self.stage, is_done) {
            (_, false) => Stage::Failed(report),
            (Stage::Making, true) => Stage::Done(report),
            (_, true) => Stage::Ready(report),
        };
    }

    pub(crate) fn press(&mut self, key: KeyEvent) -> Step {
        match &self.stage {
            // What is under way ends by itself.
            Stage::Checking | Stage::Making => Step::Stay,
            Stage::Asking => self.type_key(key),
            Stage::Done(_) => match key.code {
                KeyCode::Enter | KeyCode::Esc | KeyCode::Char('q') => Step::Close,
                _ => Step::Stay,
            },
            Stage::Ready(_) if key.code == KeyCode::Char('y') => self.make(false),
            Stage::Ready(_) | Stage::Failed(_) => self.press_after_check(key),
        }
    }

    fn press_after_check(&mut self, key: KeyEvent) -> Step {
        match key.code {
            KeyCode::Enter | KeyCode::Char('e') => {
                self.stage = Stage::Asking;
                Step::Stay
            }
            KeyCode::Char('c') => Step::Copy(self.request.command()),
            KeyCode::Esc | KeyCode::Char('q' | 'n') => Step::Close,
            _ => Step::Stay,
        }
    }

    fn type_key(&mut self, key: KeyEvent) -> Step {
        let last = Self::FIELDS.len() - 1;
        match key.code {
            KeyCode::Esc => return Step::Close,
            KeyCode::Enter if self.field == last => return self.make(true),
            KeyCode::Enter | KeyCode::Down => self.field = last.min(self.field + 1),
            KeyCode::Tab => self.field = (self.field + 1) % Self::FIELDS.len(),
            KeyCode::BackTab => self.field = (self.field + last) % Self::FIELDS.len(),
            KeyCode::Up => self.field = self.field.saturating_sub(1),
            KeyCode::Backspace => drop(self.answer().pop()),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.answer().clear();
            }
            KeyCode::Char(letter) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() => {
                let answer = self.answer();
                if answer.chars().count() < MAX_ANSWER {
                    answer.push(letter);
                }
            }
            _ => {}
        }
        Step::Stay
    }

    fn make(&mut self, dry_run: bool) -> Step {
        self.stage = match dry_run {
            true => Stage::Checking,
            false => Stage::Making,
        };
        Step::Make {
            request: self.request.clone(),
            dry_run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::new([203, 0, 113, 9].into(), &ListName::default())
    }

    fn typed(form: &mut Form, text: &str) -> Step {
        let mut last = Step::Stay;
        for letter in text.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                letter => KeyCode::Char(letter),
            };
            last = form.press(code.into());
        }
        last
    }

    #[test]
    fn the_command_says_what_the_form_does() {
        let mut request = request();
        assert_eq!(
            request.command(),
            "apifence ranges add 203.0.113.9 --expires 8h"
        );
        request.list = "office".to_owned();
        request.expires.clear();
        request.comment = "Bob's laptop; rm -rf /".to_owned();
        assert_eq!(
            request.words(),
            r"ranges add 203.0.113.9 --list office --comment 'Bob'\''s laptop; rm -rf /'"
        );
    }

    #[test]
    fn nothing_is_made_before_a_dry_run_and_a_y() {
        let mut form = Form::new(request());
        let step = typed(&mut form, "\nbuild agent\n");
        let mut request = request();
        request.comment = "build agent".to_owned();
        let make = |dry_run| Step::Make {
            request: request.clone(),
            dry_run,
        };
        assert_eq!(step, make(true));
        assert_eq!(typed(&mut form, "y\n"), Step::Stay, "it is being checked");
        form.finish(true, vec!["1 added".to_owned()]);
        assert_eq!(typed(&mut form, "Y "), Step::Stay);
        assert_eq!(typed(&mut form, "y"), make(false));
        assert_eq!(form.press(KeyCode::Esc.into()), Step::Stay);
        form.finish(true, vec!["in force".to_owned()]);
        assert_eq!(form.report(), ["in force"]);
        assert_eq!(typed(&mut form, "\n"), Step::Close);
    }

    #[test]
    fn a_failure_keeps_the_answers() {
        let mut form = Form::new(request());
        typed(&mut form, "x\nwhy\n");
        form.finish(false, vec!["error: expiry".to_owned()]);
        assert_eq!(typed(&mut form, "y"), Step::Stay);
        assert_eq!(
            typed(&mut form, "c"),
            Step::Copy("apifence ranges add 203.0.113.9 --expires 8hx --comment why".to_owned())
        );
        typed(&mut form, "\n");
        assert_eq!(form.answers(), ["203.0.113.9", "default", "8hx", "why"]);
        form.press(KeyCode::Up.into());
        form.press(KeyCode::Backspace.into());
        assert_eq!(form.answers()[2], "8h");
        assert_eq!(form.press(KeyCode::Esc.into()), Step::Close);
    }
}
