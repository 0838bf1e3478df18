//! The cluster as this node shows it: kubelet, pod and node CIDRs, connected nodes, and the
//! programs that own the node's sockets.

mod cidrs;
mod control_plane;
mod devices;
mod files;
mod haproxy;
mod k0s;
mod kubelet;
mod nodes;
mod owners;
mod port;
mod ports;
mod rancher;
mod servers;

pub use self::{
    cidrs::{Cidr, pod_cidrs, service_cidrs},
    control_plane::{Cloud, ControlPlane},
    devices::{is_local, is_overlay, is_tunnel, numbered},
    files::Root,
    haproxy::HAPROXY,
    kubelet::kubelet,
    nodes::{Nodes, administrators, logged_in, own_subnets, peers},
    port::Port,
    ports::{ForeignListener, foreign},
    servers::{Server, Servers, WEB_PORTS, servers},
};
