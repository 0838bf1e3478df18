//! Interfaces that appear, disappear, and change their names under `run`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use procfs::process::Process;
use tests::{
    cli::{Apifence, Background},
    net::{Echo, Intruder, silent},
    netns::{End, Namespace, add_address, veth},
    scrape::{get, ready, scrape},
    site::{INTERFACE, Site, at, ip},
    wait::{until, until_ended},
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";

/// A pair between `node` and `client`; `name` is the node's end, and `number` that of its network.
fn plug_in(node: &Namespace, client: &Namespace, name: &str, number: u8) -> Result<()> {
    veth(
        1500,
        End::new(node, name, &[&format!("10.9.{number}.1/24")]),
        End::new(
            client,
            &format!("c{number}"),
            &[&format!("10.9.{number}.20/24")],
        ),
    )
}

fn started(node: &Namespace, filter: &Apifence, arguments: &[&str]) -> Result<Background> {
    filter.write_list("192.0.2.10\n")?;
    let mut daemon = filter.start(&[&["run"], arguments].concat())?;
    ready(node, &mut daemon)?;
    Ok(daemon)
}

/// Ready, with only this interface guarded, under its name.
fn is_guarded_alone(node: &Namespace, name: &str) -> Result<()> {
    until("that is the one", || {
        let page = scrape(node)?;
        let of = |name| page.sum("apifence_attached", &[("interface", name)]);
        let all = page.sum("apifence_attached", &[]);
        Ok(of(name) == Some(1.0) && all == Some(1.0) && get(node, "/readyz")?.status == 200)
    })
}

#[test]
fn an_interface_that_returns_up_lets_at_most_one_connection_in() -> Result<()> {
    let [node, client] = ["node", "client"].map(Namespace::new);
    let (node, client) = (node?, client?);
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, PORT)?;
    plug_in(&node, &client, "n0", 0)?;
    let mut daemon = started(&node, &filter, &["--interface", "n0"])?;
    let intruder = Intruder::new(&client, ip("10.9.0.20"), at("10.9.0.1", PORT))?;
    let mut worst = 0;
    for round in 0..10 {
        let before = intruder.count();
        node.ip("link del n0")?;
        daemon.line(|line| line.contains("`n0` does not exist"))?;
        plug_in(&node, &client, "n0", 0)?;
        daemon.line(|line| line.contains("guarding `n0` again"))?;
        let got_in = intruder.count() - before;
        println!("round {round}: {got_in} connections");
        worst = worst.max(got_in);
    }
    ensure!(worst <= 1, "{worst} connections got in at once");
    Ok(())
}

#[test]
fn a_renamed_interface_and_one_that_takes_over_the_default_route_are_known_at_once() -> Result<()> {
    let [node, client] = ["node", "client"].map(Namespace::new);
    let (node, client) = (node?, client?);
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, PORT)?;
    plug_in(&node, &client, "n0", 0)?;
    node.ip("route add default via 10.9.0.20")?;
    let mut daemon = started(&node, &filter, &[])?;
    is_guarded_alone(&node, "n0")?;

    node.ip("link set n0 down")?;
    node.ip("link set n0 name m0")?;
    node.ip("link set m0 up")?;
    is_guarded_alone(&node, "m0")?;
    silent(&client, ip("10.9.0.20"), at("10.9.0.1", PORT))?;

    // Another card takes over, and the first one is removed.
    plug_in(&node, &client, "n1", 1)?;
    node.ip("route replace default via 10.9.1.20")?;
    daemon.line(|line| line.contains("guarding `n1`"))?;
    silent(&client, ip("10.9.1.20"), at("10.9.1.1", PORT))?;
    node.ip("link del m0")?;
    is_guarded_alone(&node, "n1")
}

