//! The documents: their commands are run, their links lead somewhere, their drawings are drawings.
//!
//! After an intended change of output, run `UPDATE_DOCS=1 cargo test -p tests --test docs` and read
//! the difference.

mod console;
mod links;
mod node;
mod page;
mod shape;
mod warnings;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use console::{Step, shows, steps};
use node::Node;
use page::{Block, Page, root};

/// The environment variable that has blocks rewritten.
const UPDATE: &str = "UPDATE_DOCS";
/// How many nodes there are at a time: most of their time they wait.
const AT_A_TIME: usize = 6;

/// The commands of a page on one node.
struct Session {
    page: PathBuf,
    node: String,
    blocks: Vec<Block>,
}

/// Lines of a page to replace: the first, how many, and the new ones.
type Edit = (usize, usize, Vec<String>);

#[test]
fn console_blocks_do_what_pages_show() -> Result<()> {
    let mut found = Vec::new();
    let mut sessions = Vec::new();
    for page in Page::all()?.iter().filter(|page| page.is_run()) {
        sessions.extend(split(page, &mut found));
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(found);
    let edits = Mutex::new(BTreeMap::<PathBuf, Vec<Edit>>::new());
    let work = || {
        while let Some(session) = sessions.get(next.fetch_add(1, Ordering::Relaxed)) {
            // A thread of its own: a node moves its thread to its files.
            let done = thread::scope(|scope| scope.spawn(|| session.run()).join());
            let (failed, edited) = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            failures.lock().expect("no thread panics").extend(failed);
            let mut edits = edits.lock().expect("no thread panics");
            edits
                .entry(session.page.clone())
                .or_default()
                .extend(edited);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(work);
        }
    });
    for (page, edits) in edits.into_inner()? {
        rewrite(page, edits)?;
    }
    let failures = failures.into_inner()?;
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// The sessions of a page: a block that names a node begins one.
fn split(page: &Page, found: &mut Vec<String>) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for block in page.blocks() {
        if let Some(reason) = &block.not_run {
            if reason.is_empty() {
                let page = page.path.display();
                found.push(format!("{page}:{}: no reason is given", block.start));
            }
            continue;
        }
        let begin = block.node.clone();
        let begin = begin.or_else(|| sessions.is_empty().then(|| "new".to_owned()));
        if let Some(node) = begin {
            sessions.push(Session {
                page: page.path.clone(),
                node,
                blocks: Vec::new(),
            });
        }
        let last = sessions.last_mut().expect("the first block begins one");
        last.blocks.push(block);
    }
    sessions
}

impl Session {
    /// Runs the commands in their order; returns what failed, and what to rewrite. Commands after
    /// one that fails are not run.
    fn run(&self) -> (Vec<String>, Vec<Edit>) {
        let mut edits = Vec::new();
        let node = Node::new(&self.node);
        let node = match node.with_context(|| format!("make node `{}`", self.node)) {
            Ok(node) => node,
            Err(error) => return (vec![format!("{}: {error:#}", self.page.display())], edits),
        };
        for block in &self.blocks {
            if let Err(error) = play(&node, block, &mut edits) {
                let at = format!("{}:{}", self.page.display(), block.start + 1);
                let hint = "a block that cannot be run has `<!-- not run: REASON -->` before it";
                return (vec![format!("{at}: {error:#}\n({hint})")], edits);
            }
        }
        (Vec::new(), edits)
    }
}

/// Runs the commands of a block.
fn play(node: &Node, block: &Block, edits: &mut Vec<Edit>) -> Result<()> {
    for step in steps(block)? {
        let Step { command, shown, .. } = &step;
        let said = node.run(command, step.endless)?;
        let text = said.lines.join("\n");
        anyhow::ensure!(
            said.status == step.status,
            "`{command}` ended with exit status {}, not {}:\n{text}",
            said.status,
            step.status
        );
        let Some(shown) = shown else { continue };
        if shows(&shown.lines, &said.lines) {
            continue;
        }
        anyhow::ensure!(
            std::env::var_os(UPDATE).is_some(),
            "`{command}` printed:\n{text}\nand the page shows:\n{}\n({UPDATE}=1 rewrites it)",
            shown.lines.join("\n")
        );
        let indented = said
            .lines
            .iter()
            .map(|line| format!("{}{line}", block.indent));
        let edit = (
            block.start + shown.start,
            shown.lines.len(),
            indented.collect(),
        );
        edits.push(edit);
    }
    Ok(())
}

/// Replaces lines of a page.
fn rewrite(path: PathBuf, mut edits: Vec<Edit>) -> Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    edits.sort_by_key(|(start, ..)| std::cmp::Reverse(*start));
    let mut page = Page::read(path)?;
    for (start, count, lines) in edits {
        page.lines.splice(start..start + count, lines);
    }
    let text = page.lines.join("\n") + "\n";
    Ok(fs::write(root().join(page.path), text)?)
}
