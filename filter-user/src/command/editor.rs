//! The editor that the operator likes, and questions at the same terminal.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
    termios::{FlushArg, SetArg, Termios, tcflush, tcgetattr, tcsetattr},
};

use crate::ui::{error::UserError, output::say};

/// What names an editor, the first before the others.
const VARIABLES: [&str; 3] = ["SUDO_EDITOR", "VISUAL", "EDITOR"];

/// What is there on most nodes.
const EDITORS: [&str; 3] = ["sensible-editor", "vi", "nano"];

/// The editor.
pub(super) struct Editor {
    /// As it was named, or found.
    pub(super) name: String,
    /// Which variable named it.
    variable: Option<&'static str>,
}

impl Editor {
    /// The one that a variable names, or that is there.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn find() -> Result<Self> {
        for variable in VARIABLES {
            if let Ok(name) = env::var(variable)
                && !name.trim().is_empty()
            {
                return Ok(Self {
                    name,
                    variable: Some(variable),
                });
            }
        }
        let found = EDITORS.into_iter().find(|name| is_installed(name));
        let found = found.map(|name| Self {
            name: name.to_owned(),
            variable: None,
        });
        found.ok_or_else(|| {
            UserError::input(
                "edit ranges: there is no editor, neither `vi` nor `nano`",
                "name one: `EDITOR=/path/to/editor apifence ranges edit`; or `apifence ranges add` and `remove`; nothing changed",
            )
        })
    }

    /// Where its name comes from, as in a hint.
    pub(super) fn advice(&self) -> String {
        match self.variable {
            Some(variable) => format!("`{variable}` names it"),
            None => "`EDITOR` names another one".to_owned(),
        }
    }

    /// Lets somebody edit `file`, until it is closed. What is pressed at the terminal meanwhile is
    /// for the editor alone.
    pub(super) fn edit(&self, file: &Path) -> Result<ExitStatus> {
        let before = Terminal::now();
        let _quiet = Quiet::begin()?;
        // An interrupt ends the editor, and not the shell that waits for it. What it saves under
        // another name, and renames, is for nobody else.
        let prepare = "umask 077; trap : INT QUIT;";
        let mut command = Command::new("/bin/sh");
        command.arg("-c");
        if Path::new(&self.name).is_file() {
            // A path may have spaces.
            command.arg(format!("{prepare} \"$1\" \"$2\"; exit $?"));
            command.args(["sh", &self.name]);
        } else {
            command.arg(format!("{prepare} {} \"$1\"; exit $?", self.name));
            command.arg("sh");
        }
        if !io::stdout().is_terminal() {
            // Stdout is for what was asked for.
            let stderr = io::stderr().as_fd().try_clone_to_owned();
            command.stdout(Stdio::from(stderr.context("start editor")?));
        }
        let status = command
            .arg(file)
            .status()
            .with_context(|| format!("start editor `{}`", self.name))?;
        before.restore();
        Ok(status)
    }
}

/// Whether a program with this name is in the search path.
fn is_installed(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| {
        let found = fs::metadata(folder.join(name));
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// How the terminal is set.
struct Terminal(Option<Termios>);

impl Terminal {
    fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// An editor that was killed leaves it as it had it.
    fn restore(&self) {
        if let Some(before) = &self.0
            && Self::now().0.is_some_and(|now| now != *before)
        {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// As long as it lives no key ends this process.
struct Quiet(SigSet);

impl Quiet {
    fn begin() -> Result<Self> {
        let mut keys = SigSet::empty();
        keys.add(Signal::SIGINT);
        keys.add(Signal::SIGQUIT);
        // What is started has no signal blocked.
        keys.thread_block().context("block signals")?;
        Ok(Self(keys))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Those that came were for the editor.
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        if let Ok(pending) = SignalFd::with_flags(&self.0, flags) {
            while let Ok(Some(_)) = pending.read_signal() {}
        }
        let _ = self.0.thread_unblock();
    }
}

/// Whether somebody is there to answer.
pub(super) fn is_answered() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks which of `keys` it is to be, the first of them if nothing is pressed but Enter; `None`
/// where nobody is there to answer.
pub(super) fn ask(question: &str, keys: &[char]) -> Option<char> {
    if !is_answered() {
        return None;
    }
    // What was typed before it is not an answer.
    let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
    loop {
        say(question);
        let mut line = String::new();
        if matches!(io::stdin().read_line(&mut line), Err(_) | Ok(0)) {
            return None;
        }
        let answer = line.trim().to_lowercase();
        if answer.is_empty() {
            return keys.first().copied();
        }
        let mut letters = answer.chars();
        if let (Some(letter), None) = (letters.next(), letters.next())
            && keys.contains(&letter)
        {
            return Some(letter);
        }
    }
}
