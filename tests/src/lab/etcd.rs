//! The store of a cluster: one etcd in a namespace of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::program::{Server, program};
use crate::{
    netns::Namespace,
    site::{at, ip},
};

/// The port that API servers use.
const PORT: u16 = 2379;

/// etcd, its files and its snapshots.
#[derive(Debug)]
pub struct Etcd {
    server: Server,
    namespace: Namespace,
    directory: PathBuf,
    address: String,
    /// Number of the directory with the data: each restore has another.
    restored: u32,
}

impl Etcd {
    /// Starts it at `address` in `namespace`, with its files in `directory`.
    pub fn start(namespace: &Namespace, address: &str, directory: &Path) -> Result<Self> {
        fs::create_dir(directory)?;
        let mut etcd = Self {
            server: Server::new("etcd", namespace, &directory.join("log"))?,
            namespace: namespace.try_clone()?,
            directory: directory.to_owned(),
            address: address.to_owned(),
            restored: 0,
        };
        etcd.run()?;
        Ok(etcd)
    }

    /// What API servers know it by.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }

    /// Saves all data, and returns the file.
    pub fn snapshot(&self, name: &str) -> Result<PathBuf> {
        let file = self.directory.join(name);
        self.etcdctl(&["snapshot", "save", &file.display().to_string()])?;
        Ok(file)
    }

    /// Goes back to the data of a snapshot. API servers that run meanwhile would mix both.
    pub fn restore(&mut self, snapshot: &Path) -> Result<()> {
        self.server.kill()?;
        self.restored += 1;
        let (from, data) = (snapshot.display().to_string(), self.data());
        self.etcdctl(&["snapshot", "restore", &from, "--data-dir", &data])?;
        self.run()
    }

    /// Forgets what was before now, so that a watch from then on has to begin again.
    pub fn compact(&self) -> Result<()> {
        let status = self.etcdctl(&["endpoint", "status", "--write-out", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let revision = &status[0]["Status"]["header"]["revision"];
        self.etcdctl(&["compact", &revision.to_string()]).map(drop)
    }

    /// Runs etcdctl with these words; fails if it fails.
    pub fn etcdctl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(program("etcdctl")?);
        command.args(["--endpoints", &self.url()]).args(words);
        let output = self.namespace.output(command.env("ETCDCTL_API", "3"))?;
        ensure!(
            output.status.success(),
            "`etcdctl {}`: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The process, to pause and kill it.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Starts it with the data that it has.
    pub fn run(&mut self) -> Result<()> {
        let (url, data) = (self.url(), self.data());
        let words = ["--data-dir", &data];
        let urls = [
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ];
        let peers = ["--listen-peer-urls", "http://127.0.0.1:2380"];
        self.server.start(|command| {
            command.args(words).args(urls).args(peers);
            // Nothing here has to survive this machine's death.
            command.env("ETCD_UNSAFE_NO_FSYNC", "true");
        })?;
        let (namespace, target) = (&self.namespace, at(&self.address, PORT));
        let source = ip(&self.address);
        self.server.until("etcd listens", || {
            Ok(crate::net::connect(namespace, source, target, crate::net::SILENCE).is_ok())
        })
    }

    fn data(&self) -> String {
        let name = format!("data-{}", self.restored);
        self.directory.join(name).display().to_string()
    }
}
