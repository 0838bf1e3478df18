//! The pod and service CIDRs of the cluster, as far as files of this node name them.

use std::path::Path;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    files::{Root, flags, manifests, strings, values},
    k0s,
    rancher::{folder, setting},
};

/// A CIDR, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The addresses.
    pub range: IpNet,
    /// The file and the key in it, in words.
    pub from: String,
}

/// What the CIDRs are for: the names of the settings that hold them.
struct Names {
    /// The flag of a component of Kubernetes, with its dashes, and the manifest that has it.
    flag: &'static str,
    manifest: &'static str,
    /// The setting of k3s and RKE2, and its default.
    rancher: (&'static str, &'static str),
    /// The key of k0s, its default, and the key of its IPv6 twin.
    k0s: (&'static str, &'static str, &'static str),
}

/// CIDRs while they are collected.
#[derive(Default)]
struct Found(Vec<Cidr>);

impl Found {
    /// Adds those in `text`, which `what` in the file at `path` has.
    fn add(&mut self, path: &Path, what: &str, text: &str) {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let ranges = words.filter_map(|word| word.trim().parse::<IpNet>().ok());
        self.0.extend(ranges.map(|range| Cidr {
            range: range.trunc(),
            from: format!("`{what}` in `{}`", path.display()),
        }));
    }

    /// Adds those that the distributions of Kubernetes name.
    fn add_distributions(&mut self, root: &Root, names: &Names) {
        for manifest in manifests(names.manifest) {
            if let Some(value) = root.flag(&manifest, names.flag) {
                self.add(Path::new(&manifest), names.flag, &value);
            }
        }
        if let Some((path, words)) = root.unit(&format!("{}.service", names.manifest)) {
            for value in flags(&words, names.flag) {
                self.add(&path, names.flag, &value);
            }
        }
        for distribution in ["k3s", "rke2"] {
            let (name, default) = names.rancher;
            if !root.has(folder(distribution)) {
                continue;
            }
            let Some(set) = setting(root, distribution, name) else {
                continue;
            };
            if set.is_empty() {
                let what = format!("the default of {name}");
                self.add(&folder(distribution), &what, default);
            }
            for setting in set {
                self.add(&setting.path, &setting.key, &setting.value);
            }
        }
        self.add_k0s(root, names);
    }

    /// Adds those of k0s: from its configuration, or its default.
    fn add_k0s(&mut self, root: &Root, names: &Names) {
        let folder = Path::new("/etc/k0s");
        let path = k0s::config(root);
        let parsed = root.parsed(&path);
        let documents = parsed.clone().unwrap_or_default();
        let values_of = |key| {
            documents
                .iter()
                .flat_map(move |document| values(document, key))
        };
        let (key, default, twin) = names.k0s;
        let mut is_set = false;
        for value in values_of(key) {
            is_set = true;
            self.add(&path, key, &strings(value).join(","));
        }
        for dual in values_of("dualStack") {
            if dual["enabled"] == true
                && let Some(value) = dual[twin].as_str()
            {
                self.add(&path, twin, value);
            }
        }
        if !is_set && root.has(folder) && parsed.is_some() {
            self.add(folder, &format!("the default of {key}"), default);
        }
    }
}

/// The pod CIDRs that files of the node name: widest first, without those inside another one.
pub fn pod_cidrs(root: &Root) -> Vec<Cidr> {
    let mut found = Found::default();
    found.add_distributions(
        root,
        &Names {
            flag: "--cluster-cidr",
            manifest: "kube-controller-manager",
            rancher: ("cluster-cidr", "10.42.0.0/16"),
            k0s: ("podCIDR", "10.244.0.0/16", "IPv6podCIDR"),
        },
    );
    let kubelet = Path::new("/var/lib/kubelet/config.yaml");
    for value in root
        .documents(kubelet)
        .iter()
        .flat_map(|document| values(document, "podCIDR"))
    {
        found.add(kubelet, "podCIDR", &strings(value).join(","));
    }
    for path in root.files("/etc/cni/net.d", &["conflist", "conf", "json"]) {
        let documents = root.documents(&path);
        for (key, value) in documents.iter().flat_map(networks) {
            found.add(&path, key, value);
        }
        // A runtime uses the first file; later ones may be of other programs. Multus uses all.
        let is_multus = |document: &Value| {
            values(document, "type")
                .iter()
                .any(|kind| *kind == "multus")
        };
        if !documents.is_empty() && !documents.iter().any(is_multus) {
            break;
        }
    }
    let flannel = Path::new("/run/flannel/subnet.env");
    for line in root.text(flannel).unwrap_or_default().lines() {
        for key in ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"] {
            if let Some(value) = line
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('='))
            {
                found.add(flannel, key, value.trim_matches('"'));
            }
        }
    }
    widest(found.0)
}

/// The service CIDRs that files of the node name. No packet comes from such an address.
pub fn service_cidrs(root: &Root) -> Vec<Cidr> {
    let mut found = Found::default();
    found.add_distributions(
        root,
        &Names {
            flag: "--service-cluster-ip-range",
            manifest: "kube-apiserver",
            rancher: ("service-cidr", "10.43.0.0/16"),
            k0s: ("serviceCIDR", "10.96.0.0/12", "IPv6serviceCIDR"),
        },
    );
    widest(found.0)
}

/// The networks that a network plugin's configuration assigns addresses from.
fn networks(document: &Value) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for key in ["subnet", "subnets", "ipv4_pools", "ipv6_pools"] {
        let under = values(document, key).into_iter().flat_map(strings);
        found.extend(under.map(|value| (key, value)));
    }
    found
}

/// The CIDRs that are not inside another one.
fn widest(mut found: Vec<Cidr>) -> Vec<Cidr> {
    found.sort_by_key(|cidr| cidr.range.prefix_len());
    let mut kept: Vec<Cidr> = Vec::new();
    for cidr in found {
        if !kept.iter().any(|other| other.range.contains(&cidr.range)) {
            kept.push(cidr);
        }
    }
    kept
}
