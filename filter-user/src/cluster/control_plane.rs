//! The control plane as files of the node describe it: distribution, ports, proxies, cloud.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use serde_json::Value;

use super::{
    files::{Root, flags, manifests, values},
    haproxy::haproxy_ports,
    k0s,
    port::Port,
    rancher::{folder, setting},
};

/// What files of the node say of its control plane. A fact without a file is absent.
#[derive(Clone, Debug, Default)]
pub struct ControlPlane {
    /// The name of the distribution.
    pub distribution: Option<&'static str>,
    /// The ports of the API server.
    pub api: Vec<Port>,
    /// Further ports of the control plane that clients join the cluster through.
    pub join: Vec<Port>,
    /// Ports of proxies that forward to an API server.
    pub proxies: Vec<Port>,
    /// The addresses of the API server, each with the file and key that say so.
    pub addresses: Vec<(IpAddr, String)>,
    /// What says that etcd runs here, in words.
    pub etcd: Option<String>,
    /// The host and the port that clients of the cluster use, and the file that says so.
    pub endpoint: Option<(String, Port)>,
}

const KUBERNETES: &str = "Kubernetes";
const KUBEADM: &str = "kubeadm";
const K3S: &str = "k3s";
const RKE2: &str = "RKE2";
const K0S: &str = "k0s";

/// The port of the API server where nothing else is configured, in every distribution.
const API: u16 = 6443;
/// The port of an `https` URL that names none.
const HTTPS: u16 = 443;

impl ControlPlane {
    /// Reads the files.
    pub fn read(root: &Root) -> Self {
        let mut found = Self::default();
        found.add_manifest(root);
        found.add_unit(root);
        found.add_rancher(root);
        found.add_k0s(root);
        found.endpoint = endpoint(root);
        found.add_addresses(root);
        let etcd = manifests("etcd").into_iter().find(|path| root.has(path));
        found.etcd = etcd.map(|path| format!("`{path}`"));
        let api: Vec<u16> = found.api.iter().map(|one| one.port).collect();
        // The API server may be one that only its process shows.
        let targets = if api.is_empty() { &[API][..] } else { &api };
        found.proxies = haproxy_ports(root, targets);
        found.proxies.extend(kube_vip(root, &api));
        found
    }

    fn add_addresses(&mut self, root: &Root) {
        let mut add = |text: &str, key: &str, path: &str| {
            let addresses = text.split(',').filter_map(|one| one.trim().parse().ok());
            let from = format!("`{key}` in `{path}`");
            self.addresses
                .extend(addresses.map(|one: IpAddr| (one, from.clone())));
        };
        const ADVERTISED: &str = "--advertise-address";
        for manifest in manifests("kube-apiserver") {
            if let Some(value) = root.flag(&manifest, ADVERTISED) {
                add(&value, ADVERTISED, &manifest);
            }
        }
        if let Some((path, words)) = root.unit("kube-apiserver.service") {
            for value in flags(&words, ADVERTISED) {
                add(&value, ADVERTISED, &path.display().to_string());
            }
        }
        for distribution in ["k3s", "rke2"] {
            for name in ["advertise-address", "node-ip"] {
                for set in setting(root, distribution, name).unwrap_or_default() {
                    add(&set.value, &set.key, &set.path.display().to_string());
                }
            }
        }
        let k0s = k0s::config(root);
        for document in root.documents(&k0s) {
            let api = &document["spec"]["api"];
            for key in ["address", "externalAddress"] {
                let value = api[key].as_str().unwrap_or_default();
                add(value, key, &k0s.display().to_string());
            }
        }
    }

