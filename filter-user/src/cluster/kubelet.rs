//! Whether this machine is a node of a cluster.

use super::{files::Root, owners::processes_here};

/// The programs that are a kubelet or contain one.
const KUBELETS: [&str; 7] = [
    "kubelet",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "rke2",
    "k0s",
    "microk8s",
];

/// The files that a kubelet leaves on disk.
const FILES: [&str; 5] = [
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/kubelet/config.yaml",
    "/etc/rancher/k3s",
    "/etc/rancher/rke2",
    "/etc/k0s",
];

/// The evidence for a kubelet, in words: its process in this network namespace, or its files.
pub fn kubelet(root: &Root) -> Option<String> {
    let mut processes = processes_here();
    let process = processes.find(|process| KUBELETS.contains(&&*process.name));
    let process = process.map(|process| format!("`{}` (pid {}) runs", process.name, process.pid));
    process.or_else(|| {
        let file = FILES.into_iter().find(|file| root.has(file))?;
        Some(format!("`{file}` exists"))
    })
}
