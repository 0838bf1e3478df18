//! A Markdown page, as far as the checks need it: blocks, headings, links, code in lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    /// Lines without their ends.
    pub(crate) lines: Vec<String>,
}

/// A ```` ```console ```` block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Index of its first line after the fence.
    pub(crate) start: usize,
    /// Its lines, without the indentation of the fence.
    pub(crate) lines: Vec<String>,
    /// The indentation of the fence.
    pub(crate) indent: String,
    /// The text of `<!-- not run: REASON -->` before it.
    pub(crate) not_run: Option<String>,
    /// The name in `<!-- node: NAME -->` before it.
    pub(crate) node: Option<String>,
}

/// A link or an image.
#[derive(Debug)]
pub(crate) struct Link {
    /// Line, from 1 on.
    pub(crate) line: usize,
    /// What it leads to, as written.
    pub(crate) target: String,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().expect("a member is inside the workspace")
}

impl Page {
    /// Reads `path`, from the root of the repository.
    pub(crate) fn read(path: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(root().join(&path));
        let text = text.with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Self { path, lines })
    }

    /// All pages of the repository: at its top, in `docs` and in `deploy`.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(root())? {
            let path = entry?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        let mut folders = vec![root().join("docs"), root().join("deploy")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    paths.push(path);
                }
            }
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        paths.sort();
        let pages = paths.into_iter().map(|path| {
            let path = path.strip_prefix(root())?.to_owned();
            Self::read(path)
        });
        pages.collect()
    }

    /// Whether its console blocks are run: those of the README and of `docs`.
    pub(crate) fn is_run(&self) -> bool {
        self.path == Path::new("README.md") || self.path.starts_with("docs")
    }

    /// Its lines with their numbers, from 1 on, without blocks of code.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        let numbered = self.lines.iter().enumerate();
        numbered.filter_map(move |(index, line)| {
            if line.trim_start().starts_with("```") {
                inside = !inside;
                return None;
            }
            (!inside).then_some((index + 1, &**line))
        })
    }

    /// Its console blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let (mut not_run, mut node) = (None, None);
        let mut lines = self.lines.iter().enumerate();
        while let Some((index, line)) = lines.next() {
            let text = line.trim();
            if let Some(comment) = comment(text) {
                not_run = value(comment, "not run:").or(not_run);
                node = value(comment, "node:").or(node);
                continue;
            }
            if let Some(language) = text.strip_prefix("```") {
                let indent = line[..line.len() - line.trim_start().len()].to_owned();
                let inside = lines.by_ref().map(|(_, line)| line);
                let inside = inside.take_while(|line| line.trim() != "```");
                let inside = inside.map(|line| line.strip_prefix(&*indent).unwrap_or(line));
                let inside: Vec<String> = inside.map(str::to_owned).collect();
                if language == "console" {
                    blocks.push(Block {
                        start: index + 1,
                        lines: inside,
                        indent,
                        not_run: not_run.take(),
                        node: node.take(),
                    });
                }
            }
            if !text.is_empty() {
                (not_run, node) = (None, None);
            }
        }
        blocks
    }

    /// Its links and images, in Markdown and in HTML.
    pub(crate) fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for (line, text) in self.prose() {
            let text = without_code(text);
            let markdown = text.split("](").skip(1);
            let markdown = markdown.filter_map(|rest| rest.split([')', ' ']).next());
            let html = ["href=\"", "src=\"", "srcset=\""].into_iter();
            let html = html.flat_map(|start| text.split(start).skip(1));
            let html = html.filter_map(|rest| rest.split('"').next());
            // `[name]: target`, for links that name it.
            let named = text
                .strip_prefix('[')
                .and_then(|rest| rest.split_once("]: "));
            let named = named.map(|(_, target)| target.trim());
            links.extend(markdown.chain(html).chain(named).map(|target| Link {
                line,
                target: target.to_owned(),
            }));
        }
        links
    }

    /// What its headings are called in links.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let heading = line.trim_start_matches('#');
            if !line.starts_with('#') || !heading.starts_with(' ') {
                continue;
            }
            let slug = slug(heading.trim());
            let same = |anchor: &&String| {
                let rest = anchor.strip_prefix(&*slug);
                rest.is_some_and(|rest| rest.is_empty() || number(rest))
            };
            let before = anchors.iter().filter(same).count();
            anchors.push(if before == 0 {
                slug
            } else {
                format!("{slug}-{before}")
            });
        }
        anchors
    }

    /// The code in its lines, each with the number of its line.
    pub(crate) fn code(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in self.prose() {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.map(|code| (number, code.to_owned())));
        }
        found
    }
}

/// Whether `rest` is the number of a heading with a name that was there before.
fn number(rest: &str) -> bool {
    rest.strip_prefix('-')
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The text of an HTML comment that has its line to itself.
fn comment(line: &str) -> Option<&str> {
    Some(line.strip_prefix("<!--")?.strip_suffix("-->")?.trim())
}

fn value(comment: &str, key: &str) -> Option<String> {
    Some(comment.strip_prefix(key)?.trim().to_owned())
}

/// A line without its code: no link starts there.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// What GitHub calls a heading in a link.
fn slug(heading: &str) -> String {
    // The text of a link, without its target.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text += before;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text += rest;
    let letters = text.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter),
        _ => None,
    });
    letters.flat_map(char::to_lowercase).collect()
}

#[test]
fn headings_have_the_names_that_github_gives_them() {
    let lines = [
        "# A `b.c` and D_e",
        "## [Link](x.md): two",
        "## Same",
        "## Same",
    ];
    let page = Page {
        path: PathBuf::from("x.md"),
        lines: lines.map(str::to_owned).to_vec(),
    };
    assert_eq!(
        page.anchors(),
        ["a-bc-and-d_e", "link-two", "same", "same-1"]
    );
}
