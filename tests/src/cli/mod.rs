//! Runs the `apifence` binary inside a network namespace, with its own pins, ranges file and config
//! file.

mod background;
mod ran;
pub mod schema;

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use self::schema::Asked;
use crate::{
    mounts,
    net::{SILENCE, exchange},
    netns::Namespace,
    wait::until,
};

pub use background::{Background, Killed};
pub use ran::{FAILED, INPUT, Ran, refused};

/// `apifence` on one machine: a namespace, a ranges file, a config file, a directory for pins.
#[derive(Debug)]
pub struct Apifence {
    namespace: Namespace,
    bpffs: PathBuf,
    ranges_file: PathBuf,
    config_file: PathBuf,
    state_dir: PathBuf,
    scratch: TempDir,
}

impl Apifence {
    /// For commands inside `namespace`.
    ///
    /// The calling thread gets a private mount namespace ([`mounts::enter_private`]). Only this
    /// thread and threads that it starts later see the pins.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        mounts::enter_private()?;
        let scratch = TempDir::with_prefix("apf-").context("make a scratch directory")?;
        // An empty file, named on the command line, keeps the machine's own from being read.
        let config_file = scratch.path().join("apifence.toml");
        std::fs::write(&config_file, "").context("write a config file")?;
        Ok(Self {
            namespace: namespace.try_clone()?,
            bpffs: Path::new(mounts::BPFFS).join("apifence"),
            ranges_file: scratch.path().join("ranges"),
            config_file,
            state_dir: scratch.path().join("state"),
            scratch,
        })
    }

    /// The same with the pins in `directory`.
    pub fn with_bpffs(self, directory: impl Into<PathBuf>) -> Self {
        Self {
            bpffs: directory.into(),
            ..self
        }
    }

    /// The same with another ranges file.
    pub fn with_ranges_file(self, file: impl Into<PathBuf>) -> Self {
        Self {
            ranges_file: file.into(),
            ..self
        }
    }

    /// The directory of the pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The ranges file; it does not exist until something writes it.
    pub fn ranges_file(&self) -> &Path {
        &self.ranges_file
    }

    /// Writes the ranges file.
    pub fn write_list(&self, text: impl AsRef<[u8]>) -> Result<()> {
        std::fs::write(&self.ranges_file, text).context("write the ranges file")
    }

    /// The text of the ranges file.
    pub fn list(&self) -> Result<String> {
        std::fs::read_to_string(&self.ranges_file).context("read the ranges file")
    }

    /// The file of the list `name`, besides `default`.
    pub fn list_file(&self, name: &str) -> PathBuf {
        let mut directory = self.ranges_file.clone().into_os_string();
        directory.push(".d");
        PathBuf::from(directory).join(name)
    }

    /// What `ranges lists` tells of the list `name`.
    pub fn list_state(&self, name: &str) -> Result<Value> {
        let lists = self.json(&["ranges", "lists"])?;
        let all = lists["lists"].as_array().into_iter().flatten();
        let mut own = all.filter(|list| list["name"] == name);
        let own = own.next().cloned();
        own.with_context(|| format!("no `{name}` in {lists:#}"))
    }

    /// Replaces the file of the list `name` by rename, as careful programs do.
    pub fn write_list_of(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        let file = self.list_file(name);
        let directory = file.parent().context("a list is in a directory")?;
        std::fs::create_dir_all(directory)?;
        let new = directory.join(format!(".{name}.being-written"));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, file)?)
    }

    /// Writes the config file.
    pub fn write_config(&self, text: impl AsRef<[u8]>) -> Result<()> {
        std::fs::write(&self.config_file, text).context("write the config file")
    }

    /// The config file; empty until something writes it.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The state directory; it does not exist until something makes it.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The directory in which `run` tells its state.
    pub fn runtime_dir(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// The command, ready to run; the caller chooses output and namespace.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(binary());
        self.finish(&mut command, arguments);
        command
    }

    /// Runs it to its end, with any result.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let output = self.namespace.output(&mut self.command(arguments))?;
        Ran::new(arguments, &output)
    }

    /// Runs it with these environment variables as well, to its end.
    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Ran> {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        Ran::new(arguments, &self.namespace.output(&mut command)?)
    }

    /// Runs each of the commands to its end, with any result.
    pub fn run_all(&self, commands: &[&[&str]]) -> Result<Vec<Ran>> {
        commands.iter().map(|command| self.run(command)).collect()
    }

    /// The command under another program, `by` with its own arguments.
    pub fn command_by(&self, mut by: Command, arguments: &[&str]) -> Command {
        by.arg(binary());
        self.finish(&mut by, arguments);
        by
    }

    /// Runs it under another program, `by` with its own arguments, to its end.
    pub fn run_by(&self, by: Command, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.command_by(by, arguments);
        Ran::new(arguments, &self.namespace.output(&mut command)?)
    }

    /// Runs it and wants exit code 0; returns its stdout.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.run(arguments)?.succeeded()?.stdout)
    }

    /// Runs it with `-o json`, wants exit code 0, and returns what it printed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.ok(&[&["-o", "json"], arguments].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`apifence {}` printed `{text}`", arguments.join(" ")))
    }

    /// The value of `key` in `status`.
    pub fn status(&self, key: &str) -> Result<Value> {
        Ok(self.json(&["status"])?[key].take())
    }

    /// Waits until `status` has this value of `key`.
    pub fn until_status(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        until(&format!("`{key}` is {value} in `status`"), || {
            Ok(self.status(key)? == value)
        })
    }

    /// Waits until `check` answers that `source` is authorized, or that it is not.
    pub fn until_authorized(&self, source: &str, wanted: bool) -> Result<()> {
        until(&format!("`check {source}` answers {wanted}"), || {
            Ok(self.run(&["check", source])?.code == Some(i32::from(!wanted)))
        })
    }

    /// The directory of the history of the list `default`.
    pub fn history_directory(&self) -> PathBuf {
        self.state_dir.join("history/default")
    }

    /// The lists in the history, the newest first.
    pub fn history(&self) -> Result<Vec<Value>> {
        let history = self.json(&["ranges", "history"])?;
        let lists = history["lists"].as_array().cloned();
        lists.with_context(|| format!("no lists in {history:#}"))
    }

    /// Reboots the machine: bpffs is empty, and no program is attached. Files on disk stay.
    pub fn boot(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.bpffs())? {
            std::fs::remove_dir_all(entry?.path())?;
        }
        self.until_status("state", "detached")
    }

    /// Starts it in the background. It is killed when the value is dropped or the calling thread
    /// ends.
    pub fn start(&self, arguments: &[&str]) -> Result<Background> {
        // setpriv executes the program in its own process, so the kernel kills it with its parent.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary());
        self.finish(&mut command, arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let words = arguments.iter();
        let words: Vec<String> = words.map(|word| (*word).to_owned()).collect();
        Background::checked(self.namespace.spawn(&mut command)?, Asked::of(&words))
    }

    /// Starts `run` in the background, with these words, and waits until it guards an interface.
    pub fn start_run(&self, words: &[&str]) -> Result<Background> {
        let mut run = self.start(&[&["run"], words].concat())?;
        run.line(|line| line.contains("guarding"))?;
        Ok(run)
    }

    fn finish<S: AsRef<std::ffi::OsStr>>(&self, command: &mut Command, arguments: &[S]) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("APIFENCE_") || name == "COLUMNS" {
                command.env_remove(name);
            }
        }
        command
            .env("APIFENCE_RUNTIME_DIR", self.runtime_dir())
            .arg("--config")
            .arg(&self.config_file)
            .arg("--bpffs")
            .arg(&self.bpffs)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .arg("--ranges-file")
            .arg(&self.ranges_file)
            .args(arguments);
    }

    /// Sum of `packets` over all interfaces of the counter with this verdict and reason; an empty
    /// reason means any.
    pub fn packets(&self, verdict: &str, reason: &str) -> Result<u64> {
        let stats = self.json(&["stats"])?;
        let interfaces = stats["interfaces"]
            .as_array()
            .context("stats without `interfaces`")?;
        let counters = interfaces
            .iter()
            .filter_map(|interface| interface["counters"].as_array())
            .flatten();
        Ok(counters
            .filter(|counter| {
                counter["verdict"] == verdict && (reason.is_empty() || counter["reason"] == reason)
            })
            .filter_map(|counter| counter["packets"].as_u64())
            .sum())
    }

    /// Runs `attempt`, in which a packet must be dropped and counted as unauthorized.
    pub fn drops<T>(&self, attempt: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.packets("drop", "unauthorized")?;
        let done = attempt()?;
        ensure!(
            self.packets("drop", "unauthorized")? > before,
            "silence, but no drop was counted"
        );
        Ok(done)
    }

    /// Requires that data sent over `stream` is dropped and counted, and gets no answer.
    pub fn cuts(&self, stream: &mut TcpStream) -> Result<()> {
        self.drops(|| match exchange(stream, SILENCE) {
            Ok(()) => bail!("{:?} goes on", stream.local_addr()),
            Err(_) => Ok(()),
        })
    }

    /// Packets dropped, for any reason.
    pub fn dropped(&self) -> Result<u64> {
        self.packets("drop", "")
    }
}

/// The verbs that have help text for people.
pub const VERBS: [&str; 33] = [
    "init",
    "doctor",
    "run",
    "attach",
    "detach",
    "enforce",
    "monitor",
    "status",
    "explain",
    "check",
    "stats",
    "top",
    "events",
    "suggest",
    "ranges",
    "ranges list",
    "ranges set",
    "ranges add",
    "ranges remove",
    "ranges edit",
    "ranges prune",
    "ranges lists",
    "ranges delete",
    "ranges clear",
    "ranges reload",
    "ranges history",
    "ranges rollback",
    "confirm",
    "config",
    "ls",
    "completions",
    "man",
    "version",
];

/// The words of a command line, without quotes or escapes.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The binary under test: `$APIFENCE_BIN`, or `apifence` in the directory that cargo built this
/// program in.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("APIFENCE_BIN") {
            return path.into();
        }
        let own = std::env::current_exe().expect("a running program has a path");
        let built = own.ancestors().skip(1).take(2).map(|directory| directory.join("apifence"));
        built.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
            panic!("no `apifence` beside {}: run `cargo build -p filter-user`, or set APIFENCE_BIN", own.display())
        })
    })
}
