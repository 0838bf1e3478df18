//! The config file: from text to settings, and all that is wrong with it in one go.

use toml::de::{DeTable, Error};

use super::{
    layers::{Config, Origin},
    nearest::nearest,
};

/// Most settings that are no TOML before a file is given up: it may be another file altogether.
const MOST_COMPLAINTS: usize = 20;

impl Config {
    /// Takes what the config file at `path` says, `text`, in place of the defaults. What can be read of a broken file is taken, too: what
    /// cannot is doubtful from then on.
    ///
    /// Returns what is wrong, each with its hint, in the order of the lines.
    pub fn read_file(&mut self, path: &str, text: &str) -> Vec<(String, String)> {
        let (text, lost, mut refusals) = without_errors(text);
        let (table, _) = DeTable::parse_recoverable(&text);
        for (name, value) in table.get_ref() {
            let line = line_of(&text, name.span().start);
            let mut each = self.each_mut();
            let Some(setting) = each
                .iter_mut()
                .find(|setting| setting.row().key == name.get_ref())
            else {
                let keys: Vec<&str> = each.iter().map(|setting| setting.row().key).collect();
                let (cause, hint) = unknown(name.get_ref(), &keys);
                refusals.push((line, cause, hint));
                continue;
            };
            let origin = Origin::File {
                path: path.to_owned(),
                line,
            };
            for (span, refusal) in setting.read(value, origin) {
                refusals.push((line_of(&text, span.start), refusal.cause, refusal.hint));
            }
        }
        for setting in self.each_mut() {
            if mentions(&lost, setting.row().key) {
                setting.doubt();
            }
        }
        refusals.sort_by_key(|(line, ..)| *line);
        let complete = |(line, cause, hint)| (format!("{path}:{line}: {cause}"), hint);
        refusals.into_iter().map(complete).collect()
    }

    /// The file cannot be read: it may say anything.
    pub fn doubt_all(&mut self) {
        for setting in self.each_mut() {
            setting.doubt();
        }
    }
}

/// A complaint: the line, the cause, the hint.
type Complaint = (usize, String, String);

/// `text` with blanks for each setting that cannot be parsed, what stood there, and the complaints.
///
/// The parser loses its way behind an error, and complains about what follows: so the first error is told, the setting that it is
/// in is blanked, and what remains is parsed again.
fn without_errors(text: &str) -> (String, String, Vec<Complaint>) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut lost = String::new();
    let mut complaints = Vec::new();
    loop {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (table, errors) = DeTable::parse_recoverable(&text);
        let spans = errors.iter().map(|error| error.span().unwrap_or(0..0));
        let Some((span, error)) = spans.zip(&errors).min_by_key(|(span, _)| span.start) else {
            return (text, lost, complaints);
        };
        let offset = span.start;
        let inside = table
            .get_ref()
            .iter()
            .find(|(name, value)| (name.span().start..=value.span().end).contains(&offset));
        let (at, first, last) = match inside {
            // What is missing there is missing behind the last word, not where the next line begins.
            Some((name, value)) => (
                line_of(&text, text[..offset].trim_end().len().max(name.span().end)),
                line_of(&text, name.span().start),
                line_of(&text, value.span().end),
            ),
            None => [line_of(&text, offset); 3].into(),
        };
        let (cause, hint) = explain(error, &text[span]);
        complaints.push((at, cause, hint));
        let mut blanked = false;
        for number in first..=last.min(lines.len()) {
            let line = &mut lines[number - 1];
            // A value that is not closed swallows those behind it.
            if number > first && begins(line) {
                break;
            }
            blanked |= !line.trim().is_empty();
            lost.push_str(line);
            lost.push('\n');
            line.clear();
        }
        if !blanked || complaints.len() == MOST_COMPLAINTS {
            let hint = "mend what is above first; is this the config file?";
            complaints.push((at, "the rest is not read".to_owned(), hint.to_owned()));
            return (String::new(), lost + &text, complaints);
        }
    }
}

/// The line, from 1, that the byte at `offset` is in.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

/// Whether a setting begins in `line`, as far as one can see.
fn begins(line: &str) -> bool {
    let plain = |letter: char| letter.is_alphanumeric() || " \t_-.\"'".contains(letter);
    line.split_once('=')
        .is_some_and(|(name, _)| !name.trim().is_empty() && name.chars().all(plain))
}

/// What the parser complains about at `text`.
fn explain(error: &Error, text: &str) -> (String, String) {
    if error.message() == "duplicate key" {
        let hint = "leave one of them; a list has its values in one, like `[443, 6443]`";
        return (format!("`{text}` is set twice"), hint.to_owned());
    }
    (
        format!("no TOML: {}", error.message()),
        "a setting is `key = value`: words in quotes, lists like `[443, 6443]`".to_owned(),
    )
}

/// Whether a line that is no comment has `key` in it.
fn mentions(text: &str, key: &str) -> bool {
    let lines = text.lines();
    let mut lines = lines.map(|line| line.split('#').next().unwrap_or_default());
    lines.any(|line| line.contains(key))
}

/// The refusal of a key that is none of `keys`.
fn unknown(name: &str, keys: &[&str]) -> (String, String) {
    let cause = format!("there is no setting `{name}`");
    if name.contains("authorized") || name == "ranges" {
        let hint = "the list is no setting, it has a file of its own (`ranges_file`): `apifence ranges set` changes it";
        return (cause, hint.to_owned());
    }
    let hint = match nearest(name, keys) {
        Some(key) => format!("`{key}` is meant?"),
        None => format!("there are `{}`", keys.join("`, `")),
    };
    (cause, hint)
}
