//! A page: its blocks of code, each with the comment before it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// The variable that rewrites pages in place of a comparison.
const UPDATE: &str = "UPDATE_DOCS";

/// A page under `docs`.
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// The word after the fence.
    pub(crate) language: String,
    /// The text of the comment before it; empty without one.
    pub(crate) marker: String,
    /// Its text.
    pub(crate) text: String,
    /// Index of the line after its fence.
    start: usize,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().expect("a member is inside the workspace")
}

impl Page {
    /// Reads the page `path`, from the root of the repository.
    pub(crate) fn read(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path))
            .with_context(|| format!("read {}", path.display()))?;
        Ok(Self { path, text })
    }

    /// The pages in the folder `path`, from the root of the repository, and in folders inside it.
    pub(crate) fn all(path: &str) -> Result<Vec<Self>> {
        let mut folders = vec![root().join(path)];
        let mut pages = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(Self::read(path.strip_prefix(root())?)?);
                }
            }
        }
        pages.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(pages)
    }

    /// Its blocks of code, in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut marker = String::new();
        let mut inside = false;
        for (index, line) in self.text.lines().enumerate() {
            let fence = line.trim().strip_prefix("```");
            match (fence, inside) {
                (Some(language), false) => {
                    blocks.push(Block {
                        language: language.to_owned(),
                        marker: std::mem::take(&mut marker),
                        text: String::new(),
                        start: index + 1,
                    });
                    inside = true;
                }
                (Some(_), true) => inside = false,
                (None, true) => {
                    let block = blocks.last_mut().expect("a fence opened it");
                    block.text += line;
                    block.text.push('\n');
                }
                (None, false) => {
                    let comment = line.trim().strip_prefix("<!--");
                    let comment = comment.and_then(|comment| comment.strip_suffix("-->"));
                    marker = comment.unwrap_or_default().trim().to_owned();
                }
            }
        }
        blocks
    }

    /// Its text with `text` in `block`.
    fn with(&self, block: &Block, text: &str) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let end = block.start + block.text.lines().count();
        let new = text.lines();
        let lines = lines[..block.start].iter().copied().chain(new);
        let lines: Vec<&str> = lines.chain(self.text.lines().skip(end)).collect();
        lines.join("\n") + "\n"
    }

    /// Requires this text in `block`, or writes it into the page. The blocks have to be read again
    /// after that.
    pub(crate) fn require_block(&mut self, block: &Block, text: &str) -> Result<()> {
        let wanted = self.with(block, text);
        self.require(wanted)
    }

    /// Requires that this is the text of the page, or writes it.
    pub(crate) fn require(&mut self, wanted: String) -> Result<()> {
        if self.text == wanted {
            return Ok(());
        }
        if std::env::var_os(UPDATE).is_none() {
            let differs = |(one, other): &(&str, &str)| one != other;
            let first = self.text.lines().zip(wanted.lines()).find(differs);
            let (is, wants) = first.unwrap_or(("an end", "another end"));
            bail!(
                "{} has `{is}` for `{wants}`: run it with {UPDATE}=1",
                self.path.display()
            );
        }
        fs::write(root().join(&self.path), &wanted)?;
        self.text = wanted;
        Ok(())
    }

    /// Requires `text` between the comments `<!-- generated: NAME -->` and `<!-- end -->`.
    pub(crate) fn require_part(&mut self, name: &str, text: &str) -> Result<()> {
        let (start, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
        let place = self.text.split_once(&start);
        let (before, rest) = place.with_context(|| format!("no `{}`", start.trim()))?;
        let (_, after) = rest.split_once(end).context("no end of a generated part")?;
        let wanted = format!("{before}{start}\n{}\n\n{end}{after}", text.trim());
        self.require(wanted)
    }
}

#[test]
fn blocks_have_their_comments_and_can_be_replaced() {
    let page = Page {
        path: PathBuf::new(),
        text: "<!-- a -->\n```text\none\n```\n\n<!-- b -->\nwords\n```toml\ntwo\n```\nend\n"
            .to_owned(),
    };
    let blocks = page.blocks();
    assert_eq!(blocks[0].marker, "a");
    assert_eq!((&*blocks[1].marker, &*blocks[1].language), ("", "toml"));
    let other = page.with(&blocks[0], "x\ny\n");
    assert!(
        other.starts_with("<!-- a -->\n```text\nx\ny\n```\n\n"),
        "{other}"
    );
    assert_eq!(page.with(&blocks[1], "two\n"), page.text);
}
