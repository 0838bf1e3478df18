//! The agent is killed at each of its writes.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{lab::control_plane::ControlPlane, wait::until};

use super::{file, files_are_whole, with_agents};

#[test]
fn an_agent_that_is_killed_at_any_write_leaves_the_old_file_or_the_new_one() -> Result<()> {
    let mut lab = with_agents(1)?;
    lab.authorize("guests", &json!([{"cidr": "198.18.0.0/32"}]))?;
    lab.until_condition("guests", "Programmed", "True")?;
    let (mut kills, mut rounds) = (0_u32, 0_u32);
    for call in ["fchmod", "fsync", "renameat"] {
        for number in 1.. {
            lab.control_planes[0].agent.kill();
            let old = file(&lab.control_planes[0], "guests")?;
            let next = format!("198.18.1.{rounds}/32");
            rounds += 1;
            lab.authorize("guests", &json!([{"cidr": next}]))?;
            let agent = &mut lab.control_planes[0].agent;
            agent.start_to_be_killed(call, number)?;
            let mut is_killed = false;
            until("it is killed, or has written all", || {
                let first = &mut lab.control_planes[0];
                is_killed = !first.agent.process()?.runs()?;
                Ok(is_killed || remembers(first, &next)?)
            })?;
            let first = &mut lab.control_planes[0];
            first.agent.kill();
            let now = file(first, "guests")?;
            ensure!(now == old || now.contains(&next), "{call} {number}: {now}");
            files_are_whole(first, &["guests"])?;
            first.keeps_out(&lab.unlisted, lab.unlisted.ips()[0])?;
            first.agent.start(&[])?;
            until("the next agent goes on", || {
                remembers(&lab.control_planes[0], &next)
            })?;
            if !is_killed {
                break;
            }
            kills += 1;
        }
    }
    ensure!(kills >= 6, "it was killed at {kills} calls alone");
    lab.until_condition("guests", "Programmed", "True")?;
    eprintln!("measured: the agent was killed at {kills} calls");
    let left = std::fs::read_dir(lab.control_planes[0].agent.lists())?;
    for entry in left {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with(".new-"), "`{name}` is left");
    }
    Ok(())
}

/// Whether the file has the range, and the agent remembers that file.
fn remembers(first: &ControlPlane, range: &str) -> Result<bool> {
    let list = first.agent.lists().join("guests");
    let digest = Command::new("sha256sum").arg(&list).output()?.stdout;
    let digest = String::from_utf8(digest)?;
    let digest = digest.split(' ').next().unwrap_or_default();
    let memory = file(first, ".agent.json").unwrap_or_default();
    Ok(file(first, "guests")?.contains(range) && memory.contains(digest))
}
