//! The way to the API.

use std::path::Path;

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::cli::RunArgs;

/// A client for the API server of this node.
///
/// # Errors
/// If the credentials cannot be read.
pub async fn client(args: &RunArgs) -> Result<Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster_env()
            .context("read the service account of the pod (outside a pod, use `--kubeconfig`)")?,
    };
    config.cluster_url = args
        .server
        .parse()
        .with_context(|| format!("`--server {}` is not a URL", args.server))?;
    config.tls_server_name = Some(args.tls_server_name.clone());
    Client::try_from(config).context("prepare the connection to the API server")
}

async fn from_file(path: &Path) -> Result<Config> {
    let explain = || format!("read `{}`", path.display());
    let file = Kubeconfig::read_from(path).with_context(explain)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(explain)
}
