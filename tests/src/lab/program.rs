//! The programs of a cluster, and those that run in the background.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cli::Killed, netns::Namespace, wait::until};

/// The path of a program of the cluster.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let directory = env::var_os("CLUSTER_PROGRAMS")
        .context("`CLUSTER_PROGRAMS` is not set: run `cargo xtask test --cluster`")?;
    Ok(Path::new(&directory).join(name))
}

/// A program that runs in the background of a namespace, and can be paused and killed. It ends when
/// dropped, and with the thread that started it.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    namespace: Namespace,
    log: PathBuf,
    process: Option<Killed>,
}

impl Server {
    /// The program `name` of the cluster, which does not run yet.
    pub fn new(name: &'static str, namespace: &Namespace, log: &Path) -> Result<Self> {
        Ok(Self {
            name,
            namespace: namespace.try_clone()?,
            log: log.to_owned(),
            process: None,
        })
    }

    /// Starts it with the words that `finish` adds. Its output goes to the end of its log.
    pub fn start(&mut self, finish: impl FnOnce(&mut Command)) -> Result<()> {
        self.kill()?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program(self.name)?);
        finish(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.process = Some(Killed(self.namespace.spawn(&mut command)?));
        Ok(())
    }

    /// Waits for something that it does; fails at once when it ends, with the end of its log.
    pub fn until(&mut self, what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
        let (name, process) = (self.name, &mut self.process);
        let waited = until(what, || {
            let process = process.as_mut().context("it does not run")?;
            let ended = process.0.try_wait()?;
            ensure!(ended.is_none(), "`{name}` has ended: {ended:?}");
            happened()
        });
        waited.with_context(|| format!("the end of the log of `{name}`:\n{}", self.end_of_log()))
    }

    fn end_of_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Whether it was started and not killed.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.0.kill()?;
            process.0.wait()?;
        }
        Ok(())
    }

    /// Stops it where it is: its connections stay open, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn proceed(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        let pid = i32::try_from(process.0.id()).context("a pid is an i32")?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }
}
