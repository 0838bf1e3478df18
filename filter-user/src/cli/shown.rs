//! The flags of the commands that show something.

use std::time::Duration;

use clap::{Args, ColorChoice, builder::PossibleValuesParser};
use filter_common::DropReason;
use ipnet::IpNet;
use jiff::SignedDuration;

use super::values::{parse_interval, parse_source};
use crate::config::parse_duration;

/// How output looks.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LookArgs {
    /// Same as `--output json`
    #[arg(long, global = true, conflicts_with = "output")]
    pub(crate) json: bool,
    /// Use colours: `auto` (on a terminal), `always` or `never`
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Show times in UTC, not relative to now
    #[arg(long, global = true)]
    pub(crate) utc: bool,
}

/// What else `status` does.
#[derive(Debug, Default, Args)]
pub(crate) struct StatusArgs {
    /// Exit with status 1 unless every interface is guarded as the files say
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    /// Acknowledge current warnings by code, or for one interface (`W08:wg0`): they are hidden
    #[arg(long, value_name = "CODE,...", value_delimiter = ',')]
    pub(crate) ack: Vec<String>,
    /// Show warnings again that `--ack` hid
    #[arg(long, value_name = "CODE,...", value_delimiter = ',')]
    pub(crate) unack: Vec<String>,
    #[command(flatten)]
    pub(crate) again: WatchArgs,
}

/// Whether and how often something is shown again.
#[derive(Debug, Default, Args)]
pub(crate) struct WatchArgs {
    /// Repeat, with rates, until Ctrl-C; a terminal is redrawn in place
    #[arg(long)]
    pub(crate) watch: bool,
    /// Time between two outputs, like `1s` or `500ms`
    #[arg(long, value_name = "DURATION", requires = "watch", default_value = "1s", value_parser = parse_interval)]
    pub(crate) interval: Duration,
}

/// Which counters are shown, and how often.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show counters that are zero, too
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) again: WatchArgs,
}

/// Which refused packets are shown.
#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// Show only packets that arrived on these interfaces
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) interface: Vec<String>,
    /// Show only packets refused for these reasons
    #[arg(long, value_name = "REASON,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.label())))]
    pub(crate) reason: Vec<String>,
    /// Show only packets from this address or range
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = parse_source)]
    pub(crate) source: Vec<IpNet>,
    /// Show only packets to these ports
    #[arg(long, value_name = "PORT,...", value_delimiter = ',')]
    pub(crate) port: Vec<u16>,
    /// Begin with the packets in memory that are not older than this, like `10m`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) since: Option<SignedDuration>,
    /// Begin with the last N packets in memory
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) last: Option<usize>,
    /// Show the packets that are still in memory, and exit
    ///
    /// The kernel records them even if no process runs.
    #[arg(long)]
    pub(crate) recent: bool,
}

/// How `top` is shown.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often the kernel is read, like `1s` or `500ms`
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// Print the rates of one interval and exit, as where stdout is not a terminal
    #[arg(long)]
    pub(crate) once: bool,
}
