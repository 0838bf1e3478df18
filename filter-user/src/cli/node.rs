//! The flags of the commands that look at the node.

use std::path::PathBuf;

use clap::Args;

/// How the node is set up.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Ask nothing; accept every proposal
    #[arg(long, conflicts_with = "print")]
    pub(crate) yes: bool,
    /// Show the files; write and attach nothing
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) root: RootArgs,
}

/// How the node is examined.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Write a report for a bug report: JSON, without addresses
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Keep addresses in that report
    #[arg(long, requires = "bundle")]
    pub(crate) with_addresses: bool,
    #[command(flatten)]
    pub(crate) root: RootArgs,
}

/// Where the node's files are.
#[derive(Debug, Args)]
pub(crate) struct RootArgs {
    /// Read files of Kubernetes, CNI and proxies below this directory
    ///
    /// Interfaces, processes and connections are always those of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) from_root: PathBuf,
}
