//! `apifence-kube` on a control plane, as the unprivileged user that it runs as.

use std::{
    env, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{api_server::LOOPBACK, network::Machine, program::program};
use crate::{
    cli::{Background, Ran},
    netns::Namespace,
};

/// The user and the group of the agent.
pub const UID: u32 = 60843;
/// The directory of lists that it writes, next to the ranges file.
pub const DIRECTORY: &str = "kubernetes";

/// The agent of one machine.
#[derive(Debug)]
pub struct Agent {
    namespace: Namespace,
    node: &'static str,
    lists: PathBuf,
    state: PathBuf,
    kubeconfig: PathBuf,
    token: PathBuf,
    process: Option<Background>,
}

impl Agent {
    /// For `machine`, with its credentials in `directory`; it does not run yet.
    pub fn new(machine: &Machine, lists: &Path, state: &Path, directory: &Path) -> Result<Self> {
        Ok(Self {
            namespace: machine.namespace.try_clone()?,
            node: machine.name,
            lists: lists.to_owned(),
            state: state.to_owned(),
            kubeconfig: directory.join("agent.kubeconfig"),
            token: directory.join("agent.token"),
            process: None,
        })
    }

    /// The directory of lists that it writes.
    pub fn lists(&self) -> &Path {
        &self.lists
    }

    /// The file in which `apifence run` says what is in force.
    pub fn state_file(&self) -> &Path {
        &self.state
    }

    /// Gives it a token, and the certificate of the authority.
    pub fn authorize(&self, token: &str, authority: &Path) -> Result<()> {
        let (cluster, user) = (
            json!({"server": LOOPBACK, "certificate-authority": authority}),
            json!({"tokenFile": self.token}),
        );
        // YAML holds JSON.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "agent", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "agent"}}],
        });
        for (file, text) in [
            (&self.kubeconfig, &*config.to_string()),
            (&self.token, token),
        ] {
            let new = file.with_extension("new");
            fs::write(&new, text)?;
            chown(&new, Some(UID), Some(UID))?;
            fs::rename(&new, file)?;
        }
        Ok(())
    }

    /// Its command `verb` with these further words, as its user and without capabilities.
    fn command(&self, verb: &str, words: &[&str]) -> Result<Command> {
        let mut command = unprivileged(&own_program()?);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("APIFENCE_") || name.starts_with("KUBE") || name == "NODE_NAME" {
                command.env_remove(name);
            }
        }
        command
            .arg(verb)
            .env("NODE_NAME", self.node)
            .env("APIFENCE_LISTS_DIR", &self.lists)
            .env("APIFENCE_STATE", &self.state)
            .env("APIFENCE_SERVER", LOOPBACK)
            .env("APIFENCE_TLS_SERVER_NAME", "kubernetes")
            .env("KUBECONFIG", &self.kubeconfig)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Starts it, with these further words.
    pub fn start(&mut self, words: &[&str]) -> Result<&mut Background> {
        self.kill();
        let mut command = self.command("run", words)?;
        let process = Background::from_child(self.namespace.spawn(&mut command)?)?;
        Ok(self.process.insert(process))
    }

    /// Starts it so that it is killed when it makes the system call `call` for the `number`th time,
    /// before the call does anything.
    pub fn start_to_be_killed(&mut self, call: &str, number: u32) -> Result<&mut Background> {
        self.kill();
        let own = self.command("run", &[])?;
        // The tracer is outside: once it is killed, so is the agent.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "strace"])
            .args(["--quiet=all", "--output=/dev/null"])
            .arg(format!("--trace={call}"))
            .arg(format!("--inject={call}:signal=KILL:when={number}"))
            .arg(own.get_program())
            .args(own.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = Background::from_child(self.namespace.spawn(&mut command)?)?;
        Ok(self.process.insert(process))
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Result<&mut Background> {
        self.process.as_mut().context("the agent does not run")
    }

    /// What it printed since the last line that was waited for.
    pub fn output(&self) -> String {
        self.process
            .as_ref()
            .map(Background::output)
            .unwrap_or_default()
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Runs another of its verbs to the end, with any result.
    pub fn ran(&self, verb: &str, words: &[&str]) -> Result<Ran> {
        let output = self.namespace.output(&mut self.command(verb, words)?)?;
        Ok(Ran::of(
            "apifence-kube",
            &[&[verb], words].concat(),
            &output,
        ))
    }

    /// Runs kubectl with its credentials, as its user, with any result.
    pub fn kubectl(&self, words: &[&str]) -> Result<Ran> {
        let mut command = unprivileged(&program("kubectl")?);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        // It has no home, so kubectl keeps no answers.
        let output = self
            .namespace
            .output(command.env("HOME", "/").args(words))?;
        Ok(Ran::of("kubectl", words, &output))
    }
}

/// What `apifence-kube crds` prints.
pub fn crds() -> Result<String> {
    let output = unprivileged(&own_program()?).arg("crds").output()?;
    Ok(Ran::of("apifence-kube", &["crds"], &output)
        .succeeded()?
        .stdout)
}

fn own_program() -> Result<PathBuf> {
    let program = env::var_os("APIFENCE_KUBE_BIN");
    let program =
        program.context("`APIFENCE_KUBE_BIN` is not set: run `cargo xtask test --cluster`")?;
    Ok(program.into())
}

/// A program with nothing but the rights of the agent's user.
fn unprivileged(program: &Path) -> Command {
    let id = UID.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
        .args(["--pdeathsig", "KILL"])
        .arg(program);
    command
}
