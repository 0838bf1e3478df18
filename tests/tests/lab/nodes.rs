//! Nodes that join and leave, in numbers.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::wait::until;

use super::{file, with_agents};

#[test]
fn a_node_is_let_in_when_it_joins_and_stays_when_its_object_is_deleted() -> Result<()> {
    let mut lab = with_agents(1)?;
    let worker = &lab.workers[0];
    let first = &lab.control_planes[0];
    first.drops_all(worker)?;
    let began = Instant::now();
    lab.add_node(
        "worker1",
        &worker.addresses,
        &["10.244.1.0/24", "fd00:1::/64"],
    )?;
    first.filter.until_authorized(worker.addresses[1], true)?;
    eprintln!(
        "measured: a node is let in {:?} after its object",
        began.elapsed()
    );
    first.lets_all_in(worker)?;
    until("the pod ranges", || {
        Ok(file(first, "@pods")?.contains("10.244.1.0/24 # worker1"))
    })?;
    // By mistake: the kubelet could not come back.
    lab.delete_node("worker1")?;
    until("it is noted", || {
        Ok(file(first, "@nodes")?.contains("# worker1, not in the API since"))
    })?;
    first.lets_all_in(worker)?;
    lab.add_node("worker1", &worker.addresses, &[])?;
    until("it is back", || {
        Ok(!file(first, "@nodes")?.contains("not in the API"))
    })?;
    // After the time that its operator chose.
    lab.control_planes[0]
        .agent
        .start(&["--forget-after", "1s"])?;
    lab.delete_node("worker1")?;
    let first = &lab.control_planes[0];
    first
        .filter
        .until_authorized(lab.workers[0].addresses[0], false)?;
    first.drops_all(&lab.workers[0])?;
    // The last node of all is never forgotten.
    lab.delete_node("cp1")?;
    until("it is noted, and stays", || {
        Ok(file(&lab.control_planes[0], "@nodes")?.contains("192.0.2.11/32 # cp1"))
    })
}

#[test]
fn thousands_of_events_hold_up_no_node_and_no_list() -> Result<()> {
    const EVENTS: usize = 5000;
    let lab = with_agents(1)?;
    let first = &lab.control_planes[0];
    for number in 0..50 {
        lab.add_node(
            &format!("busy{number}"),
            &[&format!("198.18.0.{number}")],
            &[],
        )?;
    }
    let began = Instant::now();
    let mut client = first.api.local_client()?;
    for number in 0..EVENTS {
        // As a heartbeat of a kubelet: it changes no address.
        let path = format!("/api/v1/nodes/busy{}/status", number % 50);
        let mut node = client
            .get(path.trim_end_matches("/status"))?
            .succeeded()?
            .json()?;
        node["status"]["conditions"] = json!([{
            "type": "Ready", "status": "True", "reason": "Test", "message": number.to_string(),
        }]);
        client.replace(&path, &node)?;
        if number == EVENTS / 2 {
            let sent = began.elapsed();
            lab.add_node("worker1", &lab.workers[0].addresses, &[])?;
            first
                .filter
                .until_authorized(lab.workers[0].addresses[0], true)?;
            eprintln!(
                "measured: a node is let in {:?} after its object, amid the events",
                began.elapsed() - sent
            );
        }
    }
    eprintln!("measured: {EVENTS} events in {:?}", began.elapsed());

    // A long list amid them.
    let began = Instant::now();
    let ranges: Vec<Value> = (0..4000)
        .map(|number: u32| json!({"cidr": format!("10.{}.{}.0/28", number >> 8, number & 255)}))
        .collect();
    let object = json!({
        "apiVersion": "apifence.io/v1alpha1",
        "kind": "AuthorizedRanges",
        "metadata": {"name": "long"},
        "spec": {"ranges": ranges},
    });
    client.create("/apis/apifence.io/v1alpha1/authorizedranges", &object)?;
    lab.until_condition("long", "Programmed", "True")?;
    eprintln!(
        "measured: 4,000 ranges are in force {:?} after their object",
        began.elapsed()
    );
    first.filter.until_authorized("10.15.159.1", true)?;
    let state = first.filter.list_state("kubernetes.long")?;
    ensure!(
        state["entries"] == 4000 || state["ranges"] == 4000,
        "{state:#}"
    );
    first.drops_all(&lab.unlisted)
}
