//! What is absent from the sources, checked by reading them.

mod tree;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace member is inside the workspace")
}

/// Our Rust files, by their path from the workspace's root.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let mut folders: Vec<_> = members()?
        .into_iter()
        .map(|member| root().join(member))
        .collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((
                    path.strip_prefix(root())?.to_owned(),
                    fs::read_to_string(&path)?,
                ));
            }
        }
    }
    assert!(found.len() > 30, "only {} sources found", found.len());
    Ok(found)
}

fn members() -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .context("no line `members = [...]`")?;
    Ok(line
        .trim_end_matches(']')
        .split(',')
        .map(|member| member.trim().trim_matches('"').to_owned())
        .collect())
}

/// The code of a file: without comments that have lines of their own.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The comments of a file that have lines of their own.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| line.trim_start().starts_with("//"))
}

/// Whether `line` has `word` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|found| found == word)
}

fn nothing_found(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn only_kernel_bpf_names_aya() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources()? {
        if path.starts_with("filter-user/src/kernel/bpf") || !path.starts_with("filter-user/src") {
            continue;
        }
        for (number, line) in code(&text) {
            if ["aya", "aya_log", "aya_obj"]
                .iter()
                .any(|name| has_word(line, name))
            {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn unsafe_code_is_where_it_is_expected() -> Result<()> {
    // Not written out: this file is read, too.
    const WORD: &str = concat!("un", "safe");
    let allowed = [
        "filter-ebpf/src/packet.rs",
        "filter-ebpf/src/maps.rs",
        "filter-ebpf/src/report.rs",
        "filter-user/src/kernel/bpf/sys.rs",
        "filter-user/build.rs",
        "tests/src/tun.rs",
    ];
    let mut found = Vec::new();
    for (path, text) in sources()? {
        if allowed.iter().any(|allowed| path == Path::new(allowed)) {
            continue;
        }
        let attribute = format!("#[{WORD}(");
        for (number, line) in code(&text) {
            let is_attribute =
                path == Path::new("filter-ebpf/src/main.rs") && line.starts_with(&attribute);
            if has_word(line, WORD) && !is_attribute {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

/// They panic where a stream is closed or full.
#[test]
fn the_program_writes_without_the_print_macros() -> Result<()> {
    let allowed = [
        "filter-user/src/kernel/bpf/batch.rs",
        "filter-user/build.rs",
    ];
    let mut found = Vec::new();
    for (path, text) in sources()? {
        if !path.starts_with("filter-user") || allowed.iter().any(|allowed| path.ends_with(allowed))
        {
            continue;
        }
        for (number, line) in code(&text) {
            if ["print!(", "println!("]
                .iter()
                .any(|word| line.contains(word))
            {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn every_member_inherits_the_lints() -> Result<()> {
    let mut found = Vec::new();
    for member in members()? {
        let manifest = fs::read_to_string(root().join(&member).join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            found.push(format!(
                "{member}/Cargo.toml has no `[lints]` with `workspace = true`"
            ));
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn files_stay_readable() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources()? {
        let lines = text.lines().count();
        if lines > 500 {
            found.push(format!("{} has {lines} lines: split it", path.display()));
        }
    }
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md"))?
        .lines()
        .count();
    if lines > 120 {
        found.push(format!(
            "ARCHITECTURE.md has {lines} lines, and 120 are the most"
        ));
    }
    nothing_found(&found);
    Ok(())
}

/// Prose is read in an editor next to code.
#[test]
fn comments_fit_into_a_hundred_columns() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources()? {
        for (number, line) in comments(&text) {
            let columns = line.chars().count();
            if columns > 100 {
                found.push(format!("{}:{number}: {columns} columns", path.display()));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn exceptions_to_lints_give_their_reason() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources()? {
        for (number, line) in code(&text) {
            let opening = concat!("#[al", "low(");
            if line.contains(opening) || line.contains(&opening.replace("#[", "#![")) {
                found.push(format!(
                    "{}:{number}: `expect` with a reason, not `allow`",
                    path.display()
                ));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

/// An invariant that no test checks is a hope.
#[test]
fn every_invariant_names_tests_that_there_are() -> Result<()> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let (_, invariants) = text.split_once("## Invariants").context("no invariants")?;
    let rows: Vec<&str> = invariants
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| No "))
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    let code: String = sources()?.into_iter().map(|(_, text)| text).collect();
    let mut found = Vec::new();
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next();
        let names = tests.unwrap_or_default().split('`').skip(1).step_by(2);
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            found.push(format!("no test: {row}"));
        }
        for name in names {
            if !code.contains(&format!("#[test]\nfn {name}() ")) {
                found.push(format!("there is no test `{name}`: {row}"));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}
