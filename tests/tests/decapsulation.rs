//! Routes that decapsulate: the filter follows them and judges inner packets.

use anyhow::{Result, ensure};
use tests::{
    cli::{Apifence, words},
    delivery::{Answer, INTERFACE, Medium, Testbed},
    packets::V6,
    table::{NODE6, SID6, SID6_NEXT_HOP, Source, v6},
    wait::until,
};

const ROUTE: &str = "fc00:2::6/128 encap seg6local action End.DT6 table 255 dev eth0";

/// Whether a SYN from `who` in a packet to `sid` is answered.
fn answers(testbed: &mut Testbed, sid: std::net::Ipv6Addr, who: Source, port: u16) -> Result<bool> {
    let syn = v6(who).syn(port, 6443).packet();
    let around = V6::new(Source::Listed.v6(), sid).destination_options(8);
    let answers = testbed.send(&[around.payload(41, &syn).frame()])?;
    Ok(answers.contains(&Answer::Accepted {
        from: 6443,
        to: port,
    }))
}

#[test]
fn routes_that_come_and_go_under_run_are_followed() -> Result<()> {
    let mut testbed = Testbed::new(Medium::Ethernet, 1500)?;
    let node = testbed.node.try_clone()?;
    let filter = Apifence::new(&node)?;
    // Routes that exist at the start.
    let mut daemon = filter.start_run(&words(&format!(
        "--interface {INTERFACE} --authorized-ip-ranges 198.51.100.0/24,2001:db8:aa::/48"
    )))?;
    ensure!(!answers(&mut testbed, SID6, Source::Unlisted, 20_001)?);
    ensure!(!answers(
        &mut testbed,
        SID6_NEXT_HOP,
        Source::Unlisted,
        20_002
    )?);
    ensure!(answers(&mut testbed, SID6, Source::Listed, 20_003)?);

    let changed = |line: &str| line.contains("decapsulation");
    for sid in [SID6, SID6_NEXT_HOP, tests::table::SID4] {
        node.ip(&format!("-6 route del {sid}/128"))?;
    }
    daemon.line(changed)?;
    // No route decapsulates now, so the outer packet is judged.
    let passed = filter.packets("pass", "not_tcp")?;
    answers(&mut testbed, SID6, Source::Unlisted, 20_004)?;
    ensure!(filter.packets("pass", "not_tcp")? > passed);

    node.ip(&format!("-6 route add {ROUTE}"))?;
    daemon.line(changed)?;
    let sid = "fc00:2::6".parse()?;
    ensure!(!answers(&mut testbed, sid, Source::Unlisted, 20_005)?);
    ensure!(answers(&mut testbed, sid, Source::Listed, 20_006)?);

    // Through a next hop object.
    node.ip("-6 route del fc00:2::6/128")?;
    daemon.line(changed)?;
    node.ip("-6 nexthop add id 7 encap seg6local action End.DT6 table 255 dev eth0")?;
    node.ip("-6 route add fc00:2::6/128 nhid 7")?;
    daemon.line(changed)?;
    ensure!(!answers(&mut testbed, sid, Source::Unlisted, 20_007)?);
    ensure!(answers(&mut testbed, sid, Source::Listed, 20_008)?);
    Ok(())
}

/// Routes with other segment actions change nothing.
#[test]
fn other_routes_change_no_verdict() -> Result<()> {
    let testbed = Testbed::new(Medium::Ethernet, 1500)?;
    let node = testbed.node.try_clone()?;
    for sid in [SID6, SID6_NEXT_HOP, tests::table::SID4] {
        node.ip(&format!("-6 route del {sid}/128"))?;
    }
    node.ip(&format!(
        "-6 route add fc00:3::1/128 encap seg6local action End dev {INTERFACE}"
    ))?;
    node.ip(&format!(
        "-6 route add fc00:3::2/128 encap seg6 mode encap segs {NODE6} dev {INTERFACE}"
    ))?;
    let mut testbed = testbed;
    let filter = Apifence::new(&node)?;
    filter.ok(&words(&format!(
        "attach --interface {INTERFACE} --authorized-ip-ranges 2001:db8:aa::/48"
    )))?;
    let passed = filter.packets("pass", "not_tcp")?;
    ensure!(!answers(&mut testbed, NODE6, Source::Unlisted, 20_001)?);
    until("the packet is counted", || {
        Ok(filter.packets("pass", "not_tcp")? > passed)
    })
}