    /// kubeadm, kOps and RKE2: the API server is a static pod.
    fn add_manifest(&mut self, root: &Root) {
        let all = manifests("kube-apiserver");
        let Some(manifest) = all.iter().find(|manifest| root.has(manifest)) else {
            return;
        };
        self.distribution = Some(if manifest.contains("rke2") {
            RKE2
        } else if root.has("/etc/kubernetes/admin.conf") || root.has("/var/lib/kubelet/config.yaml")
        {
            KUBEADM
        } else {
            KUBERNETES
        });
        let key = "--secure-port";
        self.api.push(match root.flag(manifest, key) {
            None if root.parsed(manifest).is_none() => Port {
                port: API,
                from: format!(
                    "the API server (`{manifest}` cannot be read; the default of `{key}`)"
                ),
            },
            set => named_or_default(set.as_deref(), "the API server", key, manifest),
        });
    }

    /// An API server that is a service of systemd.
    fn add_unit(&mut self, root: &Root) {
        let Some((path, words)) = root.unit("kube-apiserver.service") else {
            return;
        };
        self.distribution = self.distribution.or(Some(KUBERNETES));
        let path = path.display().to_string();
        let key = "--secure-port";
        let set = flags(&words, key).pop();
        let set = set.as_deref();
        self.api
            .push(named_or_default(set, "the API server", key, &path));
    }

    fn add_rancher(&mut self, root: &Root) {
        /// Servers of RKE2 register nodes at this port; it cannot be changed.
        const SUPERVISOR: u16 = 9345;
        if is_server(root, "rke2") {
            self.distribution = Some(RKE2);
            let folder = folder("rke2").display().to_string();
            if self.api.is_empty() {
                self.api.push(Port {
                    port: API,
                    from: format!("the API server of RKE2 (`{folder}`)"),
                });
            }
            self.join.push(Port {
                port: SUPERVISOR,
                from: format!("RKE2 nodes join through this port (`{folder}`)"),
            });
        }
        if is_server(root, "k3s") {
            const NAME: &str = "https-listen-port";
            self.distribution = Some(K3S);
            let set = setting(root, "k3s", NAME).unwrap_or_default();
            let what = "the API server of k3s";
            self.api.push(match set.last() {
                Some(set) => {
                    let last = set.value.rsplit(',').next();
                    named_or_default(last, what, &set.key, &set.path.display().to_string())
                }
                None => defaulted(what, NAME, &folder("k3s").display().to_string()),
            });
        }
    }

    fn add_k0s(&mut self, root: &Root) {
        let path = k0s::config(root);
        if !root.has(&path) && !root.has_unit(k0s::UNIT) {
            return;
        }
        self.distribution = Some(K0S);
        let documents = root.documents(&path);
        let mut apis = documents.iter().filter_map(|one| one["spec"].get("api"));
        let api = apis.next().cloned().unwrap_or_default();
        let port = |key: &str| number(&api[key]);
        let what = "the API server of k0s";
        let path = path.display();
        self.api.push(match port("port") {
            Some(port) => named(port, what, "spec.api.port", &path.to_string()),
            None => defaulted(what, "spec.api.port", &path.to_string()),
        });
        /// Controllers and workers join through this port (`k0sApiPort`).
        const JOIN: u16 = 9443;
        self.join.push(Port {
            port: port("k0sApiPort").unwrap_or(JOIN),
            from: format!("k0s nodes join through this port (`spec.api.k0sApiPort` in `{path}`)"),
        });
    }
}

/// Whether the node is a server of `distribution`, `k3s` or `rke2`, and no agent.
fn is_server(root: &Root, distribution: &str) -> bool {
    let unit = |name: &str| root.unit(&format!("{name}.service")).is_some();
    let is_wanted = |name: &str| {
        root.has(format!(
            "/etc/systemd/system/multi-user.target.wants/{name}.service"
        ))
    };
    let (server, agent) = (
        format!("{distribution}-server"),
        format!("{distribution}-agent"),
    );
    if root.has(format!("/var/lib/rancher/{distribution}/server"))
        || is_wanted(&server)
        || unit(distribution)
    {
        return true;
    }
    // The archive of RKE2 has the units of both.
    let is_agent = is_wanted(&agent) || (unit(&agent) && !unit(&server));
    root.has(folder(distribution)) && !is_agent
}

