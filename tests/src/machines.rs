//! The machines of a cluster and the world around it: a control-plane node, two workers with a pod,
//! an administrator, a balancer's health probe and an unlisted source. Only the node has a filter.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    cli::{Apifence, Killed},
    net::{Transfer, open, silent},
    netns::{End, Namespace, veth},
    site::{at, ip},
    stand_in::StandIn,
    wait::until,
};

/// The node.
pub const NODE: &str = "192.0.2.10";
/// The administrator, outside.
pub const ADMIN: &str = "198.51.100.7";
/// An unlisted source, outside.
pub const STRANGER: &str = "203.0.113.9";
/// A health probe of a balancer of Google Cloud.
pub const PROBE: &str = "35.191.0.5";
/// The workers.
pub const WORKERS: [&str; 2] = ["192.0.2.21", "192.0.2.22"];

/// A distribution of Kubernetes, as far as packets show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// kubeadm with three control planes: haproxy on 8443 in front of the API server on 6443.
    Kubeadm,
    /// k3s with the API server on 7443; nodes join on 9345.
    K3s,
}

impl Distribution {
    /// The port of the API server, and the other one that leads to it.
    pub const fn ports(self) -> [u16; 2] {
        match self {
            Self::Kubeadm => [6443, 8443],
            Self::K3s => [7443, 9345],
        }
    }

    /// The address of a pod on the first worker, which its network does not hide.
    pub const fn pod(self) -> &'static str {
        match self {
            Self::Kubeadm => "10.244.1.5",
            Self::K3s => "10.52.1.5",
        }
    }

    /// The copy of the node's files, and the programs that serve.
    const fn tree(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm-ha",
            Self::K3s => "k3s",
        }
    }
}

/// The machines.
pub struct Machines {
    /// The namespace of the node.
    pub node: Namespace,
    workers: [Namespace; 2],
    outside: Namespace,
    _switch: Namespace,
    _programs: Vec<StandIn>,
    _proxy: Option<Killed>,
    files: TempDir,
    distribution: Distribution,
}

impl Machines {
    /// Makes them, with the programs of the node; nothing is attached. `stand_in` is the path of
    /// that binary, and `trees` the folder of the copies of nodes' files.
    pub fn new(distribution: Distribution, stand_in: &str, trees: &Path) -> Result<Self> {
        let switch = Namespace::new("switch")?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        let pod = format!("{}/32", distribution.pod());
        let outside = [ADMIN, STRANGER, PROBE].map(|address| format!("{address}/32"));
        let machine = |name: &str, addresses: &[&str]| -> Result<Namespace> {
            let machine = Namespace::new(name)?;
            let (own, port) = (
                End::new(&machine, "eth0", addresses),
                End::new(&switch, name, &[]),
            );
            veth(1500, own, port)?;
            switch.ip(&format!("link set {name} master br0"))?;
            Ok(machine)
        };
        let own = |address: &str| format!("{address}/24");
        let node = machine("node", &[&own(NODE)])?;
        let workers = [
            machine("worker1", &[&own(WORKERS[0]), &pod])?,
            machine("worker2", &[&own(WORKERS[1])])?,
        ];
        let [admin, stranger, probe] = outside.each_ref().map(String::as_str);
        let outside = machine("outside", &[&own("192.0.2.1"), admin, stranger, probe])?;
        for inside in [&node, &workers[0], &workers[1]] {
            inside.ip("route add default via 192.0.2.1")?;
            inside.ip("link set lo up")?;
        }
        node.ip(&format!("route add {pod} via {}", WORKERS[0]))?;

        let files = TempDir::with_prefix("apf-node-").context("make a directory")?;
        let copied = Command::new("cp")
            .arg("-r")
            .args([trees.join(distribution.tree()), files.path().join("node")])
            .status()?;
        ensure!(copied.success(), "copy the files of a node");
        let mut machines = Self {
            node,
            workers,
            outside,
            _switch: switch,
            _programs: Vec::new(),
            _proxy: None,
            files,
            distribution,
        };
        machines.start(stand_in)?;
        Ok(machines)
    }

    /// Starts the programs of the node.
    fn start(&mut self, stand_in: &str) -> Result<()> {
        let [api, other] = self.distribution.ports().map(|port| port.to_string());
        let (name, ports) = match self.distribution {
            Distribution::Kubeadm => ("kube-apiserver", vec![&*api]),
            Distribution::K3s => ("k3s-server", vec![&*api, &*other]),
        };
        self._programs = vec![StandIn::new(&self.node, stand_in, name, &ports)?];
        if self.distribution == Distribution::Kubeadm {
            let path = self.root().join("etc/haproxy/haproxy.cfg");
            let config = format!(
                "defaults\n mode tcp\n timeout connect 10s\n timeout client 10m\n timeout server 10m\n\
                 frontend apiserver\n bind *:{other}\n default_backend apiservers\n\
                 backend apiservers\n server cp1 {NODE}:{api}\n"
            );
            fs::write(&path, config)?;
            let mut haproxy = Command::new("setpriv");
            haproxy.args(["--pdeathsig", "KILL", "haproxy", "-db", "-f"]);
            haproxy
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            self._proxy = Some(Killed(self.node.spawn(haproxy.stderr(Stdio::null()))?));
            until("haproxy forwards", || Ok(self.worker(1).is_ok()))?;
        }
        Ok(())
    }

    /// The copy of the node's files.
    pub fn root(&self) -> PathBuf {
        self.files.path().join("node")
    }

    /// `apifence` for commands on the node.
    pub fn apifence(&self) -> Result<Apifence> {
        Apifence::new(&self.node)
    }

    /// The namespace of a source address.
    fn home(&self, source: &str) -> &Namespace {
        match source {
            source if source == WORKERS[1] => &self.workers[1],
            source if source == WORKERS[0] || source == self.distribution.pod() => &self.workers[0],
            _ => &self.outside,
        }
    }

    /// All that belongs to the cluster, by source address and port: kubelets of the workers, one of
    /// them by the other port, a pod, the balancer's probe.
    pub fn cluster(&self) -> [(&'static str, u16); 4] {
        let [api, other] = self.distribution.ports();
        [
            (WORKERS[0], api),
            (WORKERS[1], other),
            (self.distribution.pod(), api),
            (PROBE, api),
        ]
    }

    /// The second worker's connection by the other port.
    fn worker(&self, number: usize) -> Result<TcpStream> {
        let [_, other] = self.distribution.ports();
        self.connect(WORKERS[number], other)
    }

    /// A connection from `source` to `port` of the node, which is used.
    pub fn connect(&self, source: &str, port: u16) -> Result<TcpStream> {
        open(self.home(source), ip(source), at(NODE, port))
    }

    /// A connection with constant traffic.
    pub fn transfer(&self, source: &str, port: u16) -> Result<Transfer> {
        let (source, target): (IpAddr, SocketAddr) = (ip(source), at(NODE, port));
        Transfer::new(self.home(&source.to_string()), source, target)
    }

    /// `source` gets no answer at `port`.
    pub fn is_dropped(&self, source: &str, port: u16) -> Result<()> {
        silent(self.home(source), ip(source), at(NODE, port))
    }
}
