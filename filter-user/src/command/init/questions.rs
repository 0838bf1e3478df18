//! The questions of `init`: five at most, each with what was found as the default.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;

use super::proposal::{Proposal, Row};
use crate::{
    config::ClusterCidr,
    ranges::parse_ranges,
    survey::Survey,
    ui::{error::UserError, output::eprint},
};

/// Asks; returns whether the answers are to be carried out.
///
/// # Errors
/// If stdin ends before the last answer.
pub(super) fn ask(proposal: &mut Proposal, survey: &Survey) -> Result<bool> {
    answer("TCP ports to protect", &mut proposal.ports, true, |text| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        port.map(|port| vec![port.to_string()])
            .ok_or_else(|| format!("`{text}` is not a port: write numbers like `6443, 8443`"))
    })?;
    let names: Vec<&str> = survey
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    let some = !names.is_empty();
    answer(
        "Interfaces to guard",
        &mut proposal.interfaces,
        some,
        |text| {
            if names.contains(&text) {
                return Ok(vec![text.to_owned()]);
            }
            Err(format!(
                "`{text}` is not an interface with packets from other machines; choose from {}",
                names.join(", ")
            ))
        },
    )?;
    answer(
        "Networks of the cluster (nodes, pods, health probes)",
        &mut proposal.cluster,
        false,
        |text| match ClusterCidr::parse(text) {
            Ok(cidr) => Ok(vec![cidr.to_string()]),
            Err(error) => Err(format!("{}: {}", error.cause, error.hint)),
        },
    )?;
    answer(
        "Other addresses and networks to allow",
        &mut proposal.ranges,
        false,
        ranges,
    )?;
    loop {
        let text = line("Write the files and start in monitor mode (drops nothing)? [Y/n] ")?;
        match text.to_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => eprint("answer `y` or `n`"),
        }
    }
}

/// Ranges as they are typed.
fn ranges(text: &str) -> Result<Vec<String>, String> {
    match parse_ranges(text) {
        Ok(ranges) => Ok(ranges.iter().map(ToString::to_string).collect()),
        Err(errors) => Err(errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")),
    }
}

/// Asks for the values of `rows`, until the answer can be used. An empty line takes those that are
/// proposed; a dash takes none, unless the answer `needs_one`.
fn answer(
    what: &str,
    rows: &mut Vec<Row>,
    needs_one: bool,
    parse: impl Fn(&str) -> Result<Vec<String>, String>,
) -> Result<()> {
    let proposed: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_set)
        .map(|row| row.value.as_str())
        .collect();
    let default = match proposed.join(", ") {
        none if none.is_empty() => "none".to_owned(),
        some => some,
    };
    loop {
        let text = line(&format!("{what} [{default}]: "))?;
        if text.is_empty() {
            return Ok(());
        }
        let words = text
            .split(|letter: char| letter == ',' || letter.is_whitespace())
            .filter(|word| !word.is_empty() && *word != "-" && *word != "none");
        let values: Result<Vec<Vec<String>>, String> = words.map(&parse).collect();
        match values {
            Ok(values) if values.is_empty() && needs_one => {
                eprint("at least one is necessary; press Enter for the values above");
            }
            Ok(values) => {
                set(rows, &values.concat());
                return Ok(());
            }
            Err(error) if needs_one => eprint(error),
            Err(error) => eprint(format_args!("{error}; type `-` for none")),
        }
    }
}

/// Sets just these values. What was proposed, and is not among them, stays as a comment.
fn set(rows: &mut Vec<Row>, values: &[String]) {
    for row in rows.iter_mut() {
        row.is_set = values.contains(&row.value);
    }
    for value in values {
        if !rows.iter().any(|row| row.value == *value) {
            rows.push(Row::new(value, "typed in `apifence init`", true));
        }
    }
}

/// Shows the question, and reads a line.
fn line(question: &str) -> Result<String> {
    // The answer of a person comes on the same line.
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(question.as_bytes())
        .and_then(|()| stderr.flush());
    let mut text = String::new();
    let read = io::stdin().lock().read_line(&mut text);
    if !io::stdin().is_terminal() {
        let _ = stderr.write_all(b"\n");
    }
    match read {
        Ok(1..) => Ok(text.trim().to_owned()),
        _ => Err(UserError::input(
            "read answer: end of standard input",
            "`apifence init --yes` accepts the proposal, `--print` shows it; nothing written",
        )),
    }
}
