//! Records what an operator sees, in pictures of a terminal for the README and the documents.
//!
//! Everything in them is real: the demo, and a node that is guarded in a namespace of its own, with
//! the paths of an installed `apifence`, while packets come in.

mod node;

use std::{
    cell::RefCell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use node::Node;
use tests::{film::Film, netns::Namespace, terminal::Terminal};

/// How often a film has a new screen at most.
const PERIOD: Duration = Duration::from_millis(200);
/// The size of the films.
const FILM: (u16, u16) = (30, 100);

fn main() -> ExitCode {
    match record() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn record() -> Result<()> {
    let directory: PathBuf = env::args_os()
        .nth(1)
        .context("name a directory for the pictures")?
        .into();
    fs::create_dir_all(&directory)?;
    demo(&directory)?;
    let mut node = Node::start()?;
    for columns in [80, 120] {
        still(&directory, "status", &node, &["status"], columns)?;
        still(
            &directory,
            "ranges-list",
            &node,
            &["ranges", "list"],
            columns,
        )?;
    }
    top(&directory, &mut node)
}

/// The demo, as fast as it is.
fn demo(directory: &Path) -> Result<()> {
    let program = env::current_exe()?.with_file_name("demo");
    let home = Namespace::new("record")?;
    let mut terminal = Terminal::open(&home, FILM, |mut by| {
        by.arg(program);
        by
    })?;
    let (film, began) = (RefCell::new(Film::new(FILM.0, FILM.1)), Instant::now());
    terminal.until("end of the demo", |screen| {
        film.borrow_mut().add(began.elapsed(), screen);
        let text = screen.contents();
        text.contains("Every step was observed") || text.contains("not as it should be")
    })?;
    ensure!(
        terminal.ended()? == Some(0),
        "the demo failed:\n{}",
        terminal.contents()
    );
    let mut film = film.into_inner();
    film.slow_down(3);
    let title = "cargo xtask demo: connections with and without the filter, three times slower";
    write(directory, "demo", &film, title)
}

/// A command with its output, in a window of this width.
fn still(directory: &Path, name: &str, node: &Node, words: &[&str], columns: u16) -> Result<()> {
    let mut terminal = Terminal::open(&node.site.node, (60, columns), |by| {
        let mut shell = shell(by);
        shell.arg(node.program()).args(words);
        shell
    })?;
    let code = terminal.ended()?;
    ensure!(code == Some(0), "{code:?}:\n{}", terminal.contents());
    let film = terminal.look(Film::still);
    let title = format!("apifence {}, {columns} columns", words.join(" "));
    write(directory, &format!("{name}-{columns}"), &film, &title)
}

/// Shows the command as it was typed, and runs it.
fn shell(mut by: Command) -> Command {
    by.args([
        "sh",
        "-c",
        r#"printf '\033[1m$ sudo apifence %s\033[m\n' "$*"; exec "$0" "$@""#,
    ]);
    by
}

/// `top`: a film of what one does with it, and its windows of two widths.
fn top(directory: &Path, node: &mut Node) -> Result<()> {
    let mut terminal = Terminal::open(&node.site.node, FILM, |mut by| {
        by.arg(node.program()).arg("top");
        by
    })?;
    terminal.shows(&[node::UNLISTED])?;
    let (mut film, began) = (Film::new(FILM.0, FILM.1), Instant::now());
    let mut play = |terminal: &Terminal, seconds: u64| {
        let end = began.elapsed() + Duration::from_secs(seconds);
        while began.elapsed() < end {
            terminal.look(|screen| film.add(began.elapsed(), screen));
            thread::sleep(PERIOD);
        }
    };
    play(&terminal, 5);
    for (keys, seconds) in [("2", 3), ("3", 2), ("1", 3)] {
        terminal.press(keys)?;
        play(&terminal, seconds);
    }
    write(
        directory,
        "top",
        &film,
        "apifence top: rates, dropped sources, used entries, interfaces",
    )?;
    for (rows, columns) in [(24, 80), (40, 120)] {
        terminal.resize(rows, columns)?;
        // Two more looks of `top`, in the new size.
        thread::sleep(Duration::from_millis(2500));
        let film = terminal.look(Film::still);
        let title = format!("apifence top, {columns} columns");
        write(directory, &format!("top-{columns}"), &film, &title)?;
    }
    terminal.press("q")?;
    terminal.ended_well()
}

fn write(directory: &Path, name: &str, film: &Film, title: &str) -> Result<()> {
    let svg = film.svg(title);
    let file = directory.join(format!("{name}.svg"));
    fs::write(&file, &svg).with_context(|| format!("write `{}`", file.display()))?;
    println!(
        "{}: {} screens, {} bytes",
        file.display(),
        film.len(),
        svg.len()
    );
    Ok(())
}
