//! `apifence-kube` carries the authorized ranges of the Kubernetes API to the files that apifence
//! follows on a node. It has no privilege, and nothing that guards the API server depends on it.

fn main() {}
