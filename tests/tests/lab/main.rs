//! A cluster with real API servers behind the filter. `cargo xtask test --cluster` runs it.

mod accounts;
mod away;
mod bounds;
mod guarded;
mod kills;
mod life;
mod nodes;
mod odd;
mod show;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::lab::{Lab, control_plane::ControlPlane};

/// Ranges that let the unlisted machine in.
fn guests() -> Value {
    json!([
        {"cidr": "203.0.113.0/24", "comment": "guests"},
        {"cidr": "2001:db8:bb::/48"},
    ])
}

/// A cluster whose agents run, with Node objects for the control planes. The workers have none.
fn with_agents(count: usize) -> Result<Lab> {
    let mut lab = Lab::with_control_planes(count)?;
    lab.install_types()?;
    lab.authorize_agents()?;
    for number in 0..count {
        let machine = &lab.control_planes[number].machine;
        let (name, addresses) = (machine.name, machine.addresses);
        lab.add_node(name, &addresses, &[])?;
    }
    lab.kubectl(&[
        "label",
        "nodes",
        "--all",
        "node-role.kubernetes.io/control-plane=",
    ])?;
    for control_plane in &mut lab.control_planes {
        control_plane.agent.start(&[])?;
    }
    for number in 0..count {
        lab.until_report(lab.control_planes[number].machine.name, "InSync", "InSync")?;
    }
    Ok(lab)
}

/// The text of a file that the agent writes.
fn file(control_plane: &ControlPlane, name: &str) -> Result<String> {
    let path = control_plane.agent.lists().join(name);
    fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))
}

/// The lists in force are those of the files, and the agent left no other file.
fn files_are_whole(control_plane: &ControlPlane, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(control_plane.agent.lists())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !name.starts_with('@') {
            found.push(name);
        }
    }
    found.sort_unstable();
    ensure!(found == names, "the lists are {found:?}");
    for name in names {
        let state = control_plane
            .filter
            .list_state(&format!("kubernetes.{name}"))?;
        ensure!(state["fault"].is_null(), "{state:#}");
    }
    Ok(())
}
