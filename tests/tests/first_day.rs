//! The first day of a filter on a cluster: `init`, a day's traffic, `suggest`, `enforce` on trial.
//! Nothing of the cluster is cut at any moment, and unlisted sources are.

use std::path::Path;

use anyhow::{Result, ensure};
use tests::{
    cli::Apifence,
    machines::{ADMIN, Distribution, Machines, STRANGER},
    net::{Transfer, exchange},
    wait::PATIENCE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stand-in");

/// Everything of the cluster goes on, and can connect again.
fn goes_on(machines: &Machines, transfers: &[Transfer]) -> Result<()> {
    for transfer in transfers {
        transfer.flows()?;
    }
    for (source, port) in machines.cluster() {
        machines.connect(source, port)?;
    }
    Ok(())
}

/// The sources of all packets that were dropped.
fn dropped(filter: &Apifence) -> Result<Vec<String>> {
    let events = filter.ok(&["-o", "json", "events", "--recent"])?;
    let mut sources = Vec::new();
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        if event["verdict"] == "drop" {
            sources.push(event["source"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(sources)
}

#[test]
fn a_cluster_of_kubeadm_goes_on_from_the_first_command_to_enforcement() -> Result<()> {
    first_day(Distribution::Kubeadm)
}

#[test]
fn a_cluster_of_k3s_goes_on_from_the_first_command_to_enforcement() -> Result<()> {
    first_day(Distribution::K3s)
}

fn first_day(distribution: Distribution) -> Result<()> {
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let machines = Machines::new(distribution, PROGRAM, &trees)?;
    let filter = machines.apifence()?;
    let [api, other] = distribution.ports();
    let cluster = machines.cluster().into_iter();
    let transfers = cluster
        .map(|(source, port)| machines.transfer(source, port))
        .collect::<Result<Vec<_>>>()?;
    let root = machines.root().display().to_string();

    filter.ok(&["init", "--yes", "--from-root", &root])?;
    ensure!(filter.status("state")? == "monitoring");
    let ports = filter.status("ports")?;
    ensure!(ports == serde_json::json!([api, other]), "{ports}");
    let _daemon = filter.start_run(&[])?;
    goes_on(&machines, &transfers)?;
    let mut admin = machines.connect(ADMIN, other)?;
    let mut stranger = machines.connect(STRANGER, api)?;
    let mut by_proxy = machines.connect(STRANGER, other)?;

    let suggested = filter.json(&["suggest"])?;
    let ranges: Vec<&str> = suggested["ranges"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["range"].as_str())
        .collect();
    let (one, two) = (format!("{ADMIN}/32"), format!("{STRANGER}/32"));
    ensure!(
        ranges.len() == 2 && ranges.contains(&&*one) && ranges.contains(&&*two),
        "{suggested:#}"
    );
    filter.ok(&["ranges", "add", ADMIN, "--comment", "administrator"])?;
    filter.ok(&["enforce", "--confirm-within", "60s"])?;
    goes_on(&machines, &transfers)?;
    exchange(&mut admin, PATIENCE)?;
    for connection in [&mut stranger, &mut by_proxy] {
        filter.cuts(connection)?;
    }
    filter.ok(&["confirm"])?;
    for port in [api, other] {
        machines.is_dropped(STRANGER, port)?;
        machines.connect(ADMIN, port)?;
    }
    goes_on(&machines, &transfers)?;
    let dropped = dropped(&filter)?;
    ensure!(
        !dropped.is_empty() && dropped.iter().all(|source| source == STRANGER),
        "{dropped:?}"
    );
    let ran = filter.run(&["doctor", "--from-root", &root])?;
    ensure!(ran.code == Some(0) && !ran.stdout.contains("FAIL"), "{ran}");
    filter.ok(&["status", "--check"])?;
    Ok(())
}
