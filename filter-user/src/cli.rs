//! The command line.

mod node;
mod shown;
mod values;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    builder::BoolishValueParser,
};
use clap_complete::Shell;
use jiff::SignedDuration;

use self::values::{parse_len, parse_percent, parse_window};
pub(crate) use self::{
    node::{DoctorArgs, InitArgs},
    shown::{EventArgs, StatsArgs, StatusArgs, TopArgs},
};
use crate::{
    config::{
        DEFAULT_BPFFS, DEFAULT_CONFIG, DEFAULT_MAX_RANGES, DEFAULT_METRICS_LISTEN, DEFAULT_PORTS,
        DEFAULT_RANGES_FILE, DEFAULT_STATE_DIR, MAX_MAX_RANGES, MetricsListen, OnCut, PolicyMode,
        Window, XdpMode, parse_duration,
    },
    ranges::ListName,
    ui::output::Output,
};

/// An allow-list in XDP for the Kubernetes API server's port
///
/// TCP packets to the protected ports (443 and 6443) from sources outside the authorized ranges are
/// dropped before the kernel makes a socket buffer of them. Everything else is untouched.
#[derive(Debug, Parser)]
#[command(name = "apifence", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the command line; also returns `clap`'s matches, with the origin of each value.
    ///
    /// # Errors
    /// The message to print in place of a command: a usage error, or the text of `--help` or
    /// `--version`.
    pub fn from_command_line() -> Result<(Self, ArgMatches), clap::Error> {
        let matches = without_environment(Self::command())
            .try_get_matches()
            .map_err(|said| {
                // The help text includes the environment variables.
                let help = Self::command().try_get_matches().err();
                help.filter(|help| !said.use_stderr() && help.kind() == said.kind())
                    .unwrap_or(said)
            })?;
        Ok((Self::from_arg_matches(&matches)?, matches))
    }

    /// Parses the command line of another process: `words`, with the program's name first.
    ///
    /// # Errors
    /// If they are not a command line of this version.
    pub(crate) fn from_words<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<(Self, ArgMatches), clap::Error> {
        let matches = without_environment(Self::command()).try_get_matches_from(words)?;
        Ok((Self::from_arg_matches(&matches)?, matches))
    }
}

/// Makes `command` read flags only: an error of `clap` about a variable would name a flag that was
/// not typed. `config` reads the environment.
fn without_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| argument.env(None::<&str>))
        .mut_subcommands(without_environment)
}