fn named(port: u16, what: &str, key: &str, path: &str) -> Port {
    Port {
        port,
        from: format!("{what} (`{key}` in `{path}`)"),
    }
}

/// The port that is set, or the default one.
fn named_or_default(set: Option<&str>, what: &str, key: &str, path: &str) -> Port {
    match set.map(|set| (set, set.parse())) {
        Some((_, Ok(port))) => named(port, what, key, path),
        Some((set, Err(_))) => Port {
            port: API,
            from: format!("{what} (`{key}` in `{path}` is `{set}`, not a number: the default)"),
        },
        None => defaulted(what, key, path),
    }
}

fn defaulted(what: &str, key: &str, path: &str) -> Port {
    Port {
        port: API,
        from: format!("{what} (`{path}`; the default of `{key}`)"),
    }
}

fn number(value: &Value) -> Option<u16> {
    let number = || u16::try_from(value.as_u64()?).ok();
    number().or_else(|| value.as_str()?.parse().ok())
}

/// The server that the node's own clients of the API server use.
fn endpoint(root: &Root) -> Option<(String, Port)> {
    const FILES: [&str; 3] = [
        "/etc/kubernetes/admin.conf",
        "/etc/kubernetes/kubelet.conf",
        "/etc/kubernetes/super-admin.conf",
    ];
    FILES.into_iter().find_map(|file| {
        let documents = root.documents(file);
        let servers = documents.iter().flat_map(|one| values(one, "server"));
        let url = servers.into_iter().find_map(Value::as_str)?;
        let authority = url.split_once("://")?.1.split('/').next()?;
        let has_port = authority
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'));
        let (host, port) = match has_port {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, HTTPS),
        };
        let host = host.trim_matches(['[', ']']);
        let from = format!("the endpoint of the cluster, `server` in `{file}`,");
        Some((by_hosts(root, host), Port { port, from }))
    })
}

/// The address of `host` in the node's file of hosts, or `host`.
fn by_hosts(root: &Root, host: &str) -> String {
    let hosts = root.text("/etc/hosts").unwrap_or_default();
    let mut lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let address = lines.find_map(|line| {
        let (address, mut names) = {
            let mut words = line.split_whitespace();
            (words.next()?, words)
        };
        names.any(|name| name == host).then(|| address.to_owned())
    });
    address.unwrap_or_else(|| host.to_owned())
}

/// The port at which kube-vip balances over the API servers, if it is another one than theirs.
fn kube_vip(root: &Root, api: &[u16]) -> Option<Port> {
    let path = "/etc/kubernetes/manifests/kube-vip.yaml";
    let documents = root.documents(path);
    let environment: BTreeMap<&str, &str> = documents
        .iter()
        .flat_map(|document| values(document, "env"))
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)))
        .collect();
    let port = environment.get("lb_port")?.parse().ok()?;
    let is_on = environment.get("lb_enable") == Some(&"true");
    (is_on && !api.contains(&port)).then(|| Port {
        port,
        from: format!("kube-vip forwards this port to the API servers (`lb_port` in `{path}`)"),
    })
}

/// A cloud whose balancers probe their targets from known addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Google Cloud.
    Google,
    /// Azure.
    Azure,
    /// AWS: a balancer probes from its own subnets.
    Amazon,
}

impl Cloud {
    /// The cloud that the firmware names, and the file that says so.
    pub fn read(root: &Root) -> Option<(Self, String)> {
        /// Azure's machines have this chassis asset tag, and other machines of Hyper-V do not.
        const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";
        let names = [
            ("sys_vendor", "Amazon EC2", Self::Amazon),
            ("product_name", "Google Compute Engine", Self::Google),
            ("chassis_asset_tag", AZURE, Self::Azure),
        ];
        names.into_iter().find_map(|(file, name, cloud)| {
            let path = Path::new("/sys/class/dmi/id").join(file);
            let is_it = root.text(&path)?.trim() == name;
            is_it.then(|| (cloud, format!("`{}`", path.display())))
        })
    }
}
