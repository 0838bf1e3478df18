//! The API is away, or says what it should not: the files stay, and the agent comes back by itself.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{lab::Lab, wait::until};

use super::{file, files_are_whole, guests, with_agents};

/// What is in force is the list of `guests`, and the worker's address.
fn stays(lab: &Lab) -> Result<()> {
    let first = &lab.control_planes[0];
    first.lets_all_in(&lab.unlisted)?;
    first.lets_all_in(&lab.workers[0])?;
    first.drops_all(&lab.workers[1])?;
    files_are_whole(first, &["guests"])
}

fn ready() -> Result<Lab> {
    let lab = with_agents(1)?;
    lab.authorize("guests", &guests())?;
    lab.add_node("worker1", &lab.workers[0].addresses, &["10.244.1.0/24"])?;
    lab.until_condition("guests", "Programmed", "True")?;
    lab.control_planes[0]
        .filter
        .until_authorized(lab.workers[0].addresses[1], true)?;
    stays(&lab)?;
    Ok(lab)
}

/// The agent says since when the API is away.
fn says_away(lab: &mut Lab, cause: &str) -> Result<()> {
    let agent = lab.control_planes[0].agent.process()?;
    let line = agent.line(|line| line.contains("the API does not answer since"))?;
    ensure!(
        line.contains(cause) && line.contains("stay in force"),
        "{line}"
    );
    let agent = &lab.control_planes[0].agent;
    until("the probe fails", || {
        Ok(agent.ran("check", &[])?.code == Some(1))
    })?;
    let doctor = lab.control_planes[0].filter.run(&["doctor"])?;
    ensure!(
        doctor.stdout.contains("the API does not answer since"),
        "{doctor}"
    );
    agent.ran("check", &["--live"])?.succeeded().map(drop)
}

fn says_back(lab: &mut Lab) -> Result<()> {
    let agent = lab.control_planes[0].agent.process()?;
    agent.line(|line| line.contains("the API answers again"))?;
    let agent = &lab.control_planes[0].agent;
    until("the probe passes", || {
        Ok(agent.ran("check", &[])?.code == Some(0))
    })?;
    let doctor = lab.control_planes[0].filter.run(&["doctor"])?;
    ensure!(
        doctor.stdout.contains("the agent reaches the API"),
        "{doctor}"
    );
    Ok(())
}

#[test]
fn an_api_server_that_is_killed_or_paused_changes_nothing() -> Result<()> {
    let mut lab = ready()?;
    lab.control_planes[0].api.process().pause()?;
    says_away(&mut lab, "no answer within")?;
    stays(&lab)?;
    lab.control_planes[0].api.process().proceed()?;
    says_back(&mut lab)?;
    lab.control_planes[0].api.process().kill()?;
    says_away(&mut lab, "Connection re")?;
    // The kernel refuses for a server that is not there.
    lab.control_planes[0].drops_all(&lab.workers[1])?;
    // An agent that starts meanwhile leaves the files, too.
    lab.control_planes[0].agent.start(&[])?;
    says_away(&mut lab, "Connection re")?;
    files_are_whole(&lab.control_planes[0], &["guests"])?;
    lab.control_planes[0].api.restart()?;
    says_back(&mut lab)?;
    stays(&lab)?;
    lab.withdraw("guests")?;
    lab.until_condition("guests", "Programmed", "True")?;
    lab.control_planes[0].drops_all(&lab.unlisted)
}

