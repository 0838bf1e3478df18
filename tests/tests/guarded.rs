//! `status --check`: its exit status says whether the node is guarded as its files say.

use anyhow::{Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use tests::{
    cli::Apifence,
    kernel::detach_link,
    netns::two_interfaces,
    site::{INTERFACE, Site},
    wait::until,
};

/// Whether `status --check` succeeds, and its reasons if not.
fn checks(filter: &Apifence) -> Result<(bool, String)> {
    let ran = filter.run(&["status", "--check"])?;
    ensure!(
        ran.stdout.contains("\nranges file   "),
        "not the usual status: {ran}"
    );
    ensure!(matches!(ran.code, Some(0 | 1)), "{ran}");
    ensure!((ran.code == Some(0)) == ran.stderr.is_empty(), "{ran}");
    Ok((ran.code == Some(0), ran.stderr))
}

/// It fails, for exactly these reasons.
fn does_not_check(filter: &Apifence, reasons: &[&str]) -> Result<()> {
    let (yes, said) = checks(filter)?;
    ensure!(!yes, "it says yes");
    let each = said.lines().zip(reasons);
    ensure!(
        said.lines().count() == reasons.len()
            && each.clone().all(|(line, word)| line.contains(word)),
        "{reasons:?}: {said}"
    );
    Ok(())
}

#[test]
fn status_check_says_whether_the_node_is_guarded_as_its_files_say() -> Result<()> {
    let [node, _client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    let yes = || -> Result<()> {
        let (yes, said) = checks(&filter)?;
        ensure!(yes, "{said}");
        Ok(())
    };
    does_not_check(&filter, &["no filter is attached"])?;
    filter.write_list("192.0.2.2\n")?;
    filter.write_config("interfaces = [\"n0\"]\n")?;
    filter.ok(&["attach"])?;
    yes()?;

    // The files are in force.
    filter.write_list("192.0.2.3\n")?;
    does_not_check(&filter, &["drift: the file is not in force"])?;
    filter.ok(&["ranges", "reload"])?;
    yes()?;
    filter.write_config("interfaces = [\"n0\"]\nmode = \"monitor\"\n")?;
    does_not_check(&filter, &["mode monitor"])?;
    // Monitor mode and a list that is off are right if the files say so.
    filter.ok(&["attach"])?;
    ensure!(filter.status("state")? == "monitoring");
    yes()?;
    filter.ok(&["ranges", "clear"])?;
    ensure!(filter.status("state")? == "off");
    yes()?;
    filter.write_config("prots = [6443]\n")?;
    let (good, said) = checks(&filter)?;
    ensure!(!good && said.contains("`prots`"), "{said}");

    // Every interface of the configuration is guarded.
    filter.write_config("interfaces = [\"n0\", \"n1\"]\n")?;
    filter.write_list("192.0.2.3\n")?;
    filter.ok(&["ranges", "reload"])?;
    does_not_check(&filter, &["interfaces n0, n1", "`n1` is not guarded"])?;
    filter.ok(&["attach"])?;
    yes()?;
    node.ip("link del n1")?;
    let (good, said) = checks(&filter)?;
    ensure!(!good && said.contains("`n1` is not guarded"), "{said}");
    filter.write_config("")?;
    let (good, said) = checks(&filter)?;
    ensure!(
        !good && said.contains("`n1` is not guarded"),
        "the last command named it: {said}"
    );
    filter.ok(&["attach", "--interface", "n0"])?;
    yes()?;

    // The interfaces of the default routes, if none is named.
    filter.ok(&["detach"])?;
    node.ip("link set n0 up")?;
    node.ip("route add default via 192.0.2.2")?;
    filter.ok(&["attach"])?;
    yes()?;
    node.ip("link add n1 type veth peer name c1")?;
    node.ip("addr add 192.0.3.1/24 dev n1")?;
    node.ip("link set n1 up")?;
    node.ip("link set c1 up")?;
    node.ip("route add default via 192.0.3.2 metric 7")?;
    does_not_check(&filter, &["`n1` is not guarded"])?;
    filter.ok(&["attach"])?;
    yes()
}

#[test]
fn status_check_says_no_while_something_else_than_the_files_holds() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.write_list("192.0.2.2\n")?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    filter.boot()?;
    filter.write_list("x\n")?;
    let daemon = filter.start(&["run", "--interface", INTERFACE])?;
    until("the last good policy is in force", || {
        Ok(checks(&filter)?.1.contains("`last_in_force`"))
    })?;
    filter.write_list("192.0.2.2\n")?;
    until("the files are in force", || Ok(checks(&filter)?.0))?;
    drop(daemon);
    ensure!(checks(&filter)?.0, "the filter outlives the process");
    Ok(())
}

/// The pins of an interface that is gone cause no warning. A link that another program took off a
/// present interface stays one.
#[test]
fn a_link_that_was_detached_is_not_forgotten_by_an_attach_of_another_interface() -> Result<()> {
    let [node, _client] = two_interfaces()?;
    let filter = Apifence::new(&node)?;
    filter.write_list("192.0.2.2\n")?;
    filter.ok(&["attach", "--interface", "n0,n1"])?;
    let ifindex = node.ifindex("n1")?;
    let link = format!("layout-{LAYOUT_VERSION}/interfaces/{ifindex}/link");
    detach_link(&filter.bpffs().join(link))?;
    let warned = || -> Result<bool> {
        let status = filter.json(&["status"])?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        Ok(warnings
            .iter()
            .any(|warning| warning["code"] == "W01" && warning["interface"] == "n1"))
    };
    ensure!(warned()?, "before");
    filter.ok(&["attach", "--interface", "n0"])?;
    ensure!(warned()?, "after");
    // A bare `attach` repairs it.
    filter.ok(&["attach"])?;
    ensure!(!warned()?, "repaired");
    Ok(())
}
