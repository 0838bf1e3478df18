//! What the agent carries from the API to the node.

use anyhow::Result;
use tests::lab::Lab;

#[test]
fn trial_of_the_agent() -> Result<()> {
    let mut lab = Lab::with_control_planes(1)?;
    lab.authorize_agents()?;
    lab.add_node("cp1", &["192.0.2.11"], &[])?;
    lab.add_node(
        "worker1",
        &["192.0.2.21", "2001:db8::21"],
        &["10.244.1.0/24"],
    )?;
    lab.control_planes[0].agent.start(&[])?;
    lab.apply(r#"{"apiVersion":"apifence.io/v1alpha1","kind":"AuthorizedRanges","metadata":{"name":"office"},"spec":{"ranges":[{"cidr":"203.0.113.0/24","comment":"HQ"}]}}"#)?;
    let log = lab.control_planes[0]
        .agent
        .process()?
        .log_until("generation 1")?;
    eprintln!("{log}");
    std::thread::sleep(std::time::Duration::from_secs(4));
    for words in [
        &["get", "authorizedranges", "-o", "wide"][..],
        &["get", "nodeguards", "-o", "yaml"],
        &["get", "events", "-A"],
        &["describe", "authorizedranges", "office"],
    ] {
        eprintln!("{}", lab.kubectl(words)?);
    }
    let agent = lab.control_planes[0].agent.process()?;
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    eprintln!(
        "{:?}",
        agent.line(|line| {
            eprintln!("{line}");
            false
        })
    );
    Ok(())
}
