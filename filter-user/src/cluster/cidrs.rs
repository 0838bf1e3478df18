//! The pod CIDRs of the cluster, as far as files of this node name them.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;

use super::files::{documents, files, flag, flags, parsed, strings, text, values};

/// A CIDR, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The addresses.
    pub range: IpNet,
    /// The file and the key in it, in words.
    pub from: String,
}

/// The pod CIDRs that files of this node name: widest first, without those inside another one.
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
    k0s(&mut add);
    for path in files("/etc/cni/net.d", &["conflist", "conf", "json"]) {
        let documents = documents(&path);
        for (key, value) in documents.iter().flat_map(networks) {
            add(&path, key, value);
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

/// The pod CIDRs of k0s: from its configuration, or its default.
fn k0s(add: &mut impl FnMut(&Path, &str, &str)) {
    const DEFAULT: &str = "10.244.0.0/16";
    let folder = Path::new("/etc/k0s");
    let path = folder.join("k0s.yaml");
    let parsed = parsed(&path);
    let documents = parsed.clone().unwrap_or_default();
    let values_of = |key| {
        documents
            .iter()
            .flat_map(move |document| values(document, key))
    };
    let mut found = false;
    for value in values_of("podCIDR") {
        found = true;
        add(&path, "podCIDR", &strings(value).join(","));
    }
    for dual in values_of("dualStack") {
        if dual["enabled"] == true
            && let Some(value) = dual["IPv6podCIDR"].as_str()
        {
            add(&path, "IPv6podCIDR", value);
        }
    }
    if !found && folder.exists() && parsed.is_some() {
        add(folder, "the default of podCIDR", DEFAULT);
    }
}

/// The pod CIDRs of k3s or RKE2: `cluster-cidr` from the flags in the systemd unit, else from the
/// configuration, else the default.
fn rancher(distribution: &str, add: &mut impl FnMut(&Path, &str, &str)) {
    const NAME: &str = "cluster-cidr";
    const DEFAULT: &str = "10.42.0.0/16";
    let folder = PathBuf::from(format!("/etc/rancher/{distribution}"));
    if !folder.exists() {
        return;
    }
    let places = ["/etc", "/usr/local/lib", "/usr/lib"];
    let names = [distribution.to_owned(), format!("{distribution}-server")];
    for (place, name) in places
        .iter()
        .flat_map(|place| names.iter().map(move |name| (place, name)))
    {
        let unit = PathBuf::from(format!("{place}/systemd/system/{name}.service"));
        let text = text(&unit).unwrap_or_default();
        // A unit file may quote its words and spread them over lines.
        let words = text.split(|c: char| c.is_whitespace() || ['\'', '"', '\\'].contains(&c));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let values = flags(&words, &format!("--{NAME}"));
        if !values.is_empty() {
            add(&unit, &format!("--{NAME}"), &values.join(","));
            return;
        }
    }
    let main = folder.join("config.yaml");
    let mut paths = vec![main];
    let more = folder.join("config.yaml.d");
    paths.extend(files(&more.to_string_lossy(), &["yaml", "yml"]));
    // The last file wins; a key with `+` adds to it.
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let mut is_known = true;
    for path in paths {
        let Some(documents) = parsed(&path) else {
            is_known = false;
            continue;
        };
        let value = |key: &str| Some(strings(documents.first()?.get(key)?).join(","));
        if let Some(value) = value(NAME) {
            found = vec![(path.clone(), value)];
        }
        if let Some(value) = value(&format!("{NAME}+")) {
            found.push((path, value));
        }
    }
    if found.is_empty() && is_known {
        add(&folder, "the default of cluster-cidr", DEFAULT);
    }
    for (path, value) in found {
        add(&path, NAME, &value);
    }
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
