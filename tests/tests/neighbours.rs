//! Other software on a node: devices of network plugins, and foreign XDP programs. The devices are
//! real if the kernel has them.

mod snapshot;

use anyhow::{Result, ensure};
use snapshot::same;
use tests::{
    cli::{Apifence, FAILED, Ran, refused},
    foreign::Foreign,
    net::Echo,
    netns::{End, Namespace, veth},
    site::{ATTACH, Family, INTERFACE, Site},
    tun::Tun,
};

const PORT: u16 = 6443;

/// Runs `ip` in the node with each of these lines.
fn set_up(site: &Site, lines: &str) -> Result<()> {
    let mut lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.try_for_each(|line| site.node.ip(line).map(drop))
}

/// The warnings of `status`: the first line and the rest differ from node to node.
fn warned(filter: &Apifence) -> Result<Ran> {
    let mut ran = filter.run(&["status"])?;
    let is_warning = |line: &&str| {
        let detail = line.strip_prefix("       ");
        let is_detail = detail.is_some_and(|detail| !detail.starts_with(' '));
        is_detail || line.starts_with("  W") || line.contains("warning")
    };
    let lines = ran.stdout.lines().filter(is_warning);
    ran.stdout = lines.map(|line| format!("{line}\n")).collect();
    Ok(ran)
}

/// A pod: a veth pair whose host's end is called `name`, and may be a port of a bridge.
fn pod(site: &Site, name: &str, addresses: &[&str]) -> Result<Namespace> {
    let pod = Namespace::new("pod")?;
    veth(
        1500,
        End::new(&site.node, name, addresses),
        End::new(&pod, "eth0", &[]),
    )?;
    Ok(pod)
}

/// The node with the filter on its card, and a server on every address.
fn node(site: &Site) -> Result<(Apifence, Echo)> {
    let filter = Apifence::new(&site.node)?;
    let server = Echo::new(&site.node, PORT)?;
    filter.ok(&ATTACH)?;
    Ok((filter, server))
}

#[test]
fn a_node_with_flannel_gets_one_remark() -> Result<()> {
    let site = Site::new()?;
    let (filter, _server) = node(&site)?;
    set_up(
        &site,
        "link add flannel.1 type vxlan id 1 local 192.0.2.10 dev eth0 dstport 8472 nolearning
         address add 10.244.0.0/32 dev flannel.1
         link set flannel.1 up
         link add cni0 type bridge
         address add 10.244.0.1/24 dev cni0
         link set cni0 up",
    )?;
    let _pods = [
        pod(&site, "veth1a2b3c4d", &[])?,
        pod(&site, "veth5e6f", &[])?,
    ];
    set_up(
        &site,
        "link set veth1a2b3c4d master cni0
         link set veth5e6f master cni0",
    )?;
    let quiet = warned(&filter)?;
    // A card in the bridge is a way in; so is a device that only has a name like flannel's.
    let _wire = pod(&site, "eth1", &[])?;
    let _fake = Tun::new(&site.node, "flannel.2", &["10.9.9.1/24"])?;
    set_up(&site, "link set eth1 master cni0")?;
    let holes = warned(&filter)?;
    site.node.ip("link set eth1 nomaster")?;
    // A guarded device needs no remark.
    filter.ok(&["attach", "--interface", "flannel.1,flannel.2"])?;
    let guarded = warned(&filter)?;
    same("node-with-flannel", &filter, &[quiet, holes, guarded]);
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn a_node_with_cilium_gets_one_remark() -> Result<()> {
    let site = Site::new()?;
    let (filter, _server) = node(&site)?;
    set_up(
        &site,
        "link add cilium_host type veth peer name cilium_net
         address add 10.0.1.17/32 dev cilium_host
         link set cilium_host up
         link set cilium_net up
         link add cilium_vxlan type vxlan external dstport 8473
         link set cilium_vxlan up",
    )?;
    let _pods = [
        pod(&site, "lxc_health", &[])?,
        pod(&site, "lxc0f8d3e", &["10.0.1.18/32"])?,
    ];
    same("node-with-cilium", &filter, &[warned(&filter)?]);
    Ok(())
}

#[test]
fn a_node_with_calico_gets_one_remark() -> Result<()> {
    let site = Site::new()?;
    let (filter, _server) = node(&site)?;
    set_up(
        &site,
        "link add vxlan.calico type vxlan id 4096 local 192.0.2.10 dev eth0 dstport 4789
         address add 192.168.7.0/32 dev vxlan.calico
         link set vxlan.calico up",
    )?;
    let _pod = pod(&site, "cali8f3e5a91c77", &["169.254.1.1/32"])?;
    same("node-with-calico", &filter, &[warned(&filter)?]);
    Ok(())
}

#[test]
fn a_node_with_docker_and_machines_is_quiet() -> Result<()> {
    let site = Site::new()?;
    let (filter, _server) = node(&site)?;
    set_up(
        &site,
        "link add docker0 type bridge
         address add 172.17.0.1/16 dev docker0
         link set docker0 up
         link add br-4f2a0c9d77e1 type bridge
         address add 172.18.0.1/16 dev br-4f2a0c9d77e1
         link set br-4f2a0c9d77e1 up
         link add podman0 type bridge
         address add 10.88.0.1/16 dev podman0
         link set podman0 up
         link add virbr0 type bridge
         address add 192.168.122.1/24 dev virbr0
         link set virbr0 up
         link add weave type bridge
         address add 10.32.0.1/12 dev weave
         link set weave up
         link add vethwe-bridge type veth peer name vethwe-datapath
         link set vethwe-bridge master weave
         link set vethwe-bridge up
         link set vethwe-datapath up",
    )?;
    let _container = pod(&site, "vethd8c1f90", &[])?;
    set_up(&site, "link set vethd8c1f90 master br-4f2a0c9d77e1")?;
    let ran = warned(&filter)?;
    ensure!(ran.stdout.is_empty(), "{ran}");
    Ok(())
}

/// A VPN is a way in, and its traffic is not filtered, as the warning says.
#[test]
fn a_vpn_is_warned_of_with_its_name() -> Result<()> {
    let site = Site::new()?;
    let (filter, _server) = node(&site)?;
    let _vpn = Tun::new(&site.node, "tailscale0", &["100.64.0.1/10"])?;
    set_up(
        &site,
        "link add overlay type vxlan id 9 remote 192.0.2.99 dstport 4789
         link set overlay up",
    )?;
    same("node-with-a-vpn", &filter, &[warned(&filter)?]);
    Ok(())
}

#[test]
fn owners_of_foreign_programs_are_named_and_none_is_displaced() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut said = Vec::new();
    for name in [
        "cil_xdp_entry",
        "calico_xdp_main",
        "balancer_ingress",
        "xdp_packet_func",
        "xdp_dispatcher",
        "xsk_def_prog",
        "xdp_hashfilter",
        "ingress_node_firewall_process",
    ] {
        let mut foreign = Foreign::named(name)?;
        let id = foreign.id()?;
        let link = site.node.run(|| foreign.attach(INTERFACE))?;
        let ran = filter.run(&ATTACH)?;
        refused(&ran, FAILED, &[INTERFACE, &format!("(program {id})")])?;
        // No hint may break a cluster.
        for word in ["xdp off", "link detach"] {
            ensure!(!ran.stderr.contains(word), "{ran}");
        }
        let there = site.node.ip(&format!("link show dev {INTERFACE}"))?;
        ensure!(there.contains(&format!("prog/xdp id {id}")), "{there}");
        said.push(ran);
        drop(link);
        drop(foreign);
        tests::wait::until("it is off", || {
            let there = site.node.ip(&format!("link show dev {INTERFACE}"))?;
            Ok(!there.contains("prog/xdp"))
        })?;
    }
    same("owners-of-foreign-programs", &filter, &said);

    // The owner is unknown: the hint first finds out, and its command to detach works.
    let mut foreign = Foreign::load()?;
    let id = foreign.id()?;
    let _link = site.node.run(|| foreign.attach(INTERFACE))?;
    let ran = filter.run(&ATTACH)?;
    refused(&ran, FAILED, &[INTERFACE, tests::foreign::PROGRAM])?;
    let show = format!("bpftool prog show id {id}");
    for word in [&show, "bpftool net", "bpftool link detach id"] {
        ensure!(ran.stderr.contains(word), "no `{word}`: {ran}");
    }
    Ok(())
}