#[test]
fn rights_and_kinds_that_are_gone_change_nothing() -> Result<()> {
    let mut lab = ready()?;
    let rights = ["clusterrolebinding", "apifence-kube"];
    let saved = lab.kubectl(&[&["get", "-o", "json"][..], &rights].concat())?;
    lab.kubectl(&[&["delete"][..], &rights].concat())?;
    // Open watches go on without rights; the next question fails.
    lab.control_planes[0].agent.start(&[])?;
    says_away(&mut lab, "forbidden")?;
    stays(&lab)?;
    lab.apply(&saved)?;
    says_back(&mut lab)?;
    stays(&lab)?;

    lab.kubectl(&["delete", "authorizedranges", "guests"])?;
    let message = lab.until_report("cp1", "InSync", "ObjectGone")?;
    ensure!(
        message.starts_with("guests: the object was deleted"),
        "{message}"
    );
    stays(&lab)?;
    lab.kubectl(&["delete", "crd", "authorizedranges.apifence.io"])?;
    says_away(&mut lab, "AuthorizedRanges")?;
    stays(&lab)?;
    lab.install_types()?;
    says_back(&mut lab)?;
    stays(&lab)?;

    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    // Emptied by accident.
    lab.authorize("guests", &json!([]))?;
    let message = lab.until_condition("guests", "Accepted", "False")?;
    ensure!(message.contains("apifence.io/allow-empty"), "{message}");
    lab.until_report("cp1", "InSync", "Refused")?;
    stays(&lab)?;
    let events = lab.kubectl(&["describe", "authorizedranges", "guests"])?;
    ensure!(
        events.contains("Warning") && events.contains("Refused"),
        "{events}"
    );
    // On purpose, and then deleted: the list goes with its object.
    lab.withdraw("guests")?;
    lab.until_condition("guests", "Programmed", "True")?;
    lab.control_planes[0].drops_all(&lab.unlisted)?;
    lab.kubectl(&["delete", "authorizedranges", "guests"])?;
    let first = &lab.control_planes[0];
    until("the list is gone", || Ok(file(first, "guests").is_err()))?;
    lab.until_report("cp1", "InSync", "InSync")?;
    let warnings = first.filter.status("warnings")?;
    ensure!(!warnings.to_string().contains("kubernetes"), "{warnings:#}");
    first.drops_all(&lab.unlisted)?;
    first.lets_all_in(&lab.workers[0])
}

#[test]
fn an_older_snapshot_of_etcd_opens_nothing_and_cuts_nobody() -> Result<()> {
    let mut lab = ready()?;
    let both = json!([{"cidr": "203.0.113.0/24"}, {"cidr": "192.0.2.22/32"}]);
    lab.authorize("guests", &both)?;
    lab.authorize("gone", &json!([{"cidr": "192.0.2.22/32"}]))?;
    lab.until_condition("gone", "Programmed", "True")?;
    let snapshot = lab.etcd.snapshot("before")?;
    // Since then: less is authorized, a list is withdrawn and deleted, a list and a node are new.
    lab.authorize("guests", &guests())?;
    lab.withdraw("gone")?;
    lab.until_condition("gone", "Programmed", "True")?;
    lab.kubectl(&["delete", "authorizedranges", "gone"])?;
    lab.authorize("new", &json!([{"cidr": "198.18.0.0/24"}]))?;
    lab.until_condition("new", "Programmed", "True")?;
    lab.until_condition("guests", "Programmed", "True")?;
    lab.add_node("late", &["198.18.1.1"], &[])?;
    let first = &lab.control_planes[0];
    first.filter.until_authorized("198.18.1.1", true)?;
    until("the list is gone", || Ok(file(first, "gone").is_err()))?;
    first.drops_all(&lab.workers[1])?;

    lab.restore(&snapshot)?;
    let agent = lab.control_planes[0].agent.process()?;
    agent.line(|line| line.contains("the API does not answer since"))?;
    agent.line(|line| line.contains("the API answers again"))?;
    lab.until_report("cp1", "InSync", "ObjectOlder")?;
    let first = &lab.control_planes[0];
    first.drops_all(&lab.workers[1])?;
    for source in ["203.0.113.9", "198.18.0.1", "198.18.1.1", "192.0.2.21"] {
        first.filter.until_authorized(source, true)?;
    }
    let nodes = file(first, "@nodes")?;
    ensure!(
        nodes.contains("198.18.1.1/32 # late, not in the API since"),
        "{nodes}"
    );
    // A change after the restore counts.
    lab.authorize("guests", &json!([{"cidr": "192.0.2.22/32"}]))?;
    lab.until_condition("guests", "Programmed", "True")?;
    first.lets_in(&lab.workers[1], lab.workers[1].ips()[0])?;
    first.drops_all(&lab.unlisted)
}

#[test]
fn a_compacted_history_is_read_anew() -> Result<()> {
    let mut lab = ready()?;
    // The agent sleeps while the history that it would go on with is removed.
    let agent = lab.control_planes[0].agent.process()?;
    agent.signal(nix::sys::signal::Signal::SIGSTOP)?;
    lab.authorize(
        "guests",
        &json!([{"cidr": "203.0.113.0/25"}, {"cidr": "2001:db8:bb::/48"}]),
    )?;
    lab.control_planes[0].api.process().kill()?;
    lab.etcd.compact()?;
    lab.control_planes[0].api.restart()?;
    let agent = lab.control_planes[0].agent.process()?;
    agent.signal(nix::sys::signal::Signal::SIGCONT)?;
    lab.until_condition("guests", "Programmed", "True")?;
    let list = file(&lab.control_planes[0], "guests")?;
    ensure!(list.contains("203.0.113.0/25"), "{list}");
    stays(&lab)
}
