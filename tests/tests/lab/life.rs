//! What happens to API servers, to etcd and to control planes, without an agent.

use std::io;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    lab::{Lab, api_server::PORT},
    net::{SILENCE, connect},
    site::{at, ip},
    wait::PATIENCE,
};

#[test]
fn a_paused_api_server_answers_again_on_the_same_connection() -> Result<()> {
    let mut lab = Lab::with_control_planes(1)?;
    let [source, _] = lab.admin.ips();
    let mut client = lab.client(&lab.admin, source, &lab.control_planes[0])?;
    client.get("/version")?.succeeded()?;
    let first = &mut lab.control_planes[0];
    first.api.process().pause()?;
    client.set_patience(SILENCE)?;
    ensure!(client.get("/version").is_err(), "it answered");
    // The kernel accepts for it, so it is the filter that answers whether a source is let in.
    first.lets_all_in(&lab.admin)?;
    first.drops_all(&lab.unlisted)?;
    first.api.process().proceed()?;
    client.set_patience(PATIENCE)?;
    let late = client.answer()?.succeeded()?;
    ensure!(late.body.contains("v1.20"), "{late:?}");
    client.get("/version")?.succeeded().map(drop)
}

#[test]
fn one_api_server_restarts_while_a_connection_to_another_goes_on() -> Result<()> {
    let mut lab = Lab::with_control_planes(2)?;
    let [source, _] = lab.admin.ips();
    let mut other = lab.client(&lab.admin, source, &lab.control_planes[1])?;
    let first = &mut lab.control_planes[0];
    first.api.process().kill()?;
    // No program listens: the kernel refuses a listed source, and an unlisted one hears nothing.
    let target = at(first.machine.addresses[0], PORT);
    let refused = connect(&lab.admin.namespace, source, target, PATIENCE);
    let kind = refused.err().map(|error| error.kind());
    ensure!(kind == Some(io::ErrorKind::ConnectionRefused), "{kind:?}");
    first.drops_all(&lab.unlisted)?;
    let map = json!({"metadata": {"name": "made-meanwhile"}});
    other.create("/api/v1/namespaces/default/configmaps", &map)?;
    first.api.restart()?;
    lab.kubectl(&["get", "configmap", "made-meanwhile"])?;
    other.get("/version")?.succeeded().map(drop)
}

#[test]
fn an_older_snapshot_brings_the_older_objects_back() -> Result<()> {
    let mut lab = Lab::with_control_planes(2)?;
    lab.add_node("before", &["192.0.2.31"], &["10.244.1.0/24"])?;
    let snapshot = lab.etcd.snapshot("older")?;
    lab.set_addresses("before", &["192.0.2.32", "2001:db8::32"])?;
    lab.add_node("after", &["192.0.2.33"], &[])?;
    let nodes = "-o=jsonpath={range .items[*]}{.metadata.name}={.status.addresses[*].address}/{.spec.podCIDR} {end}";
    let now = lab.kubectl(&["get", "nodes", nodes])?;
    ensure!(
        now.trim() == "after=192.0.2.33/ before=192.0.2.32 2001:db8::32/10.244.1.0/24",
        "{now}"
    );
    lab.etcd.compact()?;
    lab.restore(&snapshot)?;
    for control_plane in &lab.control_planes {
        let mut client = control_plane.api.local_client()?;
        let nodes = client.get("/api/v1/nodes")?.succeeded()?.json()?;
        let items = nodes["items"].as_array().context("a list")?;
        ensure!(
            items.len() == 1 && items[0]["status"]["addresses"][0]["address"] == "192.0.2.31",
            "{nodes:#}"
        );
    }
    lab.delete_node("before")?;
    ensure!(lab.kubectl(&["get", "nodes", "-o", "name"])?.is_empty());
    Ok(())
}

#[test]
fn after_a_reboot_the_list_is_in_force_before_an_api_server_answers() -> Result<()> {
    let mut lab = Lab::with_control_planes(1)?;
    let first = &mut lab.control_planes[0];
    first.filter.ok(&["ranges", "add", "192.0.2.21"])?;
    first.reboot()?;
    ensure!(first.filter.status("state")? == "detached");
    first.start_guard()?;
    first.until_guarded()?;
    first.api.start()?;
    first.drops_all(&lab.unlisted)?;
    first.api.until_ready()?;
    first.drops_all(&lab.unlisted)?;
    first.lets_all_in(&lab.admin)?;
    first.lets_in(&lab.workers[0], ip("192.0.2.21"))
}
