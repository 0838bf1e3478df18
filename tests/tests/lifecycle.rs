//! The filter outlives processes, changes without a gap, and displaces no other program.

use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::{
    cli::words,
    net::{SynSender, Transfer, tcp_counter},
    peer::Peer,
    site::{ADMIN, ADMIN_RANGES, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait,
};

const PORT: u16 = 6443;
const POLICY: [&str; 4] = [
    "--interface",
    INTERFACE,
    "--authorized-ip-ranges",
    ADMIN_RANGES,
];

fn with<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[verb], &POLICY[..], more].concat()
}

#[test]
fn the_port_stays_filtered_when_every_process_is_killed() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    site.unlisted_gets_in(Family::V4, PORT)?;

    let mut daemon = filter.start(&with("run", &[]))?;
    daemon.line(|line| line.contains("guarding"))?;
    let mut connection = site.admin_gets_in(Family::V6, PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    daemon.signal(Signal::SIGKILL)?;
    assert_eq!(daemon.wait()?, None);

    for family in Family::BOTH {
        site.unlisted_is_dropped(family, PORT, &filter)?;
        site.admin_gets_in(family, PORT)?;
    }
    tests::net::exchange(&mut connection, wait::PATIENCE)?;
    assert_eq!(filter.status("state")?, "enforcing");

    // Neither a lock nor a half-done change blocks the next command.
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["detach"])?;
    site.unlisted_gets_in(Family::V6, PORT).map(drop)
}

/// A change is killed at any point: the port is not more open than before or after, and the next
/// change succeeds.
#[test]
fn a_change_killed_half_way_opens_nothing() -> Result<()> {
    const KILLS: u32 = 16;
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    let started = Instant::now();
    filter.ok(&with("attach", &[]))?;
    let whole = started.elapsed();
    let answers = || tcp_counter(&site.unlisted, "InSegs");
    let answered = answers()?;
    let sender = SynSender::new(&site.unlisted, ip(UNLISTED[0]), at(NODE[0], PORT))?;
    let admin = Transfer::new(&site.admin, ip(ADMIN[1]), at(NODE[1], PORT))?;

    let changes = [
        with("attach", &["--port", "443,6443,8443"]),
        vec!["ranges", "add", "192.0.2.128/25"],
    ];
    for kill in 0..KILLS {
        let mut change = filter.start(&changes[kill as usize % 2])?;
        // Not a wait: it kills the change at another line each time.
        std::thread::sleep(whole * kill / KILLS);
        change.signal(Signal::SIGKILL)?;
        change.wait()?;
        admin.flows()?;
    }
    assert_eq!(
        answers()?,
        answered,
        "the node answered the unlisted client"
    );
    sender.stop()?;
    for change in &changes {
        filter.ok(change)?;
    }
    let status = filter.json(&["status"])?;
    assert_eq!(
        (&status["state"], &status["drift"]),
        (&"enforcing".into(), &serde_json::json!([]))
    );
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;

    // The same for a first attach: whatever it leaves does not block the next one.
    for kill in 0..KILLS {
        filter.ok(&["detach"])?;
        let mut attach = filter.start(&changes[0])?;
        std::thread::sleep(whole * kill / KILLS);
        attach.signal(Signal::SIGKILL)?;
        attach.wait()?;
        let state = filter.status("state")?;
        site.admin_gets_in(Family::V4, PORT)?;
        match state.as_str() {
            Some("detached") => drop(site.unlisted_gets_in(Family::V4, PORT)?),
            Some("enforcing") => site.unlisted_is_dropped(Family::V4, PORT, &filter)?,
            _ => anyhow::bail!("killed at step {kill}: status says {state}"),
        }
    }
    filter.ok(&changes[0])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    filter.ok(&["detach"])?;
    assert!(!filter.bpffs().exists(), "pins are left");
    Ok(())
}

#[test]
fn run_leaves_the_filter_on_unless_told_to_take_it_off() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    for (signal, more, stays) in [
        (Signal::SIGTERM, &[][..], true),
        (Signal::SIGINT, &["-v"], true),
        (Signal::SIGTERM, &["--detach-on-exit"], false),
        (Signal::SIGTERM, &["--detach-on-exit", "-v"], false),
    ] {
        let mut daemon = filter.start(&with("run", more))?;
        daemon.line(|line| line.contains("guarding"))?;
        site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
        daemon.line(|line| line.contains(" drop unauthorized "))?;
        daemon.signal(signal)?;
        assert_eq!(daemon.wait()?, Some(0));
        if stays {
            site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
            site.admin_gets_in(Family::V4, PORT)?;
        } else {
            site.unlisted_gets_in(Family::V4, PORT)?;
        }
    }
    Ok(())
}