/// A log line about an interface is true of that interface, and not of its name.
#[test]
fn a_new_interface_is_not_guarded_again_and_none_is_not_guarded() -> Result<()> {
    let [node, client] = ["node", "client"].map(Namespace::new);
    let (node, client) = (node?, client?);
    let filter = Apifence::new(&node)?;
    plug_in(&node, &client, "n0", 0)?;
    let mut daemon = started(&node, &filter, &["--interface", "n0"])?;
    node.ip("link set n0 down")?;
    node.ip("link set n0 name old")?;
    plug_in(&node, &client, "n0", 1)?;
    let line = daemon.line(|line| line.starts_with("guarding `n0`"))?;
    ensure!(!line.contains("again"), "{line}");
    node.ip("link del n0")?;
    node.ip("link del old")?;
    until("neither is guarded", || {
        let page = scrape(&node)?;
        Ok(page.sum("apifence_attached", &[("interface", "n0")]) != Some(1.0))
    })?;
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    let line = daemon.line(|line| line.contains("leaving"))?;
    ensure!(!line.contains("stays on"), "{line}");
    Ok(())
}

#[test]
fn an_interface_that_was_in_another_namespace_is_ours_when_it_is_back() -> Result<()> {
    let [node, client, other] = ["node", "client", "other"].map(Namespace::new);
    let (node, client, other) = (node?, client?, other?);
    let filter = Apifence::new(&node)?;
    let _server = Echo::new(&node, PORT)?;
    plug_in(&node, &client, "n0", 0)?;
    plug_in(&node, &client, "n1", 1)?;
    filter.write_list("192.0.2.10\n")?;
    let both = ["--interface", "n0,n1"];
    filter.ok(&[&["attach"], &both[..]].concat())?;
    // The interface must get another index.
    let away = |from: &Namespace, to: &Namespace| from.move_interface("n1", to);
    other.ip("link add first type veth peer name second")?;
    away(&node, &other)?;
    node.ip("link add third type veth peer name fourth")?;
    node.ip("link add fifth type veth peer name sixth")?;
    away(&other, &node)?;
    node.ip("addr add 10.9.1.1/24 dev n1")?;
    node.ip("link set n1 up")?;
    silent(&client, ip("10.9.1.20"), at("10.9.1.1", PORT))?;
    filter.ok(&[&["attach"], &both[..]].concat())?;
    let status = filter.json(&["status"])?;
    ensure!(status["interfaces"][1]["interface"] == "n1", "{status}");
    ensure!(status["interfaces"][1]["guarded"] == true, "{status}");
    let _daemon = started(&node, &filter, &both)?;
    is_ready(&node)?;
    Ok(())
}

fn is_ready(node: &Namespace) -> Result<()> {
    until("it is ready", || {
        Ok(get(node, "/readyz").is_ok_and(|answer| answer.status == 200))
    })
}

