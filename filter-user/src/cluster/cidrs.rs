//! The CIDRs that pods have their addresses from, where a node says so.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;

use super::files::{documents, files, flag, strings, text, values};

/// A CIDR, and what tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The addresses.
    pub range: IpNet,
    /// The file, and what is said in there, in words.
    pub from: String,
}

/// The CIDRs of pods that the files of this node tell of, widest first, each once, and none that is inside another.
pub fn pod_cidrs() -> Vec<Cidr> {
    let mut found = Vec::new();
    let mut add = |path: &Path, what: &str, text: &str| {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let ranges = words.filter_map(|word| word.trim().parse::<IpNet>().ok());
        found.extend(ranges.map(|range| Cidr {
            range: range.trunc(),
            from: format!("`{what}` in `{}`", path.display()),
        }));
    };

    let manifest = Path::new("/etc/kubernetes/manifests/kube-controller-manager.yaml");
    if let Some(value) = flag(manifest, "--cluster-cidr") {
        add(manifest, "--cluster-cidr", &value);
    }
    let kubelet = Path::new("/var/lib/kubelet/config.yaml");
    for value in documents(kubelet)
        .iter()
        .flat_map(|document| values(document, "podCIDR"))
    {
        add(kubelet, "podCIDR", &strings(value).join(","));
    }
    for distribution in ["k3s", "rke2"] {
        rancher(distribution, &mut add);
    }
    let k0s = Path::new("/etc/k0s/k0s.yaml");
    for value in documents(k0s)
        .iter()
        .flat_map(|document| values(document, "podCIDR"))
    {
        add(k0s, "podCIDR", &strings(value).join(","));
    }
    for path in files("/etc/cni/net.d", &["conflist", "conf", "json"]) {
        for document in documents(&path) {
            for (key, value) in networks(&document) {
                add(&path, key, value);
            }
        }
    }
    let flannel = Path::new("/run/flannel/subnet.env");
    for line in text(flannel).unwrap_or_default().lines() {
        for key in ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"] {
            if let Some(value) = line
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('='))
            {
                add(flannel, key, value.trim_matches('"'));
            }
        }
    }
    widest(found)
}

/// What k3s and RKE2 go by: `cluster-cidr` in their configuration, or their default.
fn rancher(distribution: &str, add: &mut impl FnMut(&Path, &str, &str)) {
    const DEFAULT: &str = "10.42.0.0/16";
    let folder = PathBuf::from(format!("/etc/rancher/{distribution}"));
    if !folder.exists() {
        return;
    }
    let more = folder.join("config.yaml.d");
    let mut paths = vec![folder.join("config.yaml")];
    paths.extend(files(&more.to_string_lossy(), &["yaml", "yml"]));
    // The last one holds.
    let said = paths.iter().rev().find_map(|path| {
        let documents = documents(path);
        let value = documents.first()?.get("cluster-cidr")?;
        Some((path.clone(), strings(value).join(",")))
    });
    match said {
        Some((path, value)) => add(&path, "cluster-cidr", &value),
        None => add(&folder, "the default of cluster-cidr", DEFAULT),
    }
}

/// The networks that the configuration of a network plugin hands out addresses from.
fn networks(document: &Value) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for key in ["subnet", "subnets", "ipv4_pools", "ipv6_pools"] {
        let under = values(document, key).into_iter().flat_map(strings);
        found.extend(under.map(|value| (key, value)));
    }
    found
}

/// Those that are not inside another one.
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
