//! A stolen token: what can be done to a node by objects in the API.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::wait::until;

use super::{file, files_are_whole, guests, with_agents};

#[test]
fn the_bounds_on_the_node_hold_against_every_object() -> Result<()> {
    let lab = with_agents(1)?;
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    for (name, cidr) in [
        ("world", "0.0.0.0/0"),
        ("half", "128.0.0.0/1"),
        ("six", "::/0"),
    ] {
        lab.authorize(name, &json!([{"cidr": cidr}]))?;
        let mut message = String::new();
        until("the node's cause is told", || {
            message = lab.until_condition(name, "Programmed", "False")?;
            Ok(message.contains("wider"))
        })?;
        ensure!(
            message.contains("cp1") && message.contains(cidr),
            "{message}"
        );
        lab.control_planes[0].drops_all(&lab.workers[0])?;
    }
    // A list with a fault holds up no other.
    lab.authorize("guests", &json!([{"cidr": "192.0.2.21/32"}]))?;
    lab.until_condition("guests", "Programmed", "True")?;
    let first = &lab.control_planes[0];
    first.lets_in(&lab.workers[0], lab.workers[0].ips()[0])?;
    first.drops_all(&lab.unlisted)?;
    let described = lab.kubectl(&["describe", "authorizedranges", "world"])?;
    ensure!(
        described.contains("Refused") && described.contains("wider"),
        "{described}"
    );
    for name in ["world", "half", "six"] {
        lab.withdraw(name)?;
        lab.until_condition(name, "Programmed", "True")?;
    }

    lab.authorize("with.dot", &guests())?;
    let message = lab.until_condition("with.dot", "Accepted", "False")?;
    ensure!(message.contains("letters, digits"), "{message}");
    lab.authorize("host-bits", &json!([{"cidr": "192.0.2.21/24"}]))?;
    let message = lab.until_condition("host-bits", "Accepted", "False")?;
    ensure!(message.contains("write 192.0.2.0/24"), "{message}");
    files_are_whole(&lab.control_planes[0], &["guests", "half", "six", "world"])?;
    lab.control_planes[0].drops_all(&lab.unlisted)?;

    // What takes itself back is not called programmed.
    let filter = &lab.control_planes[0].filter;
    filter.ok(&["ranges", "add", "198.18.9.9", "--confirm-within", "1h"])?;
    lab.until_report("cp1", "InSync", "OnTrial")?;
    let message = lab.until_condition("guests", "Programmed", "False")?;
    ensure!(message.contains("on trial until"), "{message}");
    filter.ok(&["confirm"])?;
    lab.until_condition("guests", "Programmed", "True")?;

    // Lists that a person on the node wrote are out of reach.
    lab.control_planes[0].lets_all_in(&lab.admin)?;
    // What it may not do at all.
    for words in [
        &["delete", "authorizedranges", "guests"][..],
        &["delete", "nodeguards", "cp1"],
        &["label", "node", "cp1", "a=b"],
    ] {
        let ran = lab.control_planes[0].agent.kubectl(words)?;
        ensure!(ran.code == Some(1), "{ran}");
    }
    Ok(())
}

#[test]
fn entries_end_by_themselves_while_the_api_is_away() -> Result<()> {
    let mut lab = with_agents(1)?;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    lab.authorize("kim", &json!([{"cidr": "203.0.113.9/32", "expires": end.to_string(), "comment": "incident 4711"}]))?;
    let source = lab.unlisted.ips()[0];
    lab.control_planes[0]
        .filter
        .until_authorized("203.0.113.9", true)?;
    lab.control_planes[0].lets_in(&lab.unlisted, source)?;
    lab.control_planes[0].api.process().kill()?;
    lab.control_planes[0]
        .filter
        .until_authorized("203.0.113.9", false)?;
    lab.control_planes[0].drops_all(&lab.unlisted)?;
    lab.control_planes[0].api.restart()?;
    // Its object can go: nothing is left of it.
    lab.kubectl(&["delete", "authorizedranges", "kim"])?;
    let first = &lab.control_planes[0];
    until("the list is gone", || Ok(file(first, "kim").is_err()))?;
    lab.until_report("cp1", "InSync", "InSync").map(drop)
}

#[test]
fn a_config_map_carries_lists_without_kinds_of_its_own() -> Result<()> {
    let mut lab = with_agents(1)?;
    let map = |data: serde_json::Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "apifence-ranges", "namespace": "apifence-system"}, "data": data}).to_string()
    };
    lab.apply(&map(
        json!({"office": "203.0.113.0/24 # HQ\n2001:db8:bb::/48\n", "team": "192.0.2.22\n"}),
    ))?;
    lab.apply_file("components/config-map/rbac.yaml")?;
    let agent = &mut lab.control_planes[0].agent;
    agent.start(&["--config-map", "apifence-system/apifence-ranges"])?;
    let first = &lab.control_planes[0];
    first.filter.until_authorized("192.0.2.22", true)?;
    first.lets_all_in(&lab.unlisted)?;
    // Broken, emptied, gone: the last good lists stay.
    lab.apply(&map(
        json!({"office": "203.0.113.0/24\nnonsense\n", "team": "# none\n"}),
    ))?;
    lab.until_report("cp1", "InSync", "Refused")?;
    first.lets_all_in(&lab.unlisted)?;
    first.filter.until_authorized("192.0.2.22", true)?;
    lab.kubectl(&[
        "delete",
        "configmap",
        "apifence-ranges",
        "-n",
        "apifence-system",
    ])?;
    lab.until_report("cp1", "InSync", "ObjectGone")?;
    first.lets_all_in(&lab.unlisted)?;
    lab.apply(&map(json!({"office": "empty\n", "team": "empty\n"})))?;
    first.filter.until_authorized("203.0.113.9", false)?;
    first.drops_all(&lab.unlisted)?;
    lab.until_report("cp1", "InSync", "InSync").map(drop)
}