#[test]
fn run_shows_the_programs_log_on_request() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut daemon = filter.start(&with("run", &["-v"]))?;
    daemon.line(|line| line.contains("guarding"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    daemon.line(|line| line.contains("drop: unauthorized"))?;
    Ok(())
}

/// A second `attach` and changes of the list go unnoticed by every client.
#[test]
fn changes_leave_no_gap() -> Result<()> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    let answers = || tcp_counter(&site.unlisted, "InSegs");
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&with("attach", &[]))?;
    let admins =
        [0, 1].map(|family| Transfer::new(&site.admin, ip(ADMIN[family]), at(NODE[family], PORT)));
    let admins = admins.into_iter().collect::<Result<Vec<_>>>()?;

    let answered_before = answers()?;
    let accepted_before = server.accepted();
    let senders = [0, 1]
        .map(|family| SynSender::new(&site.unlisted, ip(UNLISTED[family]), at(NODE[family], PORT)));
    let senders = senders.into_iter().collect::<Result<Vec<_>>>()?;
    let mut drops = 0;
    let mut passes = 0;
    for round in 0..6 {
        match round % 3 {
            0 => filter.ok(&with("attach", &[]))?,
            1 => filter.ok(&["ranges", "add", "192.0.2.128/25"])?,
            _ => filter.ok(&with(
                "attach",
                &words("--port 443 --port 6443 --cluster-cidrs 10.0.0.0/8"),
            ))?,
        };
        // Counters are kept: they only grow.
        for (now, last) in [
            (filter.packets("drop", "unauthorized")?, &mut drops),
            (filter.packets("pass", "authorized")?, &mut passes),
        ] {
            assert!(
                now > *last,
                "round {round}: a counter went from {last} to {now}"
            );
            *last = now;
        }
        for admin in &admins {
            admin.flows()?;
        }
    }
    assert_eq!(
        answers()?,
        answered_before,
        "the node answered the unlisted client"
    );
    assert_eq!(
        server.accepted(),
        accepted_before,
        "the node accepted an unlisted client"
    );

    // The control: with the port open the unlisted client is answered.
    filter.ok(&["detach"])?;
    wait::until("the unlisted client is answered", || {
        Ok(answers()? > answered_before)
    })?;
    for sender in senders {
        sender.stop()?;
    }
    for admin in &admins {
        admin.flows()?;
    }
    Ok(())
}

#[test]
fn interfaces_are_guarded_one_by_one() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let peer = Peer::new(&site)?;
    let guarded = || {
        let status = filter.json(&["status"])?;
        let interfaces = status["interfaces"]
            .as_array()
            .context("no interfaces")?
            .clone();
        anyhow::Ok(
            interfaces
                .iter()
                .filter_map(|guard| guard["interface"].as_str().map(str::to_owned))
                .collect::<Vec<_>>(),
        )
    };
    peer.gets_in(PORT)?;

    filter.ok(&with("attach", &[]))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    peer.gets_in(PORT)?;

    filter.ok(&with("attach", &["--interface", "eth1"]))?;
    assert_eq!(guarded()?, ["eth0", "eth1"]);
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    peer.is_silenced(PORT)?;

    filter.ok(&["detach", "--interface", "eth0"])?;
    assert_eq!(guarded()?, ["eth1"]);
    site.unlisted_gets_in(Family::V4, PORT)?;
    peer.is_silenced(PORT)?;

    filter.ok(&["detach", "--interface", "eth1"])?;
    peer.gets_in(PORT)?;
    assert_eq!(filter.status("state")?, "detached");
    Ok(())
}

#[test]
fn an_interface_that_comes_back_is_guarded_again() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let peer = Peer::unplugged()?;
    let attach = [
        "attach",
        "--interface",
        "eth1",
        "--authorized-ip-ranges",
        ADMIN_RANGES,
    ];

    peer.plug_in(&site)?;
    peer.gets_in(PORT)?;
    filter.ok(&attach)?;
    peer.is_silenced(PORT)?;
    site.node.ip("link delete eth1")?;
    let status = filter.ok(&["status"])?;
    assert!(status.contains("not attached"), "{status}");
    assert!(
        status.contains("no longer exists") && !status.contains("--interface #"),
        "{status}"
    );
    filter.ok(&["stats"])?;

    peer.plug_in(&site)?;
    peer.gets_in(PORT)?;
    filter.ok(&attach)?;
    peer.is_silenced(PORT)?;
    // The remains of the previous interface cause no warning now.
    let status = filter.ok(&["status"])?;
    assert!(!status.contains("no longer exists"), "{status}");
    filter.ok(&["detach"])?;
    peer.gets_in(PORT).map(drop)
}
