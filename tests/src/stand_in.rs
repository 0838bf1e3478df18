//! Processes that stand in for the programs of a node, with their names and with sockets.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{cli::Killed, netns::Namespace};

/// A stand-in. It ends when dropped, and with the thread that started it.
#[derive(Debug)]
pub struct StandIn {
    process: Killed,
    _scratch: TempDir,
}

impl StandIn {
    /// Starts `program`, the path of the binary `stand-in`, as `name` inside `namespace`, with
    /// these words. Returns once it has its sockets.
    pub fn new(namespace: &Namespace, program: &str, name: &str, words: &[&str]) -> Result<Self> {
        Self::titled(namespace, program, (name, name), words)
    }

    /// The same, with another title in the place of its first word, as `sshd` sets it.
    pub fn titled(
        namespace: &Namespace,
        program: &str,
        (name, title): (&str, &str),
        words: &[&str],
    ) -> Result<Self> {
        let scratch = TempDir::with_prefix("apf-stand-in-").context("make a directory")?;
        let copy = scratch.path().join(name);
        // The name of a process is the file name of its program.
        symlink(program, &copy).with_context(|| format!("link to `{program}`"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "bash", "-c", "exec -a \"$0\" \"$@\""]);
        command.arg(title).arg(&copy).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Killed(namespace.spawn(&mut command)?);
        let stdout = process.0.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "`{name}` said `{line}`");
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}
