//! What this node is, before a filter is attached: the API server and what is in front of it, the
//! interfaces and their hooks, the networks of the cluster, and who is connected. `init` proposes
//! settings from it, and `doctor` compares it with what is in force.

mod blocks;
mod clients;
mod interfaces;
mod networks;
mod ports;
mod rewritten;

pub(crate) use self::{
    clients::{Client, ClientKind},
    interfaces::{Hook, NetworkInterface},
    ports::ProtectedPort,
};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;

use crate::{
    change::first::foreign_claims,
    cluster::{
        Cidr, Cloud, ControlPlane, Root, Servers, kubelet, peers, pod_cidrs, servers, service_cidrs,
    },
    config::{DEFAULT_PORTS, Preset},
    context::Context,
    kernel::{
        net::{
            rtnetlink,
            sock_diag::{listeners, listening_ports, open, ssh_client_address},
        },
        routes::Paths,
    },
    ranges::Lists,
};

/// The facts.
pub(crate) struct Survey {
    /// What files say of the control plane.
    pub(crate) control_plane: ControlPlane,
    /// Which programs serve.
    pub(crate) servers: Servers,
    /// The evidence for a kubelet, in words.
    pub(crate) kubelet: Option<String>,
    /// The cloud, and the file that names it.
    pub(crate) cloud: Option<(Cloud, String)>,
    pub(crate) pods: Vec<Cidr>,
    pub(crate) services: Vec<Cidr>,
    /// etcd members and API servers elsewhere, each with its role.
    pub(crate) peers: BTreeMap<IpAddr, &'static str>,
    pub(crate) interfaces: Vec<NetworkInterface>,
    /// The names of devices of pods and of the cluster's network, by kind.
    pub(crate) pod_devices: BTreeMap<String, Vec<String>>,
    /// Who is connected to the ports to protect.
    pub(crate) clients: Vec<Client>,
    /// The address of this SSH session.
    pub(crate) ssh: Option<IpAddr>,
    /// The names of the files of nodes and pods that are there.
    pub(crate) files: Vec<Preset>,
    /// The ports to protect.
    pub(crate) ports: Vec<ProtectedPort>,
    /// What could not be read, and other things to know, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Survey {
    /// Looks at the node: its files under `root`, and what runs in this network namespace.
    ///
    /// # Errors
    /// If rtnetlink does not answer. What else cannot be read is in the notes.
    pub(crate) fn new(context: &Context, root: &Root) -> Result<Self> {
        let mut notes = Vec::new();
        let control_plane = ControlPlane::read(root);
        let own: BTreeSet<IpAddr> = rtnetlink::addresses()?
            .into_iter()
            .map(|(_, own)| own)
            .collect();
        let mut unread = |error: anyhow::Error| {
            notes.push(format!("the kernel does not list sockets: {error:#}"));
            Vec::new()
        };
        let listeners = listeners().unwrap_or_else(&mut unread);
        let sockets = open().unwrap_or_default();
        let known: BTreeSet<u16> = control_plane.api.iter().map(|one| one.port).collect();
        let servers = servers(&known, &listeners, &sockets);
        let ports = ports::protected_ports(&control_plane, &servers, &own, &mut notes);
        let numbers: BTreeSet<u16> = ports.iter().map(|one| one.port).collect();
        notes.extend(web(context, &numbers)?);
        let mut peers = peers(root, &sockets, &numbers, &listening_ports(&listeners));
        peers.retain(|peer, _| !own.contains(peer));
        let interfaces = interfaces::interfaces(context, &numbers)?;
        let (pods, services) = (pod_cidrs(root), service_cidrs(root));
        notes.extend(rewritten::rewritten(&own, &services, &numbers));
        let ssh = ssh_client_address();
        let files = context
            .read_cluster(Preset::ALL.into_iter().filter_map(Preset::file))
            .lists;
        let facts = clients::Facts {
            context,
            own: &own,
            pods: &pods,
            peers: &peers,
            ssh,
            ports: &numbers,
            interfaces: &interfaces,
            files: &files,
        };
        let (clients, kubelet, cloud) =
            (facts.clients(&sockets)?, kubelet(root), Cloud::read(root));
        notes.extend(unread_files(root));
        Ok(Self {
            clients,
            files: files_there(&files),
            pod_devices: interfaces::pod_devices()?,
            kubelet,
            cloud,
            services,
            control_plane,
            servers,
            pods,
            peers,
            interfaces,
            ssh,
            ports,
            notes,
        })
    }

    /// The numbers of the ports to protect.
    pub(crate) fn port_numbers(&self) -> BTreeSet<u16> {
        self.ports.iter().map(|one| one.port).collect()
    }

    /// Whether an API server was found, in files or as a process.
    pub(crate) fn has_api_server(&self) -> bool {
        !self.control_plane.api.is_empty() || !self.servers.api.is_empty()
    }
}

/// What serves the web here, on a port that is protected by default: a listener, or a rule that
/// rewrites its packets, which no listener shows.
fn web(context: &Context, ports: &BTreeSet<u16>) -> Result<Vec<String>> {
    let web: BTreeSet<u16> = &BTreeSet::from(DEFAULT_PORTS) - ports;
    let mut settings = context.config.settings();
    settings.ports = ports | &web;
    let claims = foreign_claims(&Paths::new()?, &web, &settings, false, &BTreeSet::new());
    let claims = claims.into_iter();
    Ok(claims
        .map(|(_, why)| format!("{why}, not the API server: it is not protected"))
        .collect())
}

/// A note about each file that is there, and cannot be read.
fn unread_files(root: &Root) -> impl Iterator<Item = String> {
    let unread = root.unread().into_iter();
    unread.map(|path| {
        let path = path.display();
        format!("`{path}` exists, but cannot be read: ignored")
    })
}

/// The presets whose files are there.
fn files_there(files: &Lists) -> Vec<Preset> {
    let is_there = |preset: &Preset| preset.file().is_some_and(|name| files.get(&name).is_some());
    Preset::ALL.into_iter().filter(is_there).collect()
}
