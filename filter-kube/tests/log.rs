//! The log of the program, as a container's log reads it.

use std::process::{Command, Output};

/// The program with these words, without anything to talk to.
fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_apifence-kube"))
        .args(["run", "--node", "node", "--lists-dir", "/nowhere/lists"])
        .args(words)
        .env_clear()
        .output()
        .expect("it runs")
}

#[test]
fn an_error_at_the_end_is_json_where_the_log_is() {
    let output = run(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(!text.is_empty());
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(line["schema"], 1, "{line}");
        assert_eq!(line["level"], "error", "{line}");
        let length = "2026-12-01T10:00:00.000Z".len();
        assert_eq!(line["time"].as_str().map(str::len), Some(length), "{line}");
        let message = line["message"].as_str().unwrap_or_default();
        assert!(message.contains("/nowhere/lists"), "{line}");
    }
}

#[test]
fn without_the_option_it_is_text() {
    let output = run(&[]);
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.starts_with("error: "), "{text}");
}
