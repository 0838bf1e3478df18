//! The cluster as this node shows it: kubelet, pod and node CIDRs, connected nodes, and the
//! programs that own the node's sockets.

mod cidrs;
mod files;
mod kubelet;
mod nodes;
mod owners;
mod ports;

pub use self::{
    cidrs::{Cidr, pod_cidrs},
    kubelet::kubelet,
    nodes::{Nodes, administrators, own_subnets, peers},
    ports::{ForeignListener, foreign},
};
