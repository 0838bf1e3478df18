//! The harness itself: without a filter every source reaches every port.

use anyhow::Result;
use tests::{
    foreign::Foreign,
    mounts,
    net::{Echo, Transfer, open, ping, silent, tcp_counter, udp},
    netns::{End, Namespace, veth},
    site::{ADMIN, NODE, Site, UNLISTED, at, ip},
};

#[test]
fn without_a_filter_every_source_gets_in() -> Result<()> {
    let site = Site::new()?;
    let _server = Echo::new(&site.node, 6443)?;
    for (namespace, addresses) in [(&site.admin, ADMIN), (&site.unlisted, UNLISTED)] {
        for (source, node) in addresses.into_iter().zip(NODE) {
            open(namespace, ip(source), at(node, 6443))?;
            udp((namespace, ip(source)), (&site.node, at(node, 6443)))?;
            ping(namespace, ip(source), ip(node))?;
        }
    }
    let transfer = Transfer::new(&site.admin, ip(ADMIN[0]), at(NODE[0], 6443))?;
    transfer.flows()?;
    assert_eq!(tcp_counter(&site.admin, "RetransSegs")?, 0);
    Ok(())
}

#[test]
fn a_refusal_is_not_silence() -> Result<()> {
    let site = Site::new()?;
    let answer = silent(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], 6443));
    assert!(answer.is_err_and(|error| error.to_string().contains("refused")));
    site.node.ip("link set eth0 down")?;
    silent(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], 6443))
}

#[test]
fn a_foreign_program_attaches() -> Result<()> {
    let node = Namespace::new("node")?;
    let peer = Namespace::new("peer")?;
    let ends = [&node, &peer].map(|namespace| End::new(namespace, "eth0", &[]));
    veth(1500, ends[0], ends[1])?;
    mounts::enter_private()?;
    let mut foreign = Foreign::load()?;
    let link = node.run(|| foreign.attach("eth0"))?;
    assert!(
        node.ip("link show dev eth0")?
            .contains(&format!("prog/xdp id {}", foreign.id()?))
    );
    drop(link);
    foreign.pin("/sys/fs/bpf/passer_by")?;
    // The kernel releases the link a moment later.
    let pinned = "link set dev eth0 xdp pinned /sys/fs/bpf/passer_by";
    tests::wait::until("the interface is free", || Ok(node.ip(pinned).is_ok()))?;
    assert!(
        node.ip("link show dev eth0")?
            .contains(&format!("prog/xdp id {}", foreign.id()?))
    );
    Ok(())
}
