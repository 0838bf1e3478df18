//! The messages of the agent on stderr: text for people, or one JSON object a line for programs.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use serde::Serialize;

/// The number of the promise about JSON: fields are added, and never renamed or removed.
const SCHEMA: u32 = 1;

/// Whether messages are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// A line of the log, with the fields of `apifence run -o json`.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    time: String,
    level: &'static str,
    message: &'a str,
}

/// From now on messages are JSON.
pub fn write_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Writes a message. `error: ` and `warning: ` at its start are its level.
pub fn message(text: &str) {
    let line = match IS_JSON.load(Ordering::Relaxed) {
        true => json(text, Timestamp::now()),
        false => text.to_owned(),
    };
    // In one call, so that lines do not mix. Without stderr a message is lost.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The message as JSON, its lines joined: hidden characters are escaped.
fn json(text: &str, time: Timestamp) -> String {
    let levels = [("error: ", "error"), ("warning: ", "warning")];
    let known = levels
        .into_iter()
        .find_map(|(word, level)| Some((level, text.strip_prefix(word)?)));
    let (level, message) = known.unwrap_or(("info", text));
    let line = Line {
        schema: SCHEMA,
        time: format!("{time:.3}"),
        level,
        message,
    };
    serde_json::to_string(&line).expect("text is JSON")
}

/// Writes a message, with the arguments of `format!`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::log::message(&format!($($argument)*)) };
}

pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_object_with_its_level() {
        let time = "2026-12-01T10:00:00.5Z".parse().expect("a time");
        for (text, level, message) in [
            ("error: a: b", "error", "a: b"),
            ("warning: \"x\"\ny", "warning", "\"x\"\ny"),
            ("list office: written", "info", "list office: written"),
            ("", "info", ""),
        ] {
            let line = json(text, time);
            assert!(!line.contains('\n'), "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).expect(&line);
            let want = serde_json::json!({
                "schema": 1,
                "time": "2026-12-01T10:00:00.500Z",
                "level": level,
                "message": message,
            });
            assert_eq!(value, want);
        }
    }
}
