//! A cluster with real API servers: control planes behind `apifence`, one etcd, workers, an
//! administrator and an unlisted source.
//!
//! `cargo xtask test --cluster` makes the programs. Nothing outlives a test: every process ends
//! with the thread that started it.

pub mod agent;
pub mod api_server;
pub mod client;
pub mod control_plane;
pub mod etcd;
pub mod keys;
pub mod kubectl;
pub mod network;
mod objects;
mod program;
mod ranges;

use std::{net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use self::{
    api_server::{ApiServer, LOOPBACK, PORT},
    client::Client,
    control_plane::ControlPlane,
    etcd::Etcd,
    keys::Keys,
    kubectl::Kubectl,
    network::{Machine, Network, STORE},
};
use crate::{
    cli::{Background, Ran},
    site::{ADMIN, UNLISTED, at},
};

/// The names and addresses of the control planes.
const CONTROL_PLANES: [(&str, [&str; 2]); 3] = [
    ("cp1", ["192.0.2.11", "2001:db8::11"]),
    ("cp2", ["192.0.2.12", "2001:db8::12"]),
    ("cp3", ["192.0.2.13", "2001:db8::13"]),
];
/// The same of the workers.
const WORKERS: [(&str, [&str; 2]); 2] = [
    ("worker1", ["192.0.2.21", "2001:db8::21"]),
    ("worker2", ["192.0.2.22", "2001:db8::22"]),
];

/// The cluster.
pub struct Lab {
    /// The control planes: an API server runs on each, and `apifence run` guards it. The
    /// administrator is listed.
    pub control_planes: Vec<ControlPlane>,
    /// Machines without a filter; they are not listed.
    pub workers: [Machine; 2],
    /// The administrator's machine.
    pub admin: Machine,
    /// An unlisted source.
    pub unlisted: Machine,
    /// The store of all API servers.
    pub etcd: Etcd,
    /// The links between the machines, for one more machine.
    pub network: Network,
    keys: Keys,
    kubectl: Kubectl,
    _scratch: TempDir,
}

impl Lab {
    /// Makes a cluster with three control planes, and waits until all are ready and guarded. One
    /// for each test: another one on the same thread would meet its pins.
    pub fn start() -> Result<Self> {
        Self::with_control_planes(CONTROL_PLANES.len())
    }

    /// The same with fewer, which takes less time.
    pub fn with_control_planes(count: usize) -> Result<Self> {
        let scratch = TempDir::with_prefix("apf-lab-").context("make a directory")?;
        let files = scratch.path();
        // An agent reads its token below it.
        std::fs::set_permissions(files, std::fs::Permissions::from_mode(0o711))?;
        let network = Network::new()?;
        let keys = Keys::new(&files.join("keys"))?;
        let etcd = Etcd::start(&network.store, STORE, &files.join("etcd"))?;
        let mut control_planes = Vec::new();
        for (number, (name, addresses)) in CONTROL_PLANES.into_iter().take(count).enumerate() {
            let machine = network.machine(name, addresses)?;
            network.link_to_store(&machine, number + 11)?;
            let directory = files.join(name);
            let mut api = ApiServer::new(&machine, &keys, &etcd.url(), &directory)?;
            api.start()?;
            let mut made = ControlPlane::new(machine, api, &directory)?;
            made.start_guard()?;
            control_planes.push(made);
        }
        let worker = |(name, addresses)| network.machine(name, addresses);
        let workers = [worker(WORKERS[0])?, worker(WORKERS[1])?];
        let mut lab = Self {
            control_planes,
            workers,
            admin: network.machine("admin", ADMIN)?,
            unlisted: network.machine("unlisted", UNLISTED)?,
            etcd,
            network,
            kubectl: Kubectl::new(&keys, &files.join("kubectl"))?,
            keys,
            _scratch: scratch,
        };
        for control_plane in &mut lab.control_planes {
            control_plane.until_guarded()?;
        }
        for control_plane in &mut lab.control_planes {
            control_plane.api.until_ready()?;
        }
        Ok(lab)
    }

    /// Goes back to an older snapshot of etcd, as an operator does: API servers are stopped for it.
    /// Those that ran are ready again.
    pub fn restore(&mut self, snapshot: &Path) -> Result<()> {
        let ran = self.control_planes.iter_mut().map(|one| &mut one.api);
        let mut ran: Vec<_> = ran
            .filter_map(|api| api.process().runs().then_some(api))
            .collect();
        for api in &mut ran {
            api.process().kill()?;
        }
        self.etcd.restore(snapshot)?;
        for api in &mut ran {
            api.start()?;
        }
        ran.into_iter().try_for_each(ApiServer::until_ready)
    }

    /// Runs kubectl on the first control plane, on loopback, and wants exit code 0; returns its
    /// stdout.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let first = &self.control_planes[0].machine;
        let ran = self.kubectl_from(first, LOOPBACK, words, "")?;
        Ok(ran.succeeded()?.stdout)
    }

    /// Applies a manifest the same way.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let first = &self.control_planes[0].machine;
        let ran = self.kubectl_from(first, LOOPBACK, &["apply", "-f", "-"], manifest)?;
        Ok(ran.succeeded()?.stdout)
    }

    /// Runs kubectl on any machine to any server, with any result; `input` is its standard input.
    pub fn kubectl_from(
        &self,
        machine: &Machine,
        server: &str,
        words: &[&str],
        input: &str,
    ) -> Result<Ran> {
        self.kubectl.run(&machine.namespace, server, words, input)
    }

    /// Starts kubectl in the background, as a watch needs it.
    pub fn start_kubectl(
        &self,
        machine: &Machine,
        server: &str,
        words: &[&str],
    ) -> Result<Background> {
        self.kubectl.start(&machine.namespace, server, words)
    }

    /// A connection from `source` of `machine` to an API server that stays open, with the
    /// administrator's certificate.
    pub fn client(
        &self,
        machine: &Machine,
        source: IpAddr,
        control_plane: &ControlPlane,
    ) -> Result<Client> {
        let [v4, v6] = control_plane.machine.addresses;
        let target = if source.is_ipv4() { v4 } else { v6 };
        Client::connect(
            &self.keys.client,
            &machine.namespace,
            source,
            at(target, PORT),
        )
    }
}
