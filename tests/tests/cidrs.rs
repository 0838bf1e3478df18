//! The CIDRs of pods in the files of a node, for every distribution.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use tests::{
    mounts::{own, own_etc},
    site::{ATTACH, Site},
};

/// Files, and the CIDRs that they contain.
type Row = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const K3S: &str = "/etc/rancher/k3s/config.yaml";
const DEFAULT: &[&str] = &["10.42.0.0/16"];

const ROWS: &[Row] = &[
    // k3s and RKE2: words, lists, both families, files that override and that add, none at all.
    (
        &[(
            K3S,
            "cluster-cidr: 10.44.0.0/16\nservice-cidr: 10.45.0.0/16\n",
        )],
        &["10.44.0.0/16"],
    ),
    (
        &[(K3S, "cluster-cidr: 10.44.0.0/16,fd00::/56\n")],
        &["10.44.0.0/16", "fd00::/56"],
    ),
    (
        &[(K3S, "cluster-cidr: \"10.44.0.0/16, fd00:1::/56\"\n")],
        &["10.44.0.0/16", "fd00:1::/56"],
    ),
    (
        &[(
            K3S,
            "cluster-cidr:\n  - 10.44.0.0/16\n  - fd00::/56\ntls-san: [a, b]\n",
        )],
        &["10.44.0.0/16", "fd00::/56"],
    ),
    (
        &[(K3S, "cluster-cidr: [10.44.0.0/16,fd00::/56]\n")],
        &["10.44.0.0/16", "fd00::/56"],
    ),
    (
        &[
            (K3S, "cluster-cidr: 10.44.0.0/16\n"),
            (
                "/etc/rancher/k3s/config.yaml.d/10-a.yaml",
                "cluster-cidr: 10.46.0.0/16\n",
            ),
            (
                "/etc/rancher/k3s/config.yaml.d/20-b.yaml",
                "write-kubeconfig-mode: 644\n",
            ),
            (
                "/etc/rancher/k3s/config.yaml.d/90-c.txt",
                "cluster-cidr: 10.99.0.0/16\n",
            ),
        ],
        &["10.46.0.0/16"],
    ),
    (
        &[
            (K3S, "cluster-cidr: 10.44.0.0/16\n"),
            (
                "/etc/rancher/k3s/config.yaml.d/10-a.yaml",
                "cluster-cidr+: [fd00::/56]\n",
            ),
        ],
        &["10.44.0.0/16", "fd00::/56"],
    ),
    (&[(K3S, "token: x\nnode-label: [\"a=b\"]\n")], DEFAULT),
    (&[(K3S, "")], DEFAULT),
    (&[(K3S, "# nothing\n")], DEFAULT),
    (
        &[("/etc/rancher/k3s/k3s.yaml", "apiVersion: v1\n")],
        DEFAULT,
    ),
    (
        &[(
            "/etc/rancher/rke2/config.yaml",
            "cluster-cidr: 10.48.0.0/14\n",
        )],
        &["10.48.0.0/14"],
    ),
    (&[("/etc/rancher/rke2/rke2.yaml", "")], DEFAULT),
    // An unreadable file may say anything.
    (&[(K3S, "cluster-cidr: [10.44.0.0/16\n  x: }\n")], &[]),
    (
        &[
            (K3S, "cluster-cidr: 10.44.0.0/16\n"),
            ("/etc/rancher/k3s/config.yaml.d/1.yaml", "a: [\n"),
        ],
        &["10.44.0.0/16"],
    ),
    (&[(K3S, "cluster-cidr: many\n")], &[]),
    // The installer of k3s puts its arguments into the unit.
    (
        &[
            (K3S, "cluster-cidr: 10.44.0.0/16\n"),
            (
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--cluster-cidr' \\\n\t'10.50.0.0/16' \\\n\t'--cluster-cidr=fd01::/56' \\\n",
            ),
        ],
        &["10.50.0.0/16", "fd01::/56"],
    ),
    // k0s.
    (
        &[(
            "/etc/k0s/k0s.yaml",
            "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  network:\n    podCIDR: 10.60.0.0/16\n    serviceCIDR: 10.96.0.0/12\n    dualStack:\n      enabled: true\n      IPv6podCIDR: fd00::/108\n      IPv6serviceCIDR: fd01::/108\n",
        )],
        &["10.60.0.0/16", "fd00::/108"],
    ),
    (
        &[(
            "/etc/k0s/k0s.yaml",
            "spec:\n  network:\n    podCIDR: 10.60.0.0/16\n    dualStack:\n      enabled: false\n      IPv6podCIDR: fd00::/108\n",
        )],
        &["10.60.0.0/16"],
    ),
    (&[("/etc/k0s/k0s.yaml", "spec: {}\n")], &["10.244.0.0/16"]),
    (&[("/etc/k0s/k0stoken", "x")], &["10.244.0.0/16"]),
    (&[("/etc/k0s/k0s.yaml", "spec: [\n")], &[]),
    // kubeadm.
    (
        &[(
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            "spec:\n  containers:\n  - command:\n    - kube-controller-manager\n    - --allocate-node-cidrs=true\n    - --cluster-cidr\n    - 10.244.0.0/16,fd00:10:244::/56\n",
        )],
        &["10.244.0.0/16", "fd00:10:244::/56"],
    ),
    (
        &[(
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            "spec:\n  containers:\n  - command: [kube-controller-manager]\n",
        )],
        &[],
    ),
    // flannel.
    (
        &[(
            "/run/flannel/subnet.env",
            "FLANNEL_NETWORK=10.62.0.0/16\nFLANNEL_SUBNET=10.62.1.1/24\nFLANNEL_IPV6_NETWORK=fd02::/56\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        )],
        &["10.62.0.0/16", "fd02::/56"],
    ),
    // Network plugins: flannel and Cilium have none, Calico may, host-local does.
    (
        &[(
            "/etc/cni/net.d/10-flannel.conflist",
            "{\"name\": \"cbr0\", \"cniVersion\": \"0.3.1\", \"plugins\": [{\"type\": \"flannel\", \"delegate\": {\"hairpinMode\": true, \"isDefaultGateway\": true}}, {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}]}",
        )],
        &[],
    ),
    (
        &[(
            "/etc/cni/net.d/10-calico.conflist",
            "{\"name\": \"k8s-pod-network\", \"plugins\": [{\"type\": \"calico\", \"ipam\": {\"type\": \"calico-ipam\", \"assign_ipv4\": \"true\"}, \"policy\": {\"type\": \"k8s\"}}]}",
        )],
        &[],
    ),
    (
        &[(
            "/etc/cni/net.d/10-calico.conflist",
            "{\"plugins\": [{\"type\": \"calico\", \"ipam\": {\"type\": \"calico-ipam\", \"ipv4_pools\": [\"10.63.0.0/16\", \"default-ipv4-ippool\"], \"ipv6_pools\": [\"fd03::/56\"]}}]}",
        )],
        &["10.63.0.0/16", "fd03::/56"],
    ),
    (
        &[(
            "/etc/cni/net.d/10-calico.conflist",
            "{\"plugins\": [{\"type\": \"calico\", \"ipam\": {\"type\": \"host-local\", \"subnet\": \"usePodCidr\"}}]}",
        )],
        &[],
    ),
    (
        &[(
            "/etc/cni/net.d/05-cilium.conflist",
            "{\"cniVersion\": \"0.3.1\", \"name\": \"cilium\", \"plugins\": [{\"type\": \"cilium-cni\", \"enable-debug\": false, \"log-file\": \"/var/run/cilium/cilium-cni.log\"}]}",
        )],
        &[],
    ),
    (
        &[(
            "/etc/cni/net.d/10-bridge.conf",
            "{\"type\": \"bridge\", \"ipam\": {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": \"10.64.0.0/24\", \"gateway\": \"10.64.0.1\"}], [{\"subnet\": \"fd04::/64\"}]]}}",
        )],
        &["10.64.0.0/24", "fd04::/64"],
    ),
    // The first file is the cluster's; later ones may belong to other programs.
    (
        &[
            (
                "/etc/cni/net.d/05-cilium.conflist",
                "{\"plugins\": [{\"type\": \"cilium-cni\"}]}",
            ),
            (
                "/etc/cni/net.d/87-podman-bridge.conflist",
                "{\"plugins\": [{\"type\": \"bridge\", \"ipam\": {\"ranges\": [[{\"subnet\": \"10.88.0.0/16\"}]]}}]}",
            ),
        ],
        &[],
    ),
    (
        &[
            (
                "/etc/cni/net.d/00-multus.conf",
                "{\"type\": \"multus\", \"clusterNetwork\": \"10-bridge\"}",
            ),
            (
                "/etc/cni/net.d/10-bridge.conf",
                "{\"type\": \"bridge\", \"ipam\": {\"subnet\": \"10.65.0.0/16\"}}",
            ),
        ],
        &["10.65.0.0/16"],
    ),
    (
        &[
            ("/etc/cni/net.d/10-broken.conflist", "{\"plugins\": ["),
            (
                "/etc/cni/net.d/20-b.conf",
                "{\"ipam\": {\"subnet\": \"10.66.0.0/16\"}}",
            ),
        ],
        &["10.66.0.0/16"],
    ),
    // A CIDR inside another one is omitted; a default is listed with the others.
    (
        &[
            ("/etc/rancher/k3s/k3s.yaml", ""),
            ("/run/flannel/subnet.env", "FLANNEL_NETWORK=10.42.0.0/16\n"),
            ("/etc/cni/net.d/10-b.conf", "{\"subnet\": \"10.42.3.0/24\"}"),
        ],
        DEFAULT,
    ),
];

const FOLDERS: [&str; 6] = [
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/k0s",
    "/etc/cni",
    "/etc/systemd/system/k3s.service",
    "/run/flannel",
];

#[test]
fn pod_cidrs_are_read_for_every_distribution() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    own_etc()?;
    own("/run")?;
    for (files, want) in ROWS {
        for folder in FOLDERS.map(Path::new) {
            if folder.is_dir() {
                fs::remove_dir_all(folder)?;
            } else if folder.exists() {
                fs::remove_file(folder)?;
            }
        }
        // The signs that this machine is a node.
        let kubelet: (&str, &str) = ("/etc/kubernetes/kubelet.conf", "");
        for (path, text) in files.iter().chain([&kubelet]) {
            let path = Path::new(path);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, text)?;
        }
        let ran = filter.run(&[&ATTACH[..], &["--dry-run"]].concat())?;
        let lines = ran
            .stderr
            .lines()
            .filter_map(|line| line.split_once(": pods ("));
        let mut found: Vec<&str> = lines.map(|(cidr, _)| cidr.trim()).collect();
        found.sort_unstable();
        ensure!(
            found == *want,
            "{files:?}: {found:?}, wanted {want:?}: {ran}"
        );
    }
    Ok(())
}
