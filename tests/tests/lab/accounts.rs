//! The account of the agent.

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;

#[test]
fn the_agents_account_reads_nodes_and_changes_none() -> Result<()> {
    let lab = Lab::with_control_planes(1)?;
    lab.authorize_agents()?;
    lab.add_node("worker1", &["192.0.2.21"], &[])?;
    let agent = &lab.control_planes[0].agent;
    let ran = agent
        .kubectl(&["get", "nodes", "-o", "name"])?
        .succeeded()?;
    ensure!(ran.stdout == "node/worker1\n", "{ran}");
    for words in [
        &["delete", "node", "worker1"][..],
        &["get", "secrets", "--all-namespaces"],
        &["get", "configmaps", "--all-namespaces"],
    ] {
        let ran = agent.kubectl(words)?;
        ensure!(ran.code == Some(1), "{ran}");
        ran.stderr_has(&["Forbidden", "apifence-system:apifence-kube"])?;
    }
    Ok(())
}

#[test]
fn an_api_server_takes_the_manifests_and_the_examples() -> Result<()> {
    let lab = Lab::with_control_planes(1)?;
    lab.install_types()?;
    lab.authorize_agents()?;
    for file in [
        "overlays/agent/daemonset.yaml",
        "components/config-map/rbac.yaml",
        "examples/office.yaml",
        "examples/temporary.yaml",
        "examples/roles.yaml",
        "examples/static-pod.yaml",
    ] {
        lab.apply_file(file).with_context(|| file.to_owned())?;
    }
    let set = lab.kubectl(&["get", "daemonset", "-n", "apifence-system", "-o", "name"])?;
    ensure!(set == "daemonset.apps/apifence-kube\n", "{set}");
    Ok(())
}
