//! The page of warnings has the text of `apifence explain`.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cli;

use crate::{UPDATE, page::root};

/// Columns of a page.
const WIDTH: usize = 98;
const START: &str = "<!-- The rest is the text of `apifence explain`. -->\n";

#[test]
fn the_page_of_warnings_has_the_text_of_explain() -> Result<()> {
    let explained = Command::new(cli::binary())
        .args(["-o", "json", "explain"])
        .output()?;
    ensure!(explained.status.success(), "`apifence explain` failed");
    let explained: Value = serde_json::from_slice(&explained.stdout)?;
    let warnings = explained["warnings"].as_array().context("no warnings")?;
    let wanted = generated(warnings)?;
    let path = root().join("docs/warnings.md");
    let text = fs::read_to_string(&path)?;
    let (head, rest) = text.split_once(START).context("a page without its mark")?;
    if rest != wanted && std::env::var_os(UPDATE).is_some() {
        return Ok(fs::write(path, format!("{head}{START}{wanted}"))?);
    }
    ensure!(
        rest == wanted,
        "docs/warnings.md differs from `apifence explain`: {UPDATE}=1 rewrites it"
    );
    Ok(())
}

/// The table of the codes, and a section for each.
fn generated(warnings: &[Value]) -> Result<String> {
    let mut text = "\n| code | severity | meaning |\n|---|---|---|\n".to_owned();
    for warning in warnings {
        let word = |key: &str| warning[key].as_str().with_context(|| key.to_owned());
        let (code, severity, title) = (word("code")?, word("severity")?, word("title")?);
        let anchor = code.to_lowercase();
        writeln!(text, "| [{code}](#{anchor}) | {severity} | {title} |")?;
    }
    for warning in warnings {
        let word = |key: &str| warning[key].as_str().with_context(|| key.to_owned());
        let (code, name, title) = (word("code")?, word("name")?, word("title")?);
        writeln!(text, "\n## {code}\n\n`{name}`: **{title}.**\n")?;
        for (label, key) in [
            ("Meaning", "means"),
            ("Risk", "harm"),
            ("Fix", "fix"),
            ("Acknowledge", "silence"),
        ] {
            let paragraph = format!("- *{label}:* {}", word(key)?);
            text += &wrapped(&paragraph);
        }
    }
    Ok(text)
}

/// A paragraph of a list in lines of [`WIDTH`] columns.
fn wrapped(paragraph: &str) -> String {
    let mut lines = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let last = lines.last_mut().expect("there is a first line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("  {word}"));
        } else if last.is_empty() {
            word.clone_into(last);
        } else {
            *last = format!("{last} {word}");
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
