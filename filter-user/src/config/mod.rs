//! The settings as the program uses them: checked values, no I/O. This file has those of a policy;
//! `layers` has all of them, with their origins.

mod bounds;
mod change;
mod choice;
mod cluster;
mod environment;
mod file;
mod guards;
mod keys;
mod layers;
mod nearest;
#[cfg(test)]
mod tests;
mod value;

pub use self::{
    bounds::Bounds,
    change::SettingChange,
    cluster::{ClusterCidr, Preset},
    environment::Environment,
    guards::{Guard, named},
    keys::Key,
    layers::{Config, SettingRow},
    nearest::nearest,
};
pub use filter_common::layout::DEFAULT_PORTS;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use filter_common::Mode;
use ipnet::IpNet;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};

/// The default path of the config file.
pub const DEFAULT_CONFIG: &str = "/etc/apifence/apifence.toml";
/// The default path of the ranges file.
pub const DEFAULT_RANGES_FILE: &str = "/etc/apifence/ranges";
/// The default directory of the pins.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/apifence";
/// The default directory of the state.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/apifence";
/// The default runtime directory.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/apifence";
/// The default maximum number of ranges in all lists.
pub const DEFAULT_MAX_RANGES: u32 = 10_000;
/// The highest limit that can be set.
pub const MAX_MAX_RANGES: u32 = 1_000_000;

/// The default address of the metrics.
pub const DEFAULT_METRICS_LISTEN: &str = "127.0.0.1:9464";

/// The settings from which a policy is compiled, besides the list. Stored in the kernel with each
/// generation, so that a later change of the list keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Protected TCP ports, open to all lists unless one of `guards` names them.
    pub ports: BTreeSet<u16>,
    /// Protected TCP ports with lists of their own, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// Guarded destinations; empty for any.
    pub destinations: Vec<IpNet>,
    /// The action for a packet from an unauthorized source.
    pub mode: PolicyMode,
    /// Whether the node's own addresses are authorized.
    pub node_addresses: bool,
    /// The cluster's egress addresses and prefixes.
    pub outbound: Vec<IpNet>,
    /// Those of `outbound` that were given as addresses.
    #[serde(default)]
    pub outbound_ips: Vec<IpAddr>,
    /// The cluster's CIDRs, and the names that stand for some.
    pub cluster: Vec<ClusterCidr>,
    /// The maximum number of ranges in the user's list.
    pub max_ranges: u32,
    /// The keys that the config file sets: a key that disappears from the file is the default
    /// again.
    #[serde(default)]
    pub from_file: BTreeSet<String>,
    /// Whether `monitor` is a fallback: the requested policy would block the cluster, on a node
    /// that has never enforced a policy. It lasts until the operator confirms the mode.
    #[serde(default)]
    pub mode_waits: bool,
}

/// The modes a user can choose; [`Mode::Off`] comes from the list alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Drop packets from unauthorized sources
    Enforce,
    /// Drop nothing; count what `enforce` would drop
    Monitor,
}

impl PolicyMode {
    /// The mode of the kernel side.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Enforce => Mode::Enforce,
            Self::Monitor => Mode::Monitor,
        }
    }

    /// Its name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// How the program hooks into the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists
    Native,
    /// In the network stack: slower, for drivers without XDP
    Generic,
    /// Native; generic if the driver has no XDP
    Auto,
}

/// The action of `run` on an edit of its files that would cut nodes of the cluster, or the
/// administrators of this node by SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnCut {
    /// Apply it on trial: it reverts unless you run `apifence confirm`
    Trial,
    /// Apply it
    Apply,
    /// Keep the policy in force
    Refuse,
}

/// How long a change is on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub Duration);

impl Window {
    /// The maximum.
    const MAX: SignedDuration = SignedDuration::from_hours(24);
}

/// Long enough to see a message, log in and decide.
impl Default for Window {
    fn default() -> Self {
        Self(Duration::from_mins(5))
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_duration(text)? {
            time if time > Self::MAX => Err("the longest trial is `24h`".to_owned()),
            time => Ok(Self(time.unsigned_abs())),
        }
    }
}

/// In the syntax that can be parsed.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SignedDuration::try_from(self.0).unwrap_or(Self::MAX);
        write!(f, "{time:#}")
    }
}

/// A duration like `8h`, `30d` or `1h 30m`.
///
/// # Errors
/// Anything else, and durations of zero or less.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .filter(SignedDuration::is_positive)
        .ok_or_else(|| "write it like `60s`, `8h` or `30d`".to_owned())
}

/// The address that serves metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    /// None.
    Off,
    /// At this address and port.
    At(SocketAddr),
}

/// The default address.
impl Default for MetricsListen {
    fn default() -> Self {
        DEFAULT_METRICS_LISTEN
            .parse()
            .expect("the default is an address")
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "write an address and a port, or `off`".to_owned())
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// `items`, separated by commas.
pub fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
