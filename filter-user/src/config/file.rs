//! The config file: parsed to settings, with all its faults in one pass.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::{
    layers::{Config, Origin},
    nearest::nearest,
    value::refusal,
};
use crate::ranges::InputError;

impl Config {
    /// Applies the settings in `text`, the config file, over the defaults. A setting that is broken
    /// or set twice becomes unreadable.
    ///
    /// Returns the faults, each with its hint, in the order of the lines.
    pub fn read_file(&mut self, path: &str, text: &str) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut keys = BTreeSet::new();
        let mut settings = self.iter_mut();
        for (first, piece) in pieces(text) {
            let line = |offset: usize| first + piece[..offset].matches('\n').count();
            let mut refuse = |line: usize, InputError { cause, hint }| {
                errors.push((line, format!("{path}:{line}: {cause}"), hint));
            };
            let table = match DeTable::parse(&piece) {
                Ok(table) => table.into_inner(),
                Err(error) => {
                    for setting in &mut settings {
                        if mentions(&piece, setting.row().key) {
                            setting.mark_unreadable();
                        }
                    }
                    refuse(line(end_of_word(&piece, &error)), invalid_toml(&error));
                    continue;
                }
            };
            for (name, value) in table {
                let at = line(name.span().start);
                let key = name.get_ref();
                match settings.iter_mut().find(|setting| setting.row().key == key) {
                    None => {
                        let known: Vec<_> =
                            settings.iter().map(|setting| setting.row().key).collect();
                        refuse(at, unknown(key, &known));
                    }
                    Some(setting) if keys.insert(setting.row().key) => {
                        let origin = Origin::File {
                            path: path.to_owned(),
                            line: at,
                        };
                        for (span, refusal) in setting.read(&value, origin) {
                            refuse(line(span.start), refusal);
                        }
                    }
                    Some(setting) => {
                        setting.mark_unreadable();
                        refuse(
                            at,
                            refusal(
                                format!("`{key}` is set twice"),
                                "keep one of them; a list has all its values in one, like `[443, 6443]`",
                            ),
                        );
                    }
                }
            }
        }
        errors.sort_by_key(|(line, ..)| *line);
        errors
            .into_iter()
            .map(|(_, cause, hint)| (cause, hint))
            .collect()
    }

    /// Marks every setting as unreadable: a file that cannot be read may set any of them.
    pub fn mark_all_unreadable(&mut self) {
        for setting in self.iter_mut() {
            setting.mark_unreadable();
        }
    }
}

/// The offset of an error in `piece`. An error about something missing points to the end of the
/// last word, not to the next line.
fn end_of_word(piece: &str, error: &toml::de::Error) -> usize {
    let before = &piece[..error.span().map_or(0, |span| span.start)];
    before.trim_end().len()
}

fn invalid_toml(error: &toml::de::Error) -> InputError {
    let unquoted = "string values must be quoted, expected literal string";
    let message = error.message().replace(unquoted, "strings must be quoted");
    refusal(
        format!("not valid TOML: {message}"),
        "a setting is `key = value`, with words in quotes and lists like `[443, 6443]`",
    )
}

/// Splits `text` into pieces that are parsed alone, each with its first line: one piece if it is
/// valid TOML, otherwise one for each setting.
///
/// The error recovery of `toml` 1.2 does not suffice: it stops at the first key without a value,
/// and takes any text after an open bracket for elements. One fault would hide others and invent
/// more. Lines below a table's header or inside a multi-line string are not settings, whatever they
/// look like: they stay in its piece. Otherwise one of them could open the port.
fn pieces(text: &str) -> Vec<(usize, String)> {
    if DeTable::parse(text).is_ok() {
        return vec![(1, text.to_owned())];
    }
    let mut pieces: Vec<(usize, String)> = Vec::new();
    let (mut open, mut in_table, mut in_string) = (0, false, false);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match pieces.last_mut() {
            Some((_, piece)) if in_table || in_string || open > 0 && !begins(line) => {
                piece.push_str(line);
            }
            _ => {
                open = 0;
                in_table = line.trim_start().starts_with('[');
                pieces.push((number, line.to_owned()));
            }
        }
        let quotes = ["\"\"\"", "'''"].map(|quotes| line.matches(quotes).count());
        in_string ^= quotes.iter().sum::<usize>() % 2 == 1;
        open += line.matches(['[', '{']).count() as isize;
        open -= line.matches([']', '}']).count() as isize;
    }
    pieces
}

/// Whether `line` looks like the first line of a setting.
fn begins(line: &str) -> bool {
    let plain = |letter: char| letter.is_alphanumeric() || " \t_-.\"'".contains(letter);
    line.split_once('=')
        .is_some_and(|(name, _)| !name.trim().is_empty() && name.chars().all(plain))
}

/// Whether `key` is a word of `text` outside comments.
fn mentions(text: &str, key: &str) -> bool {
    let code = text.lines().filter_map(|line| line.split('#').next());
    let mut words =
        code.flat_map(|code| code.split(|letter: char| !letter.is_alphanumeric() && letter != '_'));
    words.any(|word| word == key)
}

/// The refusal of a key that is not one of `keys`.
fn unknown(name: &str, keys: &[&str]) -> InputError {
    let hint = if name.contains("authorized") || name == "ranges" {
        "the list has a file of its own (`ranges_file`): `apifence ranges set` changes it"
            .to_owned()
    } else if let Some(key) = nearest(name, keys) {
        format!("did you mean `{key}`?")
    } else {
        format!("the keys are `{}`", keys.join("`, `"))
    };
    refusal(format!("unknown key `{name}`"), hint)
}
