//! `apifence ranges` and its commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;

use super::{policy::ChangeArgs, values::parse_percent};
use crate::config::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum RangesCommand {
    /// Show the ranges in force: comment, expiry, use
    ///
    /// `apifence ls` and `apifence ranges ls` are short for it.
    #[command(alias = "ls")]
    List(ListArgs),
    /// Add ranges; a listed range is renewed
    ///
    /// A listed range keeps its place and gets the new comment and expiry. A range without
    /// `--expires` stays until it is removed.
    Add {
        /// Addresses or CIDRs, separated by commas or spaces; `me` is the address of this SSH
        /// session
        #[arg(required = true, value_name = "CIDR")]
        ranges: Vec<String>,
        /// Comment for the ranges; `""` removes a comment
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// Expiry: a duration like `8h` or `30d`, a time like `2027-01-31T18:00:00Z`, or `never`
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove ranges; their open connections stop
    ///
    /// `apifence ranges rm` is short for it.
    #[command(alias = "rm")]
    Remove {
        /// Addresses or CIDRs, as listed, separated by commas or spaces; `me` as with `add`
        #[arg(required = true, value_name = "CIDR")]
        ranges: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Replace the whole list
    ///
    /// `0.0.0.0/32` allows no source. An empty list (`""` with `--force`) switches enforcement off:
    /// the port is open to everyone.
    Set {
        /// Addresses or CIDRs, separated by commas or spaces; `me` is the address of this SSH
        /// session
        #[arg(value_name = "CIDR", required_unless_present = "from_file")]
        ranges: Vec<String>,
        /// Read the list from a file in the format of the ranges file; `-` is standard input
        #[arg(long, value_name = "FILE", conflicts_with = "ranges")]
        from_file: Option<PathBuf>,
        /// Merge adjacent and nested ranges
        #[arg(long)]
        join: bool,
        /// Refuse a list whose size differs from the list before by more than this, like `20%`
        #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
        max_change: Option<u32>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Edit the list in an editor, then try it for 60 s
    ///
    /// `SUDO_EDITOR`, `VISUAL` or `EDITOR` names the editor. The list is checked when the editor
    /// closes. It then reverts after 60 s unless you run `apifence confirm`. If the editor or the
    /// terminal ends early, the saved text is kept: the next `ranges edit` continues with it.
    Edit(EditArgs),
    /// Remove expired entries
    Prune {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Go back to an earlier list, or revert a change on trial
    Rollback {
        /// How many lists back, as numbered by `ranges history`; 1 if left out
        #[arg(value_name = "N")]
        number: Option<usize>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show earlier lists: time, author, difference
    History,
    /// Apply the ranges file after you edited it by hand
    Reload {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Switch enforcement off: the port is open to everyone
    Clear {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show all named lists: owner, entries, limits, state
    Lists,
    /// Delete a named list and its file; its history stays
    Delete {
        /// Show the change and the connections it would cut; change nothing
        #[arg(long)]
        dry_run: bool,
        /// Apply even if it cuts connected clients or your own address
        #[arg(long)]
        force: bool,
    },
}

/// Which ranges are listed.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show the addresses of the node and of the cluster, too
    #[arg(long)]
    pub(crate) all: bool,
    /// Order of the ranges
    #[arg(long, value_name = "KEY", default_value = "address")]
    pub(crate) sort: ListOrder,
    /// Show only ranges that contain this address, or have this text in range, list or comment
    #[arg(long = "match", value_name = "TEXT")]
    pub(crate) pattern: Option<String>,
    /// Show only expired entries
    #[arg(long)]
    pub(crate) expired: bool,
    /// Show only entries that matched no packet for this time, like `30d`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) unused_for: Option<SignedDuration>,
}

/// The order of the ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListOrder {
    /// By address
    #[default]
    Address,
    /// The most packets first
    Used,
    /// The next to expire first
    Expires,
    /// By comment
    Comment,
}

/// How the list is edited.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// Discard a kept edit and start from the ranges file
    #[arg(long)]
    pub(crate) discard: bool,
    /// Keep the list without a trial
    #[arg(long, conflicts_with = "confirm_within")]
    pub(crate) no_trial: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}
