//! The log of `run` for programs: each message is one JSON object in one line.
//!
//! Messages have the form that people read, `warning: text` and `hint: text`. This file takes that
//! form apart, so that the two logs say the same.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::json::Numbered;

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed, or was refused.
    Error,
    /// Needs the operator's attention.
    Warning,
    /// For information: the start, changes, dropped packets, counters.
    Info,
    /// With `--verbose` alone.
    Debug,
}

/// A message of `run`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Message<'a> {
    /// The text, without its level. It may change in any version.
    message: &'a str,
    /// What to do next; missing if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String"))]
    hint: Option<&'a str>,
    /// Further lines of the same message; missing if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<&'a str>,
}

/// The first words of a message, and the level that they say.
const LEVELS: [(&str, Level); 9] = [
    ("error: ", Level::Error),
    ("refused: ", Level::Error),
    ("warning: ", Level::Warning),
    ("warn: ", Level::Warning),
    ("note: ", Level::Info),
    ("info: ", Level::Info),
    ("hint: ", Level::Info),
    ("debug: ", Level::Debug),
    ("trace: ", Level::Debug),
];

impl<'a> Message<'a> {
    /// Takes a message apart.
    fn parse(text: &'a str) -> (Level, Self) {
        let lines = text.lines().map(str::trim_end);
        let mut lines = lines.filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let level = LEVELS
            .iter()
            .find_map(|(word, level)| Some((*level, first.strip_prefix(word)?)));
        let (level, message) = level.unwrap_or((Level::Info, first));
        let mut parsed = Self {
            message,
            hint: None,
            details: Vec::new(),
        };
        for line in lines {
            match line.strip_prefix("hint: ") {
                Some(hint) if parsed.hint.is_none() => parsed.hint = Some(hint),
                _ => parsed.details.push(line),
            }
        }
        (level, parsed)
    }
}

/// What a line of the log has besides its data.
#[derive(Serialize)]
struct Line<'a, T> {
    /// None if `data` has a time of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    level: Level,
    #[serde(flatten)]
    data: &'a T,
}

/// Whether the messages of this process are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on the messages of this process are JSON. Returns whether they were already.
pub(super) fn begin_json() -> bool {
    IS_JSON.swap(true, Ordering::Relaxed)
}

/// Whether the messages of this process are JSON.
pub fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// A message as a line of the log.
pub(super) fn message(text: &str) -> String {
    let (level, message) = Message::parse(text);
    line(level, &message).expect("a message is an object with text")
}

/// `data` as a line of the log, with the time of now.
///
/// # Errors
/// If `data` is not an object.
pub(super) fn line<T: Serialize>(level: Level, data: &T) -> serde_json::Result<String> {
    let time = Some(milliseconds(Timestamp::now()));
    Numbered::new(&Line { time, level, data }).line()
}

/// `data`, which has a `time` of its own, as a line of the log.
///
/// # Errors
/// If `data` is not an object.
pub(super) fn timed_line<T: Serialize>(level: Level, data: &T) -> serde_json::Result<String> {
    let time = None;
    Numbered::new(&Line { time, level, data }).line()
}

/// A time with three digits of the second: RFC 3339, UTC.
fn milliseconds(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Serializes a time with three digits of the second: RFC 3339, UTC.
///
/// # Errors
/// That of the serializer.
pub fn serialize_milliseconds<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&milliseconds(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_level_text_and_hint() {
        let plain = |message| Message {
            message,
            hint: None,
            details: Vec::new(),
        };
        for (text, level, want) in [
            ("guarding `eth0`", Level::Info, plain("guarding `eth0`")),
            ("note: reloaded", Level::Info, plain("reloaded")),
            ("hint: look", Level::Info, plain("look")),
            ("warning: it waits", Level::Warning, plain("it waits")),
            ("refused: no", Level::Error, plain("no")),
            ("debug: a packet", Level::Debug, plain("a packet")),
            ("a warning: here", Level::Info, plain("a warning: here")),
            ("", Level::Info, plain("")),
            (
                "error: open pins: no\nhint: as root\n\n  more\nhint: and more\n",
                Level::Error,
                Message {
                    message: "open pins: no",
                    hint: Some("as root"),
                    details: vec!["  more", "hint: and more"],
                },
            ),
        ] {
            assert_eq!(Message::parse(text), (level, want), "{text}");
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_the_text() {
        for text in ["a\nb", "\u{1b}[31m\u{2028}\0", "\"}{", "\u{fffd}"] {
            let line = message(text);
            assert!(!line.contains(|letter: char| letter.is_control()), "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).expect(&line);
            assert_eq!(value["schema"], 1);
            let time = value["time"].as_str().unwrap_or_default();
            assert_eq!(time.len(), "2026-12-01T10:00:00.000Z".len(), "{time}");
            time.parse::<Timestamp>().expect(time);
        }
    }

    #[test]
    fn a_time_always_has_three_digits() {
        for (time, want) in [
            ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00.000Z"),
            ("2026-12-01T10:00:00.5Z", "2026-12-01T10:00:00.500Z"),
            ("2026-12-01T10:00:00.1239Z", "2026-12-01T10:00:00.123Z"),
        ] {
            assert_eq!(milliseconds(time.parse().expect(time)), want);
        }
    }
}
