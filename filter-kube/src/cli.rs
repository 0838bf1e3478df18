//! What is typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

/// Carries authorized ranges from the Kubernetes API to apifence on this node. It only needs to
/// write one directory. `apifence run` applies the files on the node's disk, even if the API or
/// this program fails.
#[derive(Debug, Parser)]
#[command(name = "apifence-kube", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the API until a signal arrives
    Run(Box<RunArgs>),
    /// For probes: exit with 0 if the agent runs and reaches the API
    Check {
        /// Check only that the agent runs: a restart does not bring the API back
        #[arg(long)]
        live: bool,
        /// The directory of the lists.
        #[command(flatten)]
        directory: DirectoryArgs,
    },
    /// Give the directory of the lists to the agent's user, as root: for an init container
    Prepare(DirectoryArgs),
    /// Print the definitions of AuthorizedRanges and NodeGuard, for `kubectl apply -f -`
    Crds,
}

/// Where the lists are.
#[derive(Clone, Debug, Args)]
pub struct DirectoryArgs {
    /// Directory of the lists, also of `@nodes` and `@pods`
    #[arg(
        long,
        value_name = "DIR",
        env = "APIFENCE_LISTS_DIR",
        default_value = "/etc/apifence/ranges.d/kubernetes"
    )]
    pub lists_dir: PathBuf,
}

/// The arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of this node's Node object
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node: String,
    /// The directory of the lists.
    #[command(flatten)]
    pub directory: DirectoryArgs,
    /// File with the state that `apifence run` reports
    #[arg(
        long,
        value_name = "FILE",
        env = "APIFENCE_STATE",
        default_value = "/run/apifence/state.json"
    )]
    pub state: PathBuf,
    /// API server to follow. No list can cut this node's own API server off over loopback
    #[arg(
        long,
        value_name = "URL",
        env = "APIFENCE_SERVER",
        default_value = "https://127.0.0.1:6443"
    )]
    pub server: String,
    /// Name in the API server's certificate
    #[arg(
        long,
        value_name = "NAME",
        env = "APIFENCE_TLS_SERVER_NAME",
        default_value = "kubernetes"
    )]
    pub tls_server_name: String,
    /// Credentials; by default those of the pod's service account
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Read the lists from this ConfigMap instead of AuthorizedRanges: each key is a list
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "APIFENCE_CONFIG_MAP",
        value_parser = config_map
    )]
    pub config_map: Option<ConfigMapName>,
    /// How long the addresses of a node stay authorized after it left the API
    #[arg(
        long,
        value_name = "TIME",
        env = "APIFENCE_FORGET_AFTER",
        default_value = "24h",
        value_parser = duration
    )]
    pub forget_after: Duration,
}

/// The name of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

fn config_map(text: &str) -> Result<ConfigMapName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(ConfigMapName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a time like `24h` or `30m`".to_owned())?;
    parsed
        .try_into()
        .map_err(|_| "it cannot be negative".to_owned())
}
