//! How the demo shows what happens.

use std::{
    io::IsTerminal as _,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Result, bail};
use tests::cli::Apifence;

/// Shows a command as an operator would type it, runs it, and shows its output.
pub(crate) fn run(apifence: &Apifence, arguments: &[&str]) -> Result<()> {
    let quoted: Vec<_> = arguments
        .iter()
        .map(|word| {
            if word.contains(' ') {
                format!("'{word}'")
            } else {
                (*word).to_owned()
            }
        })
        .collect();
    println!(
        "   {}",
        paint("1", &format!("$ apifence {}", quoted.join(" ")))
    );
    let ran = apifence.run(arguments)?;
    for line in ran.stdout.lines().chain(ran.stderr.lines()) {
        note(line);
    }
    match ran.code {
        Some(0) => Ok(()),
        code => bail!("`apifence {}` ended with {code:?}", arguments.join(" ")),
    }
}

/// A step, with its number.
pub(crate) fn step(title: &str) {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    println!("\n{}", paint("36;1", &format!("{number}. {title}")));
}

/// What was observed.
pub(crate) fn seen(what: &str) {
    println!("   {} {what}", good("ok"));
}

/// What an operator sees.
pub(crate) fn note(line: &str) {
    println!("   {line}");
}

/// `text` in the colour of success.
pub(crate) fn good(text: &str) -> String {
    paint("32;1", text)
}

/// `text` in colour if stdout is a terminal.
pub(crate) fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
