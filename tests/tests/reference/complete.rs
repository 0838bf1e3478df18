//! Tables that name everything of a kind.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use filter_common::{DropReason, PassReason, layout::LAYOUT_VERSION};
use tests::{
    cli::Apifence,
    scrape::ready,
    site::{ADMIN_RANGES, INTERFACE, Site},
};

use super::page::{Page, root};

/// The cells of the tables of `page`, by row.
fn rows(page: &Page) -> Vec<Vec<&str>> {
    let rows = page.text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// The code in `cell`: what stands between backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn the_page_of_reasons_has_all_of_them() -> Result<()> {
    let page = Page::read("docs/reference/reasons.md")?;
    // Other tables have sentences in the first cell.
    let is_name = |cell: &&str| cell.starts_with('`') && !cell.contains(' ');
    let rows = rows(&page);
    let named = rows.iter().map(|row| row[0]).filter(is_name);
    let mut named: BTreeSet<&str> = named.flat_map(code).collect();
    for verdict in ["pass", "drop", "would_drop"] {
        assert!(named.remove(verdict), "{verdict}");
    }
    let pass = PassReason::ALL.iter().map(|reason| reason.label());
    let drop = DropReason::ALL.iter().map(|reason| reason.label());
    let all: BTreeSet<&str> = pass.chain(drop).collect();
    assert_eq!(named, all);
    Ok(())
}

/// A file as the page of files has it.
struct Row {
    /// Its path; parts in capital letters and `*` stand for any name.
    path: String,
    mode: u32,
}

impl Row {
    fn covers(&self, path: &str) -> bool {
        let is_any = |part: &str| part.contains('*') || part.chars().all(char::is_uppercase);
        let (own, path): (Vec<&str>, Vec<&str>) =
            (self.path.split('/').collect(), path.split('/').collect());
        let same = |(own, part): (&&str, &&str)| own == part || (!own.is_empty() && is_any(own));
        own.len() == path.len() && own.iter().zip(&path).all(same)
    }
}

/// All files and folders in `folder`, by their paths on a node, where `folder` is `place`.
fn found(folder: &Path, place: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    files.push((place.to_owned(), folder.to_owned()));
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        let place = format!("{place}/{name}");
        if path.is_dir() {
            found(&path, &place, files)?;
        } else {
            files.push((place, path));
        }
    }
    Ok(())
}

/// A node on which each kind of file was made once.
fn used_node(site: &Site) -> Result<Apifence> {
    let filter = Apifence::new(&site.node)?;
    let run = [
        "run",
        "--interface",
        INTERFACE,
        "--authorized-ip-ranges",
        ADMIN_RANGES,
    ];
    let mut daemon = filter.start(&run)?;
    ready(&site.node, &mut daemon)?;
    filter.write_list_of("guests", "203.0.113.9\n")?;
    filter.ok(&["ranges", "add", "--list", "guests", "203.0.113.10"])?;
    filter.ok(&["ranges", "add", "192.0.2.99"])?;
    filter.ok(&["ranges", "add", "192.0.2.98", "--confirm-within", "1h"])?;
    drop(daemon);
    Ok(filter)
}

#[test]
fn the_page_of_files_has_those_of_a_used_node_with_their_modes() -> Result<()> {
    let page = Page::read("docs/reference/files.md")?;
    let rows = rows(&page);
    let rows = rows
        .iter()
        .filter(|row| row.len() == 4 && row[0].starts_with("`/"));
    let rows: Vec<Row> = rows
        .map(|row| {
            let path = code(row[0]).next().context("a path")?.trim_end_matches('/');
            let mode = u32::from_str_radix(row[2].trim_matches('`'), 8);
            let mode = mode.with_context(|| format!("mode of {path}"))?;
            Ok(Row {
                path: path.replace("layout-N", &format!("layout-{LAYOUT_VERSION}")),
                mode,
            })
        })
        .collect::<Result<_>>()?;
    let site = Site::new()?;
    let filter = used_node(&site)?;
    let mut files = Vec::new();
    let etc = filter.ranges_file().parent().context("a folder")?;
    found(etc, "/etc/apifence", &mut files)?;
    files.retain(|(place, _)| {
        let inside = ["state", "run"].map(|name| format!("/etc/apifence/{name}"));
        place != "/etc/apifence" && !inside.iter().any(|inside| place.starts_with(inside))
    });
    found(filter.state_dir(), "/var/lib/apifence", &mut files)?;
    found(&filter.runtime_dir(), "/run/apifence", &mut files)?;
    found(filter.bpffs(), "/sys/fs/bpf/apifence", &mut files)?;
    let mut wrong = Vec::new();
    for (place, path) in files {
        // The harness wrote it.
        if place.ends_with("apifence.toml") {
            continue;
        }
        let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
        match rows.iter().find(|row| row.covers(&place)) {
            None => wrong.push(format!("no row for {place} ({mode:o})")),
            Some(row) if row.mode != mode => {
                wrong.push(format!(
                    "{place} is {mode:o}, and the page says {:o}",
                    row.mode
                ));
            }
            Some(_) => {}
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_page_of_exit_codes_is_in_step_with_the_code() -> Result<()> {
    let page = Page::read("docs/reference/exit-codes.md")?;
    let source = fs::read_to_string(root().join("filter-user/src/ui/error.rs"))?;
    for (name, words) in [("EXIT_INPUT", "usage"), ("EXIT_FAILED", "failed")] {
        let line = source
            .lines()
            .find(|line| line.contains(&format!("pub const {name}: u8 = ")));
        let number = line
            .and_then(|line| line.split(" = ").nth(1))
            .context(name)?;
        let number = number.trim_end_matches(';');
        let row = format!("| {number} |");
        let row = page.text.lines().find(|line| line.starts_with(&row));
        ensure!(
            row.is_some_and(|row| row.contains(words)),
            "{name}: {row:?}"
        );
    }
    Ok(())
}