/// `status` also reports a program that was attached while the filter was off.
#[test]
fn status_names_what_is_in_the_way() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    let _other = pod(&site, "eth1", &["10.9.0.1/24"])?;
    filter.ok(&["attach", "--interface", "eth1"])?;
    let link = format!(
        "layout-{}/interfaces/{}/link",
        filter_common::layout::LAYOUT_VERSION,
        site.node.ifindex("eth1")?
    );
    tests::kernel::detach_link(&filter.bpffs().join(link))?;
    let mut foreign = Foreign::named("cil_xdp_entry")?;
    let _link = site.node.run(|| foreign.attach("eth1"))?;
    let ran = warned(&filter)?;
    for word in ["`eth1` is not guarded", "cil_xdp_entry", "Cilium", "W01  "] {
        ensure!(ran.stdout.contains(word), "no `{word}`: {ran}");
    }
    ensure!(ran.stdout.contains("loadBalancer.acceleration"), "{ran}");
    let ran = filter.run(&["status", "--ack", "W01:eth1"])?;
    refused(&ran, tests::cli::INPUT, &["cannot be acknowledged"])
}

#[test]
fn every_warning_can_be_explained() -> Result<()> {
    let desk = Namespace::new("desk")?;
    let filter = Apifence::new(&desk)?;
    let codes = filter.json(&["explain"])?;
    let codes = codes["warnings"].as_array().cloned().unwrap_or_default();
    ensure!(codes.len() >= 15, "{codes:?}");
    for one in &codes {
        let code = one["code"].as_str().unwrap_or_default();
        let name = one["name"].as_str().unwrap_or_default();
        let text = filter.ok(&["explain", code])?;
        assert_eq!(text, filter.ok(&["explain", &name.to_uppercase()])?);
        ensure!(text.starts_with(&format!("{code} {name} (")), "{text}");
        ensure!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
    // Also with a config file that cannot be read.
    filter.write_config("mode = = 1\n")?;
    filter.ok(&["explain", "W08"])?;
    filter.write_config("")?;
    let said = filter.run_all(&[
        &["explain"],
        &["explain", "tunnel"],
        &["explain", "w01"],
        &["explain", "W99"],
    ])?;
    same("explain", &filter, &said);
    Ok(())
}
