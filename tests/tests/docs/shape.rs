//! The size of pages, and drawings.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::page::{Page, root};

/// A reader has two minutes for the README.
#[test]
fn the_readme_is_short() -> Result<()> {
    let readme = Page::read("README.md".into())?;
    let lines = readme.lines.len();
    assert!(
        lines <= 120,
        "README.md has {lines} lines, and 120 are the most"
    );
    let numbered = readme.lines.iter().enumerate();
    let wide = numbered.filter(|(_, line)| line.chars().count() > 120);
    let wide: Vec<_> = wide.map(|(index, _)| index + 1).collect();
    assert!(
        wide.is_empty(),
        "README.md: more than 120 columns in lines {wide:?}"
    );
    Ok(())
}

#[test]
fn drawings_are_well_formed() -> Result<()> {
    let mut folders = vec![root().join("docs")];
    let mut drawings = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some("svg".as_ref()) {
                is_drawing(&path).with_context(|| path.display().to_string())?;
                drawings += 1;
            }
        }
    }
    assert!(drawings > 0, "there are no drawings");
    Ok(())
}

fn is_drawing(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let document = roxmltree::Document::parse(&text)?;
    let svg = document.root_element();
    anyhow::ensure!(svg.tag_name().name() == "svg", "it is not SVG");
    let has_size = ["width", "viewBox"]
        .iter()
        .any(|name| svg.has_attribute(*name));
    anyhow::ensure!(has_size, "it has no size");
    Ok(())
}

/// Pages that are generated, all of them or in parts.
const EXCEPT: [&str; 2] = ["docs/reference", "docs/warnings.md"];

/// The pages of `docs`, without [`EXCEPT`].
fn written() -> Result<Vec<Page>> {
    let mut pages = Page::all()?;
    pages.retain(|page| {
        let except = |path| page.path.starts_with(path);
        page.path.starts_with("docs") && !EXCEPT.into_iter().any(except)
    });
    Ok(pages)
}

/// Prose is read in a terminal as well.
#[test]
fn prose_fits_into_a_hundred_columns() -> Result<()> {
    let mut found = Vec::new();
    for page in written()? {
        for (number, line) in page.prose() {
            let columns = line.chars().count();
            // A row of a table, an HTML tag and the target of a link have one line each.
            if columns > 100 && !line.trim_start().starts_with(['|', '<', '[']) {
                found.push(format!("{}:{number}: {columns}", page.path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Words that the field does not have, or that hide the subject of a sentence.
#[test]
fn pages_have_plain_words() -> Result<()> {
    let gone = [
        ("anew", "again"),
        ("beside", "next to, besides"),
        ("goes by", "uses"),
        ("lets in", "allows"),
        ("let in", "allowed"),
        ("nobody", "no user, no process"),
        ("somebody", "a user, another process"),
        ("stranger", "unlisted source"),
        ("take itself back", "revert"),
        ("taken back", "reverted"),
        ("whoever", "a user who"),
    ];
    let mut found = Vec::new();
    for page in written()? {
        for (number, line) in page.prose() {
            let lower = line.to_lowercase();
            let words = lower.replace(|letter: char| !letter.is_alphanumeric(), " ");
            let words = format!(
                " {} ",
                words.split_whitespace().collect::<Vec<_>>().join(" ")
            );
            for (word, instead) in gone {
                if words.contains(&format!(" {word} ")) {
                    found.push(format!(
                        "{}:{number}: `{word}`: {instead}",
                        page.path.display()
                    ));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
