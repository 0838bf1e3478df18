//! What this node tells of the cluster that it is in: its kubelet, the CIDRs of pods and nodes, the
//! nodes that it talks to, and which programs have its sockets.

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
    ports::{Foreign, foreign},
};
