//! The answers as they are shown: a sentence for one, a table for several.

use std::fmt::Write as _;

use super::{Answer, CheckReport, MAX_NAMED};
use crate::{
    config::{join, named},
    ranges::ListName,
    ui::{
        line::Line,
        page::{Page, Screen},
        style::Ink,
        table::{Column, Table},
    },
};

impl Screen for CheckReport {
    fn show(&self, page: &mut Page) {
        let answers: Vec<&Answer> = self.results.iter().flat_map(Answer::all).collect();
        if let [answer] = self.results.as_slice() {
            for answer in answer.all() {
                page.line(answer.sentence(page));
            }
            return;
        }
        let mut table = Table::new([
            Column::text("source"),
            Column::text("verdict"),
            Column::text("ports"),
            Column::wrapped("why"),
        ]);
        for answer in answers {
            table.row([
                answer.source().into(),
                answer.word(),
                answer.ports().unwrap_or_default().into(),
                answer.reasons(page).into(),
            ]);
        }
        page.table(&table.without_empty_columns());
    }
}

impl Answer {
    /// The answer, and those at ports with another one.
    fn all(&self) -> Vec<&Self> {
        let differs = |other: &&Self| other.verdict != self.verdict;
        let others = self.elsewhere.iter().filter(differs);
        [self].into_iter().chain(others).collect()
    }

    /// What was asked about.
    fn source(&self) -> String {
        match (self.address, self.cidr) {
            (Some(address), _) => address.to_string(),
            (None, cidr) => cidr.unwrap_or_default().to_string(),
        }
    }

    fn word(&self) -> Line {
        match (self.verdict, self.allowed) {
            ("part", _) => Line::inked(Ink::Caution, "partly allowed"),
            ("would_drop", _) => Line::inked(Ink::Caution, "allowed"),
            (_, true) => Line::inked(Ink::Good, "allowed"),
            (_, false) => Line::inked(Ink::Bad, "dropped"),
        }
    }

    /// The ports that the answer is about, if it is not about all.
    fn ports(&self) -> Option<String> {
        match (self.port, &self.guard) {
            (Some(port), _) => Some(format!("TCP {port}")),
            (None, Some(guard)) => Some(guard.ports()),
            (None, None) => None,
        }
    }

    fn sentence(&self, page: &Page) -> Line {
        let line = Line::from(format!("{} ", self.source())).and_line(self.word());
        let line = match self.ports() {
            Some(ports) => line.and(format!(" at {ports}: ")),
            None => line.and(": "),
        };
        line.and(self.reasons(page))
    }

    /// Why it has this verdict, and what else there is to say.
    fn reasons(&self, page: &Page) -> String {
        let mut text = self.reason(page);
        if let Some(range) = &self.expired {
            let _ = write!(text, "; `{range}` has expired");
        }
        if let Some(note) = &self.note {
            let _ = write!(text, " ({note})");
        }
        text
    }

    fn reason(&self, page: &Page) -> String {
        match (&self.range, self.verdict) {
            _ if self.contradiction => {
                "the trie authorizes it, and the table that the program asks first does not"
                    .to_owned()
            }
            (_, "unprotected") => "the port is not protected".to_owned(),
            (_, "not_filtered") => "loopback is not filtered".to_owned(),
            (Some(range), _) => {
                let mut text = format!("`{range}` ({}", self.origins.join(", "));
                let mut names: Vec<&str> = Vec::new();
                if self.lists.iter().any(|name| !name.is_default()) {
                    names.extend(self.lists.iter().map(ListName::as_str));
                }
                names.extend(&self.presets);
                if !names.is_empty() {
                    let _ = write!(text, ": {}", join(names));
                }
                text.push(')');
                if let Some(comment) = &self.comment {
                    let _ = write!(text, " # {comment}");
                }
                if let Some(time) = self.expires {
                    let _ = write!(text, ", expires {}", page.when(time));
                }
                text
            }
            (None, verdict) if !self.authorized.is_empty() => {
                let parts = self.authorized.iter().take(MAX_NAMED);
                let parts: Vec<String> = parts.map(|part| format!("`{part}`")).collect();
                let mut text = format!("authorized: {}", parts.join(", "));
                if self.authorized.len() > MAX_NAMED {
                    let _ = write!(text, " and {} more", self.authorized.len() - MAX_NAMED);
                }
                if verdict == "would_drop" {
                    text.push_str("; the mode is monitor");
                }
                text
            }
            (None, "would_drop") => "in no authorized range, and the mode is monitor".to_owned(),
            (None, "pass") => "enforcement is off, every source passes".to_owned(),
            (None, _) => match &self.guard {
                None => "in no authorized range".to_owned(),
                Some(guard) => format!("in no range of the {}", named(&guard.lists)),
            },
        }
    }
}
