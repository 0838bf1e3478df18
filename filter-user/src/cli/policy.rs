//! The flags of commands that change the policy.

use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::values::parse_window;
use crate::config::{
    DEFAULT_MAX_RANGES, DEFAULT_METRICS_LISTEN, MAX_MAX_RANGES, MetricsListen, OnCut, PolicyMode,
    Window, XdpMode,
};

/// How a change is made.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ChangeArgs {
    /// Show the change and the connections it would cut; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Revert after this time, like `60s`, unless you run `apifence confirm`
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub(crate) confirm_within: Option<Duration>,
    /// Apply even if it cuts all clients or your own address
    ///
    /// Also needed to empty the list, to open a protected port, and to keep out sources of the
    /// cluster.
    #[arg(long)]
    pub(crate) force: bool,
}

/// The policy besides the list, and where it applies. What is not given here comes from the
/// environment or the config file, stays as it is in force, or is the default. The id of each is
/// its key in the config file.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Interfaces to guard, like `eth0,eth1`; by default those with a default route
    #[arg(
        long = "interface",
        value_name = "NAME,...",
        value_delimiter = ',',
        env = "APIFENCE_INTERFACE"
    )]
    interfaces: Vec<String>,
    /// TCP ports to protect, like `6443,9345`
    #[arg(long = "port", value_name = "PORT,...", value_delimiter = ',', env = "APIFENCE_PORT", default_value = DEFAULT_PORTS_TEXT, value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Destinations to guard, for nodes that route or serve other traffic to these ports; any by
    /// default
    #[arg(
        long = "destination",
        value_name = "CIDR,...",
        value_delimiter = ',',
        env = "APIFENCE_DESTINATION"
    )]
    destinations: Vec<String>,
    /// What to do with packets from unauthorized sources
    #[arg(long, env = "APIFENCE_MODE", default_value = "enforce")]
    mode: PolicyMode,
    /// Where the XDP program runs
    #[arg(
        long,
        value_name = "MODE",
        env = "APIFENCE_XDP_MODE",
        default_value = "auto"
    )]
    xdp_mode: XdpMode,
    /// Replace the authorized ranges first, like `ranges set`
    ///
    /// It changes the list once. It is not a setting, so no variable and no key exists for it.
    #[arg(
        long,
        value_name = "CIDR,...",
        alias = "api-server-authorized-ip-ranges"
    )]
    pub(crate) authorized_ip_ranges: Option<String>,
    /// Nodes, pods and probes of the cluster, authorized in addition to the list
    ///
    /// CIDRs, or names of sets: `@nodes`, `@pods`, `@gcp-health-checks`, `@azure-probe`.
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        env = "APIFENCE_CLUSTER_CIDRS"
    )]
    cluster_cidrs: Vec<String>,
    /// Egress addresses of the cluster, authorized in addition to the list
    #[arg(
        long,
        value_name = "ADDR,...",
        value_delimiter = ',',
        env = "APIFENCE_OUTBOUND_IPS",
        alias = "load-balancer-outbound-ips"
    )]
    outbound_ips: Vec<String>,
    /// Egress prefixes of the cluster, authorized in addition to the list
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        env = "APIFENCE_OUTBOUND_IP_PREFIXES",
        alias = "load-balancer-outbound-ip-prefixes"
    )]
    outbound_ip_prefixes: Vec<String>,
    /// Do not authorize the addresses of this node
    ///
    /// The variable and the key of the config file take `false` for that.
    #[arg(long = "no-node-addresses", env = "APIFENCE_NODE_ADDRESSES", action = ArgAction::SetFalse, value_parser = BoolishValueParser::new())]
    node_addresses: bool,
    /// Most ranges in all lists
    #[arg(long, value_name = "N", env = "APIFENCE_MAX_RANGES", default_value_t = DEFAULT_MAX_RANGES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_MAX_RANGES)))]
    max_ranges: u32,
}

/// The default ports as they are typed.
const DEFAULT_PORTS_TEXT: &str = "443,6443";

/// What `run` does besides.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Serve `/metrics`, `/healthz` and `/readyz` at this address; `off` for none
    #[arg(long, value_name = "ADDR:PORT", env = "APIFENCE_METRICS_LISTEN", default_value = DEFAULT_METRICS_LISTEN)]
    metrics_listen: MetricsListen,
    /// Detach at exit: the port is then open to everyone
    #[arg(long, env = "APIFENCE_DETACH_ON_EXIT", value_parser = BoolishValueParser::new())]
    detach_on_exit: bool,
    /// What to do with an edit of the files that would cut cluster nodes or SSH administrators
    #[arg(
        long,
        value_name = "ACTION",
        env = "APIFENCE_ON_CUT",
        default_value = "trial"
    )]
    on_cut: OnCut,
    /// How long such an edit is on trial, like `5m`
    #[arg(
        long,
        value_name = "DURATION",
        env = "APIFENCE_ON_CUT_WITHIN",
        default_value = "5m"
    )]
    on_cut_within: Window,
    /// Warnings to hide, by code, like `W11`, or `W08:wg0` for one interface
    #[arg(
        long,
        value_name = "CODE,...",
        value_delimiter = ',',
        env = "APIFENCE_ACKNOWLEDGED_WARNINGS"
    )]
    acknowledged_warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_PORTS, join};

    #[test]
    fn the_help_shows_the_default_ports() {
        assert_eq!(DEFAULT_PORTS_TEXT, join(DEFAULT_PORTS).replace(' ', ""));
    }
}
