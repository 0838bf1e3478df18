//! The operator's editor, and questions at the same terminal.

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

use crate::ui::{error::UserError, output::eprint};

/// The variables that name an editor, in order of precedence.
const VARIABLES: [&str; 3] = ["SUDO_EDITOR", "VISUAL", "EDITOR"];

/// The fallbacks: editors that most nodes have.
const EDITORS: [&str; 3] = ["sensible-editor", "vi", "nano"];

pub(super) struct Editor {
    /// Its command, as it was named or found.
    pub(super) name: String,
    /// The variable that named it.
    variable: Option<&'static str>,
}

impl Editor {
    /// The editor that a variable names, or an installed one.
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
                "edit ranges: no editor found (`vi`, `nano`)",
                "set one: `EDITOR=/path/to/editor apifence ranges edit`; or use `apifence ranges add` and `remove`; nothing changed",
            )
        })
    }

    /// The source of its name, for a hint.
    pub(super) fn advice(&self) -> String {
        match self.variable {
            Some(variable) => format!("`{variable}` sets it"),
            None => "`EDITOR` sets another one".to_owned(),
        }
    }

    /// Runs the editor on `file` until it is closed. The terminal's signals reach the editor alone.
    pub(super) fn edit(&self, file: &Path) -> Result<ExitStatus> {
        let before = Terminal::now();
        let _quiet = BlockedSignals::begin()?;
        // The trap keeps an interrupt from ending the shell that waits for the editor. The umask
        // protects a copy that the editor saves under another name and renames.
        let prepare = "umask 077; trap : INT QUIT;";
        let mut command = Command::new("/bin/sh");
        command.arg("-c");
        if Path::new(&self.name).is_file() {
            // The quotes allow spaces in the path.
            command.arg(format!("{prepare} \"$1\" \"$2\"; exit $?"));
            command.args(["sh", &self.name]);
        } else {
            command.arg(format!("{prepare} {} \"$1\"; exit $?", self.name));
            command.arg("sh");
        }
        if !io::stdout().is_terminal() {
            // Stdout is for the command's result.
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

/// Whether a program of this name is in the search path.
fn is_installed(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| {
        let found = fs::metadata(folder.join(name));
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// The settings of the terminal.
struct Terminal(Option<Termios>);

impl Terminal {
    fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// Restores the settings that a killed editor left changed.
    fn restore(&self) {
        if let Some(before) = &self.0
            && Self::now().0.is_some_and(|now| now != *before)
        {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Blocks the signals of the terminal's keys while it lives.
struct BlockedSignals(SigSet);

impl BlockedSignals {
    fn begin() -> Result<Self> {
        let mut keys = SigSet::empty();
        keys.add(Signal::SIGINT);
        keys.add(Signal::SIGQUIT);
        // The editor starts with no signal blocked.
        keys.thread_block().context("block signals")?;
        Ok(Self(keys))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // The pending signals were meant for the editor.
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        if let Ok(pending) = SignalFd::with_flags(&self.0, flags) {
            while let Ok(Some(_)) = pending.read_signal() {}
        }
        let _ = self.0.thread_unblock();
    }
}

/// Whether a person can answer a question at the terminal.
pub(super) fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for one of `keys`; Enter alone means the first. `None` without a terminal.
pub(super) fn prompt(question: &str, keys: &[char]) -> Option<char> {
    if !has_terminal() {
        return None;
    }
    // Discard keys that were pressed before the question.
    let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
    loop {
        eprint(question);
        let mut line = String::new();
        if matches!(io::stdin().read_line(&mut line), Err(_) | Ok(0)) {
            return None;
        }
        let answer = line.trim().to_lowercase();
        if answer.is_empty() {
            return keys.first().copied();
        }
        let mut typed = answer.chars();
        if let (Some(letter), None) = (typed.next(), typed.next())
            && keys.contains(&letter)
        {
            return Some(letter);
        }
    }
}
