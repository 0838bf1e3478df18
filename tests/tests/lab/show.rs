//! Three control planes: a list is applied once and is in force on each; what happens to one of
//! them opens none.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    lab::{
        Lab,
        api_server::{LOOPBACK, PORT},
    },
    net::{SynSender, connect, silent},
    site::{at, ip},
    wait::{PATIENCE, until},
};

use super::{guests, with_agents};

#[test]
fn a_list_is_applied_once_and_is_in_force_on_every_node() -> Result<()> {
    let mut lab = with_agents(3)?;
    for control_plane in &lab.control_planes {
        control_plane.drops_all(&lab.unlisted)?;
        control_plane.lets_all_in(&lab.admin)?;
    }
    let began = Instant::now();
    lab.authorize("guests", &guests())?;
    let applied = began.elapsed();
    lab.until_condition("guests", "Programmed", "True")?;
    let took = began.elapsed();
    eprintln!("measured: kubectl apply {applied:?}, Programmed on three nodes after {took:?}");
    for control_plane in &lab.control_planes {
        control_plane.lets_all_in(&lab.unlisted)?;
        control_plane.lets_all_in(&lab.admin)?;
        control_plane.drops_all(&lab.workers[0])?;
    }
    for (words, want) in [
        (
            &["get", "authorizedranges"][..],
            ["guests", "2", "True", "True", "3/3"],
        ),
        (
            &["get", "nodeguards", "cp2"],
            ["cp2", "enforcing", "True", "True", "2"],
        ),
    ] {
        let table = lab.kubectl(words)?;
        let row = table.lines().last().context("a row")?;
        let row: Vec<_> = row.split_whitespace().take(want.len()).collect();
        ensure!(row == want, "{table}");
    }

    // A node that is switched off, and comes back without its API server.
    lab.control_planes[0].reboot()?;
    withdraw_by(&lab, 1)?;
    let first = &mut lab.control_planes[0];
    first.start_guard()?;
    first.until_guarded()?;
    let target = at(first.machine.addresses[0], PORT);
    for machine in [&lab.admin, &lab.unlisted] {
        // No program listens: the kernel refuses, which it can do only if the filter let it.
        let [source, _] = machine.ips();
        let refused = connect(&machine.namespace, source, target, PATIENCE);
        let kind = refused.err().map(|error| error.kind());
        ensure!(
            kind == Some(std::io::ErrorKind::ConnectionRefused),
            "{kind:?}"
        );
    }
    lab.control_planes[0].drops_all(&lab.workers[0])?;
    // It learns what it missed.
    lab.control_planes[0].api.start()?;
    lab.control_planes[0].api.until_ready()?;
    lab.control_planes[0].agent.start(&[])?;
    lab.until_condition("guests", "Programmed", "True")?;
    for control_plane in &lab.control_planes {
        control_plane.drops_all(&lab.unlisted)?;
    }
    Ok(())
}

/// Withdraws the guests by the API server of another control plane.
fn withdraw_by(lab: &Lab, number: usize) -> Result<()> {
    let object = json!({
        "metadata": {"annotations": {"apifence.io/allow-empty": "true"}},
        "spec": {"ranges": []},
    })
    .to_string();
    let machine = &lab.control_planes[number].machine;
    let words = [
        "patch",
        "authorizedranges",
        "guests",
        "--type=merge",
        "--patch",
        &object,
    ];
    let patched = lab.kubectl_from(machine, LOOPBACK, &words, "")?;
    patched.succeeded().map(drop)
}

#[test]
fn agents_are_rolled_under_a_flood() -> Result<()> {
    let mut lab = with_agents(2)?;
    lab.authorize("guests", &json!([{"cidr": "192.0.2.21/32"}]))?;
    lab.until_condition("guests", "Programmed", "True")?;
    let [flooder, _] = lab.unlisted.ips();
    let first = &lab.control_planes[0];
    let target = at(first.machine.addresses[0], PORT);
    let flood = SynSender::new(&lab.unlisted.namespace, flooder, target)?;
    let [listed, _] = lab.workers[0].ips();
    let mut client = lab.client(&lab.admin, lab.admin.ips()[0], first)?;
    let (ended, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (worker, unlisted) = (
        lab.workers[0].namespace.try_clone()?,
        lab.unlisted.namespace.try_clone()?,
    );
    let mut replaced = 0;
    thread::scope(|scope| -> Result<()> {
        let watch = scope.spawn(|| -> Result<()> {
            let done = (|| {
                while !ended.load(Ordering::Relaxed) {
                    client.get("/version")?.succeeded()?;
                    connect(&worker, listed, target, PATIENCE).context("a listed source")?;
                    silent(&unlisted, flooder, target)?;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })();
            ended.store(true, Ordering::Relaxed);
            done
        });
        let rolled = (|| {
            while rounds.load(Ordering::Relaxed) < 10 && !ended.load(Ordering::Relaxed) {
                for control_plane in &mut lab.control_planes {
                    control_plane.agent.kill();
                    let agent = control_plane.agent.start(&[])?;
                    agent.line(|line| line.contains("following"))?;
                    let agent = &control_plane.agent;
                    until(
                        "it is well",
                        || Ok(agent.ran("check", &[])?.code == Some(0)),
                    )?;
                    replaced += 1;
                }
            }
            Ok(())
        })();
        ended.store(true, Ordering::Relaxed);
        rolled.and(watch.join().expect("no panic"))
    })?;
    flood.stop()?;
    eprintln!("measured: {rounds:?} rounds while an agent was replaced {replaced} times");
    lab.authorize("guests", &guests())?;
    lab.until_condition("guests", "Programmed", "True")?;
    for control_plane in &lab.control_planes {
        control_plane.lets_in(&lab.unlisted, ip("203.0.113.9"))?;
        control_plane.drops_all(&lab.workers[0])?;
    }
    Ok(())
}
