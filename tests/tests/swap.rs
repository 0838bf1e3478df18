//! Two lists in turn, on a real wire: sources in both lose no packet, sources in neither get no
//! answer.

use anyhow::{Result, ensure};
use tests::{
    cli::{INPUT, refused},
    net::{SynSender, Transfer, tcp_counter},
    peer::Peer,
    site::{ADMIN, ATTACH, Family, NODE, Site, UNLISTED, at, ip},
};

const PORT: u16 = 6443;
/// Both hold the administrator's addresses, each in a different range.
const LISTS: [&str; 2] = [
    "198.51.100.0/24,2001:db8:aa::/48,192.0.2.128/25",
    "198.51.100.7,2001:db8:aa::7,192.0.2.64/26,2001:db8:cc::/48",
];

#[test]
fn swaps_lose_no_packet_of_a_shared_source_and_pass_none_of_an_unlisted_one() -> Result<()> {
    const SWAPS: usize = 40;
    let (site, filter, server) = Site::guarded_server(PORT)?;
    let admins = Family::BOTH.map(|family| {
        let target = at(NODE[family as usize], PORT);
        Transfer::new(&site.admin, ip(ADMIN[family as usize]), target)
    });
    let admins = admins.into_iter().collect::<Result<Vec<_>>>()?;
    let swap = || -> Result<()> {
        for list in LISTS.into_iter().cycle().take(SWAPS) {
            filter.ok(&["ranges", "set", list])?;
            // Under each list data must make a round trip, however busy the machine is.
            admins.iter().try_for_each(Transfer::flows)?;
        }
        Ok(())
    };

    // Only the administrator sends, so every drop is one of that client.
    let dropped = filter.dropped()?;
    swap()?;
    assert_eq!(
        filter.dropped()?,
        dropped,
        "packets of a source in both lists"
    );

    // Then an unlisted client as well: its own counter shows whether the node answers.
    let (answered, accepted) = (tcp_counter(&site.unlisted, "InSegs")?, server.accepted());
    let senders = Family::BOTH.map(|family| {
        let target = at(NODE[family as usize], PORT);
        SynSender::new(&site.unlisted, ip(UNLISTED[family as usize]), target)
    });
    let senders = senders.into_iter().collect::<Result<Vec<_>>>()?;
    swap()?;
    ensure!(filter.dropped()? > dropped + 100, "too few SYNs were sent");
    for sender in senders {
        sender.stop()?;
    }
    let now = (tcp_counter(&site.unlisted, "InSegs")?, server.accepted());
    assert_eq!(
        now,
        (answered, accepted),
        "the unlisted client was answered"
    );
    admins.iter().try_for_each(Transfer::flows)
}

/// The end of a trial restores the previous policy. On an interface without a filter, that would
/// not restore the previous state.
#[test]
fn a_trial_guards_no_interface_that_it_would_not_open_again() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let peer = Peer::new(&site)?;
    filter.ok(&ATTACH)?;
    let attach = ["attach", "--interface", "eth1"];
    let trial = [&attach[..], &["--confirm-within", "1h"]].concat();
    refused(&filter.run(&trial)?, INPUT, &["start trial: `eth1`"])?;
    peer.gets_in(PORT)?;
    filter.ok(&attach)?;
    peer.is_silenced(PORT)?;
    // From here on a trial is possible there, too.
    filter.ok(&trial)?;
    filter.ok(&["confirm"]).map(drop)
}