#[test]
fn routes_that_come_and_go_cost_little() -> Result<()> {
    const ROUTES: u32 = 50_000;
    let [node, client] = ["node", "client"].map(Namespace::new);
    let (node, client) = (node?, client?);
    let filter = Apifence::new(&node)?;
    plug_in(&node, &client, "n0", 0)?;
    node.ip("route add default via 10.9.0.20")?;
    let mut batch = Command::new("ip");
    batch.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut batch = node.spawn(&mut batch)?;
    let mut text = String::new();
    for number in 0..ROUTES {
        let [_, high, middle, low] = number.to_be_bytes();
        text += &format!("route add 172.{}.{middle}.{low} via 10.9.0.20\n", 16 + high);
    }
    let mut input = batch.stdin.take().context("no stdin")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    ensure!(until_ended(&mut batch)?.success());

    let daemon = started(&node, &filter, &[])?;
    let ticks = || -> Result<u64> {
        let stat = Process::new(daemon.pid().as_raw())?.stat()?;
        Ok(stat.utime + stat.stime)
    };
    let before = ticks()?;
    let began = Instant::now();
    for _ in 0..30 {
        node.ip("route add 203.0.113.0/24 via 10.9.0.20")?;
        node.ip("route del 203.0.113.0/24")?;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (spent, time) = (ticks()? - before, began.elapsed());
    println!("{spent} ticks of CPU in {time:?} with {ROUTES} routes and 60 changes");
    // One dump of all routes takes some ten ticks; a second has 100.
    ensure!(
        spent as f64 <= 5.0 * time.as_secs_f64() + 12.0,
        "{spent} ticks in {time:?}"
    );
    Ok(())
}

#[test]
fn a_flapping_interface_piles_up_nothing() -> Result<()> {
    let [node, client] = ["node", "client"].map(Namespace::new);
    let (node, client) = (node?, client?);
    let filter = Apifence::new(&node)?;
    plug_in(&node, &client, "n0", 0)?;
    let mut daemon = started(&node, &filter, &["-v", "--interface", "n0"])?;
    let pid = daemon.pid().as_raw();
    let descriptors = || Ok::<_, anyhow::Error>(Process::new(pid)?.fd_count()?);
    let mut flap = |rounds| -> Result<usize> {
        for _ in 0..rounds {
            node.ip("link del n0")?;
            daemon.line(|line| line.contains("`n0` does not exist"))?;
            plug_in(&node, &client, "n0", 0)?;
            daemon.line(|line| line.contains("guarding `n0` again"))?;
        }
        descriptors()
    };
    let before = flap(2)?;
    let after = flap(10)?;
    // A dump or a read holds a descriptor or two for a moment.
    ensure!(after <= before + 2, "{before} descriptors became {after}");
    Ok(())
}

#[test]
fn sixty_four_interfaces_are_guarded_with_few_descriptors() -> Result<()> {
    let node = Namespace::new("node")?;
    let names: Vec<String> = (0..64).map(|number| format!("n{number}")).collect();
    for name in &names {
        node.ip(&format!("link add {name} type veth peer name p{name}"))?;
    }
    let filter = Apifence::new(&node)?;
    filter.write_list(LIST)?;
    let all = names.join(",");
    let carrying = || -> Result<usize> {
        let shown = node.ip("-d link show")?;
        Ok(shown
            .lines()
            .filter(|line| line.contains("name apifence"))
            .count())
    };
    let by = |limit: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--nofile={limit}"));
        prlimit
    };
    // The usual soft limit, and room above it.
    let attach = ["attach", "--interface", &all];
    let began = Instant::now();
    let ran = filter.run_by(by("1024:"), &attach)?;
    ensure!(ran.code == Some(0), "{ran}");
    println!("64 interfaces attached in {:?}", began.elapsed());
    assert_eq!(carrying()?, 64);
    filter.ok(&["detach"])?;

    // Fewer than the interfaces: their pins hold the links.
    let run = ["run", "--interface", &all];
    let mut command = filter.command_by(by("110:110"), &run);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = tests::cli::Killed(node.spawn(&mut command)?);
    until("all are guarded", || Ok(carrying()? == 64))?;
    is_ready(&node)?;
    ensure!(daemon.0.try_wait()?.is_none(), "it goes on");
    Ok(())
}

#[test]
fn addresses_of_pods_change_nothing() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.write_list(LIST)?;
    let daemon = filter.start(&["run", "--interface", INTERFACE])?;
    is_ready(&site.node)?;
    let generation = || filter.status("generation");
    let before = generation()?;
    for number in 0..6 {
        let pair = format!("pod{number} type veth peer name peer{number}");
        site.node.ip(&format!("link add {pair}"))?;
        site.node.ip(&format!("link set pod{number} up"))?;
        site.node.ip(&format!("link set peer{number} up"))?;
    }
    // An address of the node itself is followed, and arrives after all of these.
    add_address(&site.node, INTERFACE, "192.0.2.99/32")?;
    filter.until_authorized("192.0.2.99", true)?;
    let after = generation()?;
    ensure!(
        after.as_u64() == before.as_u64().map(|before| before + 1),
        "{before} became {after}"
    );
    drop(daemon);
    Ok(())
}
