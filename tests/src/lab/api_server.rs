//! An API server on a control plane.

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use rustls::ClientConfig;

use super::{client::Client, keys::Keys, keys::Pair, network::Machine, program::Server};
use crate::{
    netns::Namespace,
    site::{at, ip},
};

/// The port of every API server.
pub const PORT: u16 = 6443;
/// An API server, for programs on its own machine.
pub const LOOPBACK: &str = "https://127.0.0.1:6443";

/// The server, which can be paused, killed and started again.
#[derive(Debug)]
pub struct ApiServer {
    server: Server,
    words: Vec<String>,
    namespace: Namespace,
    client: Arc<ClientConfig>,
}

impl ApiServer {
    /// Makes what it needs on `machine`, in `directory`; it does not run yet. `store` is etcd.
    pub fn new(machine: &Machine, keys: &Keys, store: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let pair = keys.server(machine.name, &machine.addresses)?;
        let namespace = &machine.namespace;
        let log = directory.join("kube-apiserver.log");
        Ok(Self {
            server: Server::new("kube-apiserver", namespace, &log)?,
            words: words(machine, keys, &pair, store, directory),
            namespace: namespace.try_clone()?,
            client: keys.client.clone(),
        })
    }

    /// Starts it, and does not wait for it.
    pub fn start(&mut self) -> Result<()> {
        let words = &self.words;
        self.server.start(|command| {
            command.args(words);
        })
    }

    /// Waits until it says that it is ready.
    pub fn until_ready(&mut self) -> Result<()> {
        let (client, namespace) = (&self.client, &self.namespace);
        self.server.until("the API server is ready", || {
            Ok(is_ready(client, namespace).unwrap_or_default())
        })
    }

    /// Kills it and starts it again, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.start()?;
        self.until_ready()
    }

    /// A connection of a program on its own machine.
    pub fn local_client(&self) -> Result<Client> {
        local_client(&self.client, &self.namespace)
    }

    /// The process, to pause and kill it.
    pub fn process(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn local_client(client: &Arc<ClientConfig>, namespace: &Namespace) -> Result<Client> {
    Client::connect(client, namespace, ip("127.0.0.1"), at("127.0.0.1", PORT))
}

fn is_ready(client: &Arc<ClientConfig>, namespace: &Namespace) -> Result<bool> {
    Ok(local_client(client, namespace)?.get("/readyz")?.status == 200)
}

/// The words on its command line.
fn words(
    machine: &Machine,
    keys: &Keys,
    pair: &Pair,
    store: &str,
    directory: &Path,
) -> Vec<String> {
    let [signing, checking] = keys.tokens();
    let [address, _] = machine.addresses;
    let file = |path: &Path| path.display().to_string();
    let options = [
        ("etcd-servers", store.to_owned()),
        ("secure-port", PORT.to_string()),
        ("advertise-address", address.to_owned()),
        // No pod reaches the server by the address of its service.
        ("endpoint-reconciler-type", "none".to_owned()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("client-ca-file", file(&keys.authority())),
        ("tls-cert-file", file(&pair.certificate)),
        ("tls-private-key-file", file(&pair.key)),
        ("cert-dir", file(directory)),
        ("authorization-mode", "RBAC".to_owned()),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc".to_owned(),
        ),
        ("service-account-signing-key-file", file(&signing)),
        ("service-account-key-file", file(&checking)),
        // Without the controller manager, nothing makes the accounts that it asks for.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
    ];
    let option = |(name, value)| format!("--{name}={value}");
    options.map(option).into()
}
