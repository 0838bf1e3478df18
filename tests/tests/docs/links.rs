//! Links, anchors and files that pages name.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use anyhow::Result;

use crate::page::{Page, root};

/// The folders of the repository whose files a page may name in its lines.
const FOLDERS: [&str; 9] = [
    ".ci/",
    "deploy/",
    "docs/",
    "filter-common/",
    "filter-ebpf/",
    "filter-kube/",
    "filter-user/",
    "tests/",
    "xtask/",
];

/// A link inside the repository: the path from the root, and the anchor.
fn inside(page: &Page, target: &str) -> Option<(PathBuf, Option<String>)> {
    let elsewhere = ["http://", "https://", "mailto:"];
    if elsewhere.iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (target, None),
    };
    if path.is_empty() {
        return Some((page.path.clone(), anchor));
    }
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let mut from_root = PathBuf::new();
    for part in folder.join(path).components() {
        if part == Component::ParentDir {
            from_root.pop();
        } else {
            from_root.push(part);
        }
    }
    Some((from_root, anchor))
}

#[test]
fn links_and_anchors_lead_somewhere() -> Result<()> {
    let pages = Page::all()?;
    let mut found = Vec::new();
    for page in &pages {
        for link in page.links() {
            let Some((path, anchor)) = inside(page, &link.target) else {
                continue;
            };
            let at = format!("{}:{}: `{}`", page.path.display(), link.line, link.target);
            if !root().join(&path).exists() {
                found.push(format!("{at}: there is no such file"));
                continue;
            }
            let Some(anchor) = anchor else { continue };
            let Some(to) = pages.iter().find(|page| page.path == path) else {
                found.push(format!("{at}: it has no headings"));
                continue;
            };
            let anchors = to.anchors();
            if !anchors.contains(&anchor) {
                found.push(format!("{at}: there are {}", anchors.join(", ")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn every_page_is_reachable_from_the_index() -> Result<()> {
    let pages = Page::all()?;
    let mut reached = BTreeSet::new();
    let mut next = vec![PathBuf::from("docs/index.md")];
    while let Some(path) = next.pop() {
        let page = pages.iter().find(|page| page.path == path);
        let (Some(page), true) = (page, reached.insert(path.clone())) else {
            continue;
        };
        let links = page.links();
        let targets = links.iter().filter_map(|link| inside(page, &link.target));
        // Only links between the pages of `docs`: the map of the pages is complete by itself.
        next.extend(
            targets
                .map(|(path, _)| path)
                .filter(|path| path.starts_with("docs")),
        );
    }
    let pages = pages.iter().map(|page| &page.path);
    let docs = pages.filter(|path| path.starts_with("docs"));
    let lost: Vec<_> = docs.filter(|path| !reached.contains(*path)).collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
    Ok(())
}

#[test]
fn files_that_pages_name_exist() -> Result<()> {
    let mut found = Vec::new();
    for page in Page::all()? {
        for (line, code) in page.code() {
            // `FILE:12` and `FILE::test` name a place in it.
            let name = code.split(':').next().unwrap_or_default();
            let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder));
            let stands_for_others = name.contains(['*', '{', '<', ' ', '$'])
                || name.split(['/', '.']).any(is_placeholder);
            if !is_path || stands_for_others {
                continue;
            }
            if !root().join(name).exists() {
                let page = page.path.display();
                found.push(format!("{page}:{line}: there is no `{name}`"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Whether a part of a path stands for others, like `NAME`.
fn is_placeholder(part: &str) -> bool {
    !part.is_empty() && part.chars().all(char::is_uppercase)
}
