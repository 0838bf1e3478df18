//! Objects and files that no honest hand makes: each holds up itself alone.

use std::{fs, os::unix::fs::chown};

use anyhow::{Context as _, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};
use tests::{
    lab::{Lab, agent::UID},
    wait::until,
};

use super::{file, guests, with_agents};

/// The object `guests` for the nodes with this label alone.
fn for_site(lab: &Lab, name: &str, site: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "apifence.io/v1alpha1",
        "kind": "AuthorizedRanges",
        "metadata": {"name": name},
        "spec": {"ranges": guests(), "nodeSelector": {"site": site}},
    });
    lab.apply(&object.to_string()).map(drop)
}

#[test]
fn a_node_without_its_object_gets_no_list_of_other_nodes() -> Result<()> {
    let lab = with_agents(1)?;
    let first = &lab.control_planes[0];
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    lab.authorize("other", &json!([{"cidr": "198.18.0.0/24"}]))?;
    lab.until_condition("other", "Programmed", "True")?;
    lab.add_node("worker1", &lab.workers[0].addresses, &[])?;
    lab.kubectl(&["label", "node", "worker1", "site=there"])?;
    for_site(&lab, "guests", "there")?;
    until("the list is empty here", || {
        Ok(file(first, "guests")?.contains("no longer for this node"))
    })?;
    first.filter.until_authorized("203.0.113.9", false)?;
    first.drops_all(&lab.unlisted)?;
    lab.delete_node("cp1")?;
    until("it is noted", || {
        Ok(file(first, "@nodes")?.contains("# cp1, not in the API since"))
    })?;
    // A list that this node has is given to other nodes meanwhile.
    for_site(&lab, "other", "there")?;
    // After all that, this one is in force.
    lab.authorize("last", &json!([{"cidr": "198.18.1.0/24"}]))?;
    first.filter.until_authorized("198.18.1.1", true)?;
    first.drops_all(&lab.unlisted)
}

#[test]
fn what_could_not_be_remembered_is_remembered_later() -> Result<()> {
    let lab = with_agents(1)?;
    let first = &lab.control_planes[0];
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    let memory = first.agent.lists().join(".agent.json");
    fs::remove_file(&memory)?;
    fs::create_dir(&memory)?;
    lab.authorize("guests", &json!([{"cidr": "198.18.0.0/24"}]))?;
    first.filter.until_authorized("198.18.0.1", true)?;
    lab.until_report("cp1", "InSync", "WriteFailed")?;
    fs::remove_dir(&memory)?;
    until("it is remembered", || {
        let memory = file(first, ".agent.json").unwrap_or_default();
        let memory: Value = serde_json::from_str(&memory).unwrap_or_default();
        Ok(memory["records"]["guests"]["written"]["generation"] == 2)
    })?;
    lab.until_report("cp1", "InSync", "InSync").map(drop)
}

#[test]
fn odd_addresses_of_one_node_hold_up_no_other_node() -> Result<()> {
    let lab = with_agents(1)?;
    let odd = [
        "::ffff:198.18.9.9",
        "0.1.2.3",
        "::ffff:0.0.0.0",
        "255.255.255.255",
    ];
    lab.add_node("odd", &odd, &["0.0.0.0/0", "::/0", "::ffff:0:0/96"])?;
    lab.add_node("worker1", &lab.workers[0].addresses, &[])?;
    let first = &lab.control_planes[0];
    first.filter.until_authorized("198.18.9.9", true)?;
    first.lets_all_in(&lab.workers[0])?;
    first.drops_all(&lab.unlisted)
}

#[test]
fn what_is_no_file_holds_up_no_list() -> Result<()> {
    let mut lab = with_agents(1)?;
    let first = &mut lab.control_planes[0];
    let lists = first.agent.lists().to_owned();
    let pipe = |name: &str| -> Result<()> {
        mkfifo(&lists.join(".pipe"), Mode::S_IRWXU)?;
        chown(lists.join(".pipe"), Some(UID), Some(UID))?;
        Ok(fs::rename(lists.join(".pipe"), lists.join(name))?)
    };
    first.agent.kill();
    pipe(".agent.json")?;
    first.agent.start(&[])?;
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    pipe("guests")?;
    pipe("stray")?;
    lab.authorize("other", &json!([{"cidr": "198.18.0.0/24"}]))?;
    lab.until_condition("other", "Programmed", "True")?;
    let first = &lab.control_planes[0];
    until("the list is back", || Ok(lists.join("guests").is_file()))?;
    first.lets_all_in(&lab.unlisted)
}

#[test]
fn an_object_that_cannot_be_read_holds_up_no_other() -> Result<()> {
    let lab = with_agents(1)?;
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    let path = "/apis/apifence.io/v1alpha1/authorizedranges/guests";
    let mut client = lab.control_planes[0].api.local_client()?;
    let mut object = client.get(path)?.succeeded()?.json()?;
    let conditions = object["status"]["conditions"]
        .as_array_mut()
        .context("conditions")?;
    for condition in conditions {
        condition["lastTransitionTime"] = json!("9999-12-31T23:59:59Z");
    }
    client.replace(&format!("{path}/status"), &object)?;
    lab.authorize("other", &json!([{"cidr": "198.18.0.0/24"}]))?;
    lab.control_planes[0]
        .filter
        .until_authorized("198.18.0.1", true)?;
    lab.until_condition("other", "Programmed", "True").map(drop)
}
