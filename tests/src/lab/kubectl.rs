//! kubectl, as the administrator, from any machine to any API server.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use super::{keys::Keys, program::program};
use crate::{
    cli::{Background, Ran},
    netns::Namespace,
    wait::PATIENCE,
};

/// What kubectl needs.
#[derive(Debug)]
pub struct Kubectl {
    home: PathBuf,
    keys: [PathBuf; 3],
}

impl Kubectl {
    /// With its files in `home`, which it makes.
    pub fn new(keys: &Keys, home: &Path) -> Result<Self> {
        fs::create_dir(home)?;
        let own = keys.administrator();
        Ok(Self {
            home: home.to_owned(),
            keys: [keys.authority(), own.certificate, own.key],
        })
    }

    /// The command for the API server at `server`, like `https://127.0.0.1:6443`.
    fn command(&self, server: &str, words: &[&str]) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program("kubectl")?)
            .env_remove("KUBECONFIG")
            .env("HOME", &self.home)
            .args(["--server", server]);
        let options = ["certificate-authority", "client-certificate", "client-key"];
        for (option, file) in options.iter().zip(&self.keys) {
            command.arg(format!("--{option}")).arg(file);
        }
        command.args(words);
        Ok(command)
    }

    /// Runs it in `namespace` to its end, with any result; `input` is its standard input.
    pub fn run(
        &self,
        namespace: &Namespace,
        server: &str,
        words: &[&str],
        input: &str,
    ) -> Result<Ran> {
        // A server that hangs must not hang the tests.
        let timeout = format!("--request-timeout={}s", PATIENCE.as_secs());
        let mut command = self.command(server, &[&[&*timeout], words].concat())?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = namespace.spawn(&mut command)?;
        let written = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let ran = Ran::of("kubectl", words, &output);
        match written {
            // It ended before it read all: why is in its output.
            Some(Err(error)) if ran.code == Some(0) => Err(error.into()),
            _ => Ok(ran),
        }
    }

    /// Starts it in the background.
    pub fn start(&self, namespace: &Namespace, server: &str, words: &[&str]) -> Result<Background> {
        let mut command = self.command(server, words)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Background::from_child(namespace.spawn(&mut command)?)
    }
}
