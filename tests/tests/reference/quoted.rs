//! Messages on pages are those of the snapshots.
//!
//! `<!-- snapshot NAME, from `WORDS` -->` before a block stands for the lines of the snapshot from
//! the one that starts with these words to the end of that output. `message` in place of `from`
//! stands for the line with these words, and its hint.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::page::{Page, root};

/// The lines of the snapshot that `marker` names.
fn quoted(marker: &str) -> Result<String> {
    let context = || format!("the comment `{marker}`");
    let (name, rest) = marker.split_once(", ").with_context(context)?;
    let (kind, words) = rest.split_once(" `").with_context(context)?;
    let words = words.strip_suffix('`').with_context(context)?;
    let path = root()
        .join("tests/tests/snapshots")
        .join(format!("{name}.snap"));
    let text = fs::read_to_string(path).with_context(context)?;
    let is_end = |line: &&str| !line.is_empty() && !line.starts_with(['$', '[']);
    let lines: Vec<&str> = match kind {
        "from" => {
            let lines = text.lines().skip_while(|line| !line.starts_with(words));
            // How many queues the device has depends on the machine.
            let lines = lines.take_while(is_end);
            lines.filter(|line| !line.contains("QUEUES")).collect()
        }
        "message" => {
            let mut lines = text.lines().skip_while(|line| !line.contains(words));
            let first = lines.next();
            // A warning of `status` has more lines, below its text.
            if let Some(first) = first.and_then(|line| line.strip_prefix("  W")) {
                let more = lines.take_while(|line| line.starts_with("       "));
                let more = more.map(|line| &line[2..]);
                let lines: Vec<&str> = more.collect();
                return Ok(format!("W{first}\n{}\n", lines.join("\n")));
            }
            // A line of a config file stands alone.
            let is_message = first.is_some_and(|line| !line.starts_with(' '));
            let is_more =
                |line: &&str| is_message && (line.starts_with("hint:") || line.starts_with(' '));
            first
                .map(str::trim)
                .into_iter()
                .chain(lines.take_while(is_more))
                .collect()
        }
        _ => anyhow::bail!("{}: `from` or `message`", context()),
    };
    ensure!(!lines.is_empty(), "{}: no such lines", context());
    Ok(lines.join("\n") + "\n")
}

#[test]
fn quoted_messages_are_those_of_the_program() -> Result<()> {
    let mut count = 0;
    for mut page in Page::all("docs")? {
        for number in 0..page.blocks().len() {
            let block = &page.blocks()[number];
            let Some(marker) = block.marker.strip_prefix("snapshot ") else {
                continue;
            };
            let text = quoted(marker).with_context(|| page.path.display().to_string())?;
            page.require_block(block, &text)?;
            count += 1;
        }
    }
    ensure!(count > 10, "only {count} quotes");
    Ok(())
}
