//! The command line.

mod examples;
mod help;
mod node;
mod policy;
mod ranges;
mod shown;
mod values;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    builder::BoolishValueParser, error::ErrorKind,
};
use clap_complete::Shell;

use self::values::parse_len;
pub(crate) use self::{
    examples::examples_of,
    help::GROUPS,
    node::{DoctorArgs, InitArgs},
    policy::{ChangeArgs, PolicyArgs, RunArgs},
    ranges::{EditArgs, ListArgs, ListOrder, RangesCommand},
    shown::{EventArgs, LookArgs, StatsArgs, StatusArgs, TopArgs},
};
use crate::{
    config::{DEFAULT_BPFFS, DEFAULT_CONFIG, DEFAULT_RANGES_FILE, DEFAULT_STATE_DIR},
    ranges::ListName,
    ui::output::Output,
};

/// Only authorized addresses reach the Kubernetes API server; XDP drops the rest
///
/// TCP packets to the protected ports (443 and 6443) from unauthorized sources are dropped before
/// the kernel creates a socket buffer for them. All other traffic passes untouched.
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
        let matches = without_environment(command())
            .try_get_matches()
            .map_err(|said| {
                let is_help = said.kind() == ErrorKind::DisplayHelp;
                // This description includes the environment variables, and the groups.
                let shown =
                    is_help.then(|| help::shown(command(), help::is_long(std::env::args())));
                let help = shown.and_then(|command| command.try_get_matches().err());
                help.filter(|help| help.kind() == said.kind())
                    .unwrap_or(said)
            })?;
        Ok((Self::from_matches(&matches)?, matches))
    }

    /// Parses the command line of another process: `words`, with the program's name first.
    ///
    /// # Errors
    /// If they are not a command line of this version.
    pub(crate) fn from_words<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<(Self, ArgMatches), clap::Error> {
        let matches = without_environment(command()).try_get_matches_from(words)?;
        Ok((Self::from_matches(&matches)?, matches))
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        if let Command::Ls { list, shown } = cli.command {
            let command = RangesCommand::List(shown);
            cli.command = Command::Ranges { list, command };
        }
        Ok(cli)
    }
}

/// The command line, as it is parsed and completed.
pub(crate) fn command() -> clap::Command {
    help::with_common(Cli::command())
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
    /// Output format
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        env = "APIFENCE_OUTPUT",
        default_value = "text"
    )]
    output: Output,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// Print more messages; with `run`, also the log of the kernel program
    #[arg(short, long, global = true, env = "APIFENCE_VERBOSE", value_parser = BoolishValueParser::new())]
    verbose: bool,
    /// Config file
    #[arg(long, global = true, value_name = "FILE", env = "APIFENCE_CONFIG",
        default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// File with the authorized ranges
    #[arg(long, global = true, value_name = "FILE", env = "APIFENCE_RANGES_FILE",
        default_value = DEFAULT_RANGES_FILE)]
    ranges_file: PathBuf,
    /// Where the filter is pinned (bpffs)
    #[arg(long, global = true, value_name = "DIR", env = "APIFENCE_BPFFS",
        default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Where the policy is kept over a reboot
    #[arg(long, global = true, value_name = "DIR", env = "APIFENCE_STATE_DIR",
        default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
}

/// The commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Inspect this node, ask, write the config; start in monitor mode
    ///
    /// It finds the API server's port, proxies in front of it, interfaces, networks of the cluster
    /// and connected clients. It asks five questions and proposes an answer to each. The files say
    /// where each line comes from.
    Init {
        #[command(flatten)]
        init: InitArgs,
    },
    /// Show what is in force and what is wrong
    Status {
        #[command(flatten)]
        status: StatusArgs,
    },
    /// Show or change the authorized ranges
    Ranges {
        /// List to show or change: the name of its file in `ranges.d`; `default` is the ranges file
        #[arg(long, global = true, value_name = "NAME", display_order = 900)]
        list: Option<ListName>,
        #[command(subcommand)]
        command: RangesCommand,
    },
    /// Show the ranges in force: short for `ranges list`
    #[command(hide = true)]
    Ls {
        /// List to show: the name of its file in `ranges.d`; `default` is the ranges file
        #[arg(long, value_name = "NAME")]
        list: Option<ListName>,
        #[command(flatten)]
        shown: ListArgs,
    },
    /// Keep a change made with `--confirm-within`
    Confirm,
    /// Watch rates, refused sources and used ranges live
    ///
    /// It prints one screen and exits if stdout is not a terminal.
    Top {
        #[command(flatten)]
        top: TopArgs,
    },
    /// Show packet counters by verdict and reason
    Stats {
        #[command(flatten)]
        stats: StatsArgs,
    },
    /// Show refused packets live, one line each
    ///
    /// A flood is sampled: the kernel reports a limited number of packets a second.
    Events {
        #[command(flatten)]
        events: EventArgs,
    },
    /// Test whether addresses are allowed; exit status 1 if one is not
    ///
    /// The kernel answers, from the policy in force.
    Check {
        /// Source addresses, with or without a port, or CIDRs; `me` is the address of this SSH
        /// session, `-` reads them from standard input
        #[arg(required = true, value_name = "ADDR")]
        sources: Vec<String>,
        /// Protected port to test; by default the ports that are open to all lists
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Suggest ranges from what monitor mode saw
    ///
    /// Each line of the output is a line for the ranges file.
    Suggest {
        /// Group IPv4 sources by prefixes of this length; by default a /24 if a quarter of it was
        /// seen
        #[arg(long, value_name = "LEN", value_parser = parse_len::<32>)]
        group_v4: Option<u8>,
        /// Group IPv6 sources by prefixes of this length; by default 64
        #[arg(long, value_name = "LEN", value_parser = parse_len::<128>)]
        group_v6: Option<u8>,
    },
    /// Run as a service: attach, follow the files, serve metrics
    ///
    /// The filter stays on when the service ends.
    Run {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Attach the filter, or update an attached one, and exit
    ///
    /// A setting that you leave out comes from the environment, then the config file, then the
    /// policy in force, then the default. The command lists each setting that it changes.
    Attach {
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove the filter: the port is then open to everyone
    Detach {
        /// Interfaces to leave, like `eth0,eth1`; all by default
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        interface: Vec<String>,
    },
    /// Drop packets from unauthorized sources from now on
    ///
    /// Only the mode changes: list, ports and other settings stay. A running service continues in
    /// this mode, and so does the next boot. If the config file sets `mode`, change it there.
    Enforce {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Drop nothing from now on; count what `enforce` would drop
    ///
    /// The port is open to everyone. As with `enforce`, only the mode changes.
    Monitor {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show all settings and the origin of each
    ///
    /// A flag overrides the environment, the environment overrides the config file, the config file
    /// overrides the policy in force, and that overrides the default. `config` takes the flags of
    /// `attach` and `run` and shows what they would do.
    Config {
        /// Print an example of a config file: every key with its default
        #[arg(long)]
        example: bool,
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Check this node for problems; exit status 1 if a check fails
    Doctor {
        #[command(flatten)]
        doctor: DoctorArgs,
    },
    /// Explain a warning: meaning, risk, fix
    ///
    /// Without a code it lists all warnings.
    Explain {
        /// Code or name of the warning, like `W08` or `tunnel`
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Print the script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all pages to a directory
    Man {
        /// Directory for the pages; it must exist
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Show the version, and what it needs of the kernel
    Version,
}
