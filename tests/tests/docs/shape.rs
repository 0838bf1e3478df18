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
