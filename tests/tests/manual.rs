//! The manual pages, as the programs for them read them.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{cli::Apifence, netns::Namespace};

#[test]
fn every_page_renders_without_a_warning() -> Result<()> {
    let desk = Namespace::new("desk")?;
    let filter = Apifence::new(&desk)?;
    let folder = tempfile::tempdir()?;
    filter.ok(&["man", &folder.path().display().to_string()])?;
    let mut count = 0;
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        let lint = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&path)
            .output()
            .context("run `mandoc`, which `cargo xtask setup` installs")?;
        ensure!(lint.status.success() && lint.stdout.is_empty(), "{lint:?}");
        let shown = Command::new("mandoc")
            .args(["-T", "utf8"])
            .arg(&path)
            .output()?;
        let text = String::from_utf8(shown.stdout)?;
        // The macros of a page are known, and the last line has the version.
        let last = text.lines().next_back().unwrap_or_default();
        ensure!(last.contains("apifence 0"), "{}: {last}", path.display());
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"] {
            let is_file = path.extension().is_some_and(|section| section == "5");
            let is_there = text.lines().any(|line| without_bold(line) == section);
            ensure!(
                is_there || section == "EXAMPLES" && !is_file,
                "{}: {section}",
                path.display()
            );
        }
        count += 1;
    }
    ensure!(count > 30, "only {count} pages");
    Ok(())
}

/// A line in which bold letters are struck twice, as on a printer.
fn without_bold(line: &str) -> String {
    let mut letters: Vec<char> = Vec::new();
    let mut is_struck = false;
    for letter in line.chars() {
        match letter {
            '\u{8}' => is_struck = true,
            _ if is_struck => is_struck = false,
            letter => letters.push(letter),
        }
    }
    letters.into_iter().collect()
}