/// The options of every command. Apart from `--config` they are settings: the id of each is its key
/// in the config file.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// File that holds the settings that neither a flag nor the environment gives; must exist if it
    /// is named
    #[arg(long, global = true, value_name = "FILE", env = "APIFENCE_CONFIG",
        default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// File that holds the authorized ranges
    #[arg(long, global = true, value_name = "FILE", env = "APIFENCE_RANGES_FILE",
        default_value = DEFAULT_RANGES_FILE)]
    ranges_file: PathBuf,
    /// Directory in a bpffs for what outlives this process
    #[arg(long, global = true, value_name = "DIR", env = "APIFENCE_BPFFS",
        default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Directory for what outlives a reboot: the policy last in force
    #[arg(long, global = true, value_name = "DIR", env = "APIFENCE_STATE_DIR",
        default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// How data is written to stdout
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        env = "APIFENCE_OUTPUT",
        default_value = "text"
    )]
    output: Output,
    /// Say more; with `run`, show what the program in the kernel logs
    #[arg(short, long, global = true, env = "APIFENCE_VERBOSE", value_parser = BoolishValueParser::new())]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attach if needed, then stay in the foreground and keep the filter true to its files; it
    /// stays on at exit
    Run {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Look at this node, ask, write config file and list, and start in monitor mode
    ///
    /// It finds the API server's port, proxies in front of it, interfaces, networks of the cluster
    /// and who is connected now. It asks five questions, each with what it found as the answer, and
    /// writes where each line comes from.
    Init {
        #[command(flatten)]
        init: InitArgs,
    },
    /// Look at this node, and say what is in order and what is not; exit status 1 if something
    /// fails
    Doctor {
        #[command(flatten)]
        doctor: DoctorArgs,
    },
    /// Attach the filter, or replace a filter that is attached, and exit
    Attach {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove the filter: the port is open from then on
    Detach {
        /// Interface to leave; all if none is named
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        interface: Vec<String>,
    },
    /// Drop what is not authorized from now on; everything else stays as it is in force
    ///
    /// The mode alone changes: not the list, the ports or any other setting. A `run` that is up
    /// goes on in that mode, and so does the next boot. Where the config file says `mode`, it
    /// decides: change it there.
    Enforce {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Drop nothing from now on, and count what `enforce` would drop; everything else stays as it
    /// is in force
    ///
    /// The port is open to everyone. As with `enforce`, the mode alone changes.
    Monitor {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show what is in force, and what you should know about this node
    Status {
        #[command(flatten)]
        status: StatusArgs,
    },
    /// Explain a warning: what it means, what can happen, what to do; without a code, list all of
    /// them
    Explain {
        /// Code or name of the warning, like `W08` or `tunnel`
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Ask the kernel whether addresses are let in; exit status 1 if one is not
    Check {
        /// Source addresses, each with a port or without, or CIDRs; `me` for this SSH session's;
        /// `-` reads them from standard input
        #[arg(required = true, value_name = "ADDR")]
        sources: Vec<String>,
        /// At this protected port; without it, at those that are open to all lists, and where ports
        /// with lists of their own differ
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Show the counters
    Stats {
        #[command(flatten)]
        stats: StatsArgs,
    },
    /// Show rates, who is refused and who is let in, live in the terminal; printed once where
    /// stdout is none
    Top {
        #[command(flatten)]
        top: TopArgs,
    },
    /// Show refused packets as they come, a line each; a flood is sampled
    Events {
        #[command(flatten)]
        events: EventArgs,
    },
    /// Propose ranges for those whom monitor mode would have refused, as lines for the ranges file
    Suggest {
        /// Put IPv4 sources within one prefix of this length into one range; a quarter of what is
        /// within one /24 if none is given
        #[arg(long, value_name = "LEN", value_parser = parse_len::<32>)]
        group_v4: Option<u8>,
        /// The same for IPv6; within one /64 if none is given
        #[arg(long, value_name = "LEN", value_parser = parse_len::<128>)]
        group_v6: Option<u8>,
    },
    /// Show or change the authorized ranges
    Ranges {
        /// List to show or change, by the name of its file in `ranges.d`; `default` is the ranges
        /// file
        #[arg(long, global = true, value_name = "NAME")]
        list: Option<ListName>,
        #[command(subcommand)]
        command: RangesCommand,
    },
    /// Keep a change that was made with `--confirm-within`
    Confirm,
    /// Write completions for a shell to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual page to stdout, or one for each command into a directory
    Man {
        /// Directory for the pages; must exist
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Show the settings that `attach` or `run` would go by, and where each comes from
    ///
    /// A flag goes before the environment, the environment before the config file, the config file
    /// before what is in force, and that before the default. This takes the flags of `attach` and
    /// `run`, and tells what they would do.
    Config {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        run: RunArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RangesCommand {
    /// Show the ranges in force, their origin and what they were used for
    List {
        /// Only entries that nobody used for so long, like `30d`
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        unused_for: Option<SignedDuration>,
    },
    /// Replace the list; `0.0.0.0/32` lets nobody in, `""` with `--force` switches enforcement off
    Set {
        /// Addresses and CIDRs, with commas or white space in between; `me` for the one that this
        /// SSH session comes from
        #[arg(value_name = "CIDR", required_unless_present = "from_file")]
        ranges: Vec<String>,
        /// File that holds the list, in the format of the ranges file; `-` for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "ranges")]
        from_file: Option<PathBuf>,
        /// Merge neighbouring ranges, and those inside others
        #[arg(long)]
        join: bool,
        /// Refuse a list whose size differs by more from the one before, like `20%`
        #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
        max_change: Option<u32>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Add ranges to the list; one that is listed already is renewed
    Add {
        /// Addresses and CIDRs, with commas or white space in between; `me` for the one that this
        /// SSH session comes from
        #[arg(required = true, value_name = "CIDR")]
        ranges: Vec<String>,
        /// What they are; an empty one takes a comment off
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// When they expire: a duration like `8h` or `30d`, a time like `2027-01-31T18:00:00Z`, or
        /// `never`
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove ranges from the list; their open connections stop
    Remove {
        /// Addresses and CIDRs, as listed, with commas or white space in between; `me` as with
        /// `add`
        #[arg(required = true, value_name = "CIDR")]
        ranges: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Edit the list: it is checked when the editor is closed, and then on trial for 60 s
    ///
    /// The editor is the one that `SUDO_EDITOR`, `VISUAL` or `EDITOR` names. `apifence confirm`
    /// keeps the list; without it the list before returns by itself. Whatever ends the editor, the
    /// terminal or the trial, what was saved stays: the next `ranges edit` goes on with it.
    Edit(EditArgs),
    /// Take the entries out that have expired
    Prune {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show all lists: owner, entries, bounds, and whether the file can be used
    Lists,
    /// Take a list away, with its file; its history stays
    Delete {
        /// Show what would change and which connections it would cut, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Make the change even if it cuts established clients or your own SSH session
        #[arg(long)]
        force: bool,
    },
    /// Switch enforcement off: everyone passes
    Clear {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Put the ranges file in force, after it was edited by hand
    Reload {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show the lists before this one
    History,
    /// Go back to a list before, or take back a change that waits for `apifence confirm`
    Rollback {
        /// How many lists back, as `ranges history` numbers them
        #[arg(value_name = "N")]
        number: Option<usize>,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// How the list is edited.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// Begin anew from the ranges file, where an edit was kept
    #[arg(long)]
    pub(crate) discard: bool,
    /// Put the list in force for good at once, and not on trial
    #[arg(long, conflicts_with = "confirm_within")]
    pub(crate) no_trial: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// How a change is made.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ChangeArgs {
    /// Show what would change and which connections it would cut, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Make the change even if it cuts every established client or your own SSH session, empties
    /// the list, opens a port that was protected, or keeps the cluster's sources out
    #[arg(long)]
    pub(crate) force: bool,
    /// Let the change take itself back after this time, like `60s`, unless `apifence confirm` comes
    /// first
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub(crate) confirm_within: Option<Duration>,
}

/// The policy besides the list, and where it applies. What is not given here comes from the
/// environment or the config file, stays as it is in force, or is the default. The id of each is
/// its key in the config file.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Interface to guard; those that hold the default routes if none is named
    #[arg(
        long = "interface",
        value_name = "NAME",
        value_delimiter = ',',
        env = "APIFENCE_INTERFACE"
    )]
    interfaces: Vec<String>,
    /// TCP port to protect
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', env = "APIFENCE_PORT", default_values_t = DEFAULT_PORTS, value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Destination to guard, for nodes that route or serve other traffic to these ports; any if
    /// none is given
    #[arg(
        long = "destination",
        value_name = "CIDR",
        value_delimiter = ',',
        env = "APIFENCE_DESTINATION"
    )]
    destinations: Vec<String>,
    /// What to do with packets from unauthorized sources
    #[arg(long, env = "APIFENCE_MODE", default_value = "enforce")]
    mode: PolicyMode,
    /// Where the program runs
    #[arg(long, env = "APIFENCE_XDP_MODE", default_value = "auto")]
    xdp_mode: XdpMode,
    /// Set the authorized ranges first, as `ranges set` does; a change that is made once, so the
    /// environment and the config file have nothing like it
    #[arg(
        long,
        value_name = "CIDR,...",
        alias = "api-server-authorized-ip-ranges"
    )]
    pub(crate) authorized_ip_ranges: Option<String>,
    /// The cluster's egress addresses, authorized besides the list
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        env = "APIFENCE_OUTBOUND_IPS",
        alias = "load-balancer-outbound-ips"
    )]
    outbound_ips: Vec<String>,
    /// The cluster's egress prefixes, authorized besides the list
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "APIFENCE_OUTBOUND_IP_PREFIXES",
        alias = "load-balancer-outbound-ip-prefixes"
    )]
    outbound_ip_prefixes: Vec<String>,
    /// The cluster's own CIDRs (other nodes, pods, probes), authorized besides the list; or names
    /// that stand for some: `@nodes`, `@pods`, `@gcp-health-checks`, `@azure-probe`
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "APIFENCE_CLUSTER_CIDRS"
    )]
    cluster_cidrs: Vec<String>,
    /// Do not authorize the node's own addresses; the variable and the key say `false` for that
    #[arg(long = "no-node-addresses", env = "APIFENCE_NODE_ADDRESSES", action = ArgAction::SetFalse, value_parser = BoolishValueParser::new())]
    node_addresses: bool,
    /// Most ranges in the list
    #[arg(long, value_name = "N", env = "APIFENCE_MAX_RANGES", default_value_t = DEFAULT_MAX_RANGES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_MAX_RANGES)))]
    max_ranges: u32,
}

/// What `run` does besides.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where to serve `/metrics`, `/healthz` and `/readyz`; `off` for nowhere
    #[arg(long, value_name = "ADDR:PORT", env = "APIFENCE_METRICS_LISTEN", default_value = DEFAULT_METRICS_LISTEN)]
    metrics_listen: MetricsListen,
    /// Detach at exit: the port is open from then on
    #[arg(long, env = "APIFENCE_DETACH_ON_EXIT", value_parser = BoolishValueParser::new())]
    detach_on_exit: bool,
    /// What to do with an edit of the files that would cut nodes of the cluster, or those who
    /// administer this node by SSH
    #[arg(long, env = "APIFENCE_ON_CUT", default_value = "trial")]
    on_cut: OnCut,
    /// How long such an edit is on trial, like `5m`
    #[arg(
        long,
        value_name = "DURATION",
        env = "APIFENCE_ON_CUT_WITHIN",
        default_value = "5m"
    )]
    on_cut_within: Window,
    /// Warning that need not be told, by its code, for all interfaces or for one (`W08:wg0`)
    #[arg(
        long,
        value_name = "CODE",
        value_delimiter = ',',
        env = "APIFENCE_ACKNOWLEDGED_WARNINGS"
    )]
    acknowledged_warnings: Vec<String>,
}
