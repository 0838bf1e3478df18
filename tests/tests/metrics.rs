//! The metrics endpoint of `run`: its metrics, and the limits on its clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use filter_common::{Verdict, layout::LAYOUT_VERSION};
use nix::sys::signal::Signal;
use tests::{
    cli::{Apifence, Background},
    foreign::Foreign,
    kernel,
    net::SynSender,
    scrape::{ENDPOINT, Page, connect, get, ready, request, scrape},
    site::{ADMIN_RANGES, Family, INTERFACE, NODE, Site, UNLISTED, ip},
    wait,
};

const PORT: u16 = 6443;
const RUN: [&str; 5] = [
    "run",
    "--interface",
    INTERFACE,
    "--authorized-ip-ranges",
    ADMIN_RANGES,
];

/// Starts `run`, in force and serving.
fn start(site: &Site, filter: &Apifence) -> Result<Background> {
    let mut daemon = filter.start(&RUN)?;
    ready(&site.node, &mut daemon)?;
    Ok(daemon)
}

/// Waits for the end of `daemon`, with exit code 0.
fn ends(daemon: &mut Background) -> Result<()> {
    wait::until("it ends", || Ok(!daemon.runs()?))?;
    assert_eq!(daemon.wait()?, Some(0));
    Ok(())
}

/// The ranges of the list, IPv4.
fn listed(page: &Page) -> Option<f64> {
    let labels = [("family", "ipv4"), ("origin", "list")];
    page.sum("apifence_authorized_ranges", &labels)
}

#[test]
fn a_scrape_shows_what_the_filter_does() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let _daemon = start(&site, &filter)?;

    let first = scrape(&site.node)?;
    first.check()?;
    for verdict in Verdict::all() {
        let labels = [
            ("interface", INTERFACE),
            ("verdict", verdict.label()),
            ("reason", verdict.reason()),
        ];
        for name in ["apifence_packets_total", "apifence_bytes_total"] {
            let value = first.sum(name, &labels);
            assert!(value.is_some(), "no {name} of {labels:?}\n{}", first.text);
            if verdict.label() != "pass" {
                assert_eq!(value, Some(0.0), "{name} of {labels:?}");
            }
        }
    }
    let is = |page: &Page, name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(page.sum(name, labels), Some(value), "{name} {labels:?}");
    };
    is(&first, "apifence_enforcing", &[], 1.0);
    is(&first, "apifence_ready", &[], 1.0);
    is(&first, "apifence_drift", &[], 0.0);
    is(&first, "apifence_last_reload_successful", &[], 1.0);
    is(&first, "apifence_reload_failures_total", &[], 0.0);
    is(&first, "apifence_policy_generation", &[], 1.0);
    is(&first, "apifence_policy_mode", &[("mode", "enforce")], 1.0);
    is(&first, "apifence_policy_mode", &[], 1.0);
    is(&first, "apifence_build_info", &[], 1.0);
    let native = [("interface", INTERFACE), ("xdp_mode", "native")];
    is(&first, "apifence_attached", &native, 1.0);
    for (family, origin, count) in [
        ("ipv4", "list", 1.0),
        ("ipv6", "list", 1.0),
        ("ipv4", "node", 1.0),
        ("ipv6", "node", 1.0),
        ("ipv4", "outbound", 0.0),
        ("ipv6", "cluster", 0.0),
    ] {
        let labels = [("family", family), ("origin", origin)];
        is(&first, "apifence_authorized_ranges", &labels, count);
    }

    for family in Family::BOTH {
        site.unlisted_is_dropped(family, PORT, &filter)?;
        site.admin_gets_in(family, PORT)?;
    }
    let second = scrape(&site.node)?;
    second.check()?;
    for (verdict, reason) in [("drop", "unauthorized"), ("pass", "authorized")] {
        let labels = [("verdict", verdict), ("reason", reason)];
        let [packets, bytes] = ["apifence_packets_total", "apifence_bytes_total"].map(|name| {
            let [before, after] = [&first, &second].map(|page| page.sum(name, &labels));
            after.zip(before).map(|(after, before)| after - before)
        });
        assert!(packets >= Some(2.0), "{packets:?} packets of {labels:?}");
        // No frame is shorter than its headers.
        let least = packets.map(|packets| 54.0 * packets);
        assert!(bytes >= least, "{bytes:?} bytes of {labels:?}");
    }
    // The same counters as in `stats`; the unlisted client's last attempt may have arrived in
    // between.
    let shown = second.sum("apifence_packets_total", &[("verdict", "drop")]);
    assert!(shown <= Some(filter.dropped()? as f64));
    for address in UNLISTED {
        assert!(!second.text.contains(address), "an address is shown");
    }

    // The number changes with the policy, and with it the counts.
    filter.ok(&["ranges", "add", UNLISTED[0], "--expires", "1h"])?;
    let third = scrape(&site.node)?;
    is(&third, "apifence_policy_generation", &[], 2.0);
    assert_eq!(listed(&third), Some(2.0));
    let applied = |page: &Page| page.sum("apifence_policy_applied_timestamp_seconds", &[]);
    assert!(applied(&third) > applied(&first));
    Ok(())
}

/// The label `digest` of the lists in force.
fn digest(page: &Page) -> Result<String> {
    let start = "apifence_list_info{digest=\"";
    let line = page.text.lines().find_map(|line| line.strip_prefix(start));
    let digest = line.and_then(|line| line.strip_suffix("\"} 1"));
    Ok(digest.context("no digest")?.to_owned())
}

#[test]
fn a_scrape_shows_expiry_digest_and_limit_of_the_lists() -> Result<()> {
    const DAY: f64 = 86_400.0;
    let (site, filter) = Site::unguarded()?;
    let old = "203.0.113.1 expires=2020-01-01T00:00:00Z";
    filter.write_list(format!("{}\n{old}\n", ADMIN_RANGES.replace(',', "\n")))?;
    filter.write_config("max_ranges = 500\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    let default = [("list", "default")];
    let page = scrape(&site.node)?;
    page.check()?;
    let first = digest(&page)?;
    assert_eq!(first.len(), 16, "{first}");
    assert_eq!(page.sum("apifence_max_ranges", &[]), Some(500.0));
    assert_eq!(page.sum("apifence_list_ranges", &default), Some(3.0));
    assert_eq!(page.sum("apifence_expired_ranges", &default), Some(1.0));
    let expiry = |page: &Page, labels: &[(&str, &str)]| {
        page.sum("apifence_range_expiry_timestamp_seconds", labels)
    };
    assert_eq!(expiry(&page, &default), None, "nothing expires any more");

    // The earliest of two, by list.
    filter.write_list_of("guests", "203.0.113.8\n")?;
    for (address, time) in [(UNLISTED[0], "1d"), ("203.0.113.10", "2d")] {
        filter.ok(&[
            "ranges",
            "add",
            address,
            "--expires",
            time,
            "--list",
            "guests",
        ])?;
    }
    wait::until("the expiry is told", || {
        let page = scrape(&site.node)?;
        let Some(at) = expiry(&page, &[("list", "guests")]) else {
            return Ok(false);
        };
        let now = page
            .sum("process_start_time_seconds", &[])
            .context("no start")?;
        assert!((at - now - DAY).abs() < 600.0, "{at} of a day after {now}");
        assert_eq!(expiry(&page, &default), None);
        assert_eq!(expiry(&page, &[]), Some(at), "one list has one value");
        Ok(digest(&page)? != first)
    })?;

    // The same lists have the same digest.
    filter.ok(&["ranges", "delete", "--list", "guests"])?;
    wait::until("the first lists are in force", || {
        Ok(digest(&scrape(&site.node)?)? == first)
    })
}

#[test]
fn a_scrape_shows_the_process_itself() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let daemon = start(&site, &filter)?;
    let page = scrape(&site.node)?;
    let value = |name: &str| page.sum(name, &[]).with_context(|| name.to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let age = now - value("process_start_time_seconds")?;
    assert!((0.0..120.0).contains(&age), "{age} s");
    assert!((0.01..60.0).contains(&value("process_cpu_seconds_total")?));
    assert!(value("process_resident_memory_bytes")? > 1e6);
    assert!(value("process_virtual_memory_bytes")? > 1e6);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count() as f64;
    // The scrape itself has some open.
    assert!((value("process_open_fds")? - open).abs() < 30.0);
    Ok(())
}

/// A flood is counted, and few of its packets are reported.
#[test]
fn a_scrape_shows_how_many_drops_were_not_reported() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _daemon = start(&site, &filter)?;
    let suppressed = || {
        let page = scrape(&site.node)?;
        let value = page.sum("apifence_reports_suppressed_total", &[]);
        value.context("no such metric")
    };
    assert_eq!(suppressed()?, 0.0);
    let target = SocketAddr::new(ip(NODE[0]), PORT);
    let flood = SynSender::new(&site.unlisted, ip(UNLISTED[0]), target)?;
    wait::until("packets without a report", || Ok(suppressed()? > 100.0))?;
    flood.stop()
}

/// Only time passes: no process, no new generation.
#[test]
fn an_expired_range_is_not_counted() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _daemon = start(&site, &filter)?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--expires", "2s"])?;
    wait::until("the range expires", || {
        let page = scrape(&site.node)?;
        assert_eq!(page.sum("apifence_policy_generation", &[]), Some(2.0));
        Ok(listed(&page) == Some(1.0))
    })
}

#[test]
fn readiness_follows_the_kernel() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut daemon = start(&site, &filter)?;
    let state = || {
        let page = scrape(&site.node)?;
        page.check()?;
        let value = |name: &str, labels: &[(&str, &str)]| page.sum(name, labels);
        anyhow::Ok((
            get(&site.node, "/readyz")?,
            value("apifence_ready", &[]),
            value("apifence_enforcing", &[]),
            value("apifence_attached", &[("xdp_mode", "none")]),
        ))
    };
    let (answer, ready, enforcing, lost) = state()?;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    assert_eq!((ready, enforcing, lost), (Some(1.0), Some(1.0), None));

    // Another operator detaches the filter and attaches another program.
    let link = format!(
        "layout-{LAYOUT_VERSION}/interfaces/{}/link",
        site.node.ifindex(INTERFACE)?
    );
    daemon.signal(Signal::SIGSTOP)?;
    kernel::detach_link(&filter.bpffs().join(link))?;
    let mut foreign = Foreign::load()?;
    let foreign = site.node.run(|| foreign.attach(INTERFACE))?;
    daemon.signal(Signal::SIGCONT)?;
    wait::until("it is not ready", || Ok(state()?.0.status == 503))?;
    let (answer, ready, enforcing, lost) = state()?;
    assert!(answer.body.contains("`eth0` is not guarded"), "{answer:?}");
    assert_eq!((ready, enforcing, lost), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!(get(&site.node, "/healthz")?.status, 200);

    drop(foreign);
    wait::until("it is ready", || Ok(state()?.0.status == 200))?;
    let (answer, ready, enforcing, lost) = state()?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((ready, enforcing, lost), (Some(1.0), Some(1.0), None));

    // Monitor mode and the off switch are the operator's choice: nothing is enforced, and the node
    // is ready.
    filter.write_config("mode = 'monitor'\n")?;
    daemon.line(|line| line.contains("config applied"))?;
    let page = scrape(&site.node)?;
    assert_eq!(page.sum("apifence_enforcing", &[]), Some(0.0));
    let mode = |page: &Page, mode| page.sum("apifence_policy_mode", &[("mode", mode)]);
    assert_eq!(mode(&page, "monitor"), Some(1.0));
    filter.ok(&["ranges", "clear"])?;
    let (answer, ready, enforcing, _) = state()?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((ready, enforcing), (Some(1.0), Some(0.0)));
    assert_eq!(mode(&scrape(&site.node)?, "off"), Some(1.0));

    // Pins that are moved away come back, because `run` holds the objects.
    let layout = filter.bpffs().join(format!("layout-{LAYOUT_VERSION}"));
    fs::rename(&layout, filter.bpffs().join("elsewhere"))?;
    wait::until("they are back", || {
        Ok(layout.join("maps").exists() && state()?.0.status == 200)
    })?;

    daemon.signal(Signal::SIGTERM)?;
    ends(&mut daemon)
}

#[test]
fn other_requests_are_refused() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let _daemon = start(&site, &filter)?;
    for path in ["/metrics/", "/debug", "/metricsx"] {
        assert_eq!(get(&site.node, path)?.status, 404, "{path}");
    }
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        let answer = request(&site.node, "POST", path)?;
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.header.contains("allow: get, head"), "{answer:?}");
        let answer = request(&site.node, "HEAD", path)?;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    let landing = get(&site.node, "/")?;
    assert!(
        landing.header.contains("content-type: text/html"),
        "{landing:?}"
    );
    for link in ["metrics", "readyz", "healthz"] {
        let link = format!("href=\"{link}\"");
        assert!(landing.body.contains(&link), "{landing:?}");
    }
    let answer = get(&site.node, "/metrics?anything")?;
    let format = "content-type: text/plain; version=0.0.4";
    assert!(answer.header.contains(format), "{answer:?}");
    Ok(())
}

#[test]
fn a_taken_port_does_not_open_the_other() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let taken = site.node.run(|| TcpListener::bind(ENDPOINT))?;
    let mut daemon = filter.start(&RUN)?;
    let warning = daemon.line(|line| line.starts_with("warning: listen on"))?;
    assert!(warning.contains(ENDPOINT), "{warning}");
    daemon.line(|line| line.starts_with("hint: "))?;
    daemon.line(|line| line.contains("guarding"))?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V4, PORT)?;

    drop(taken);
    ready(&site.node, &mut daemon)?;
    daemon.signal(Signal::SIGTERM)?;
    ends(&mut daemon)
}

/// With port 0 the kernel chooses the port, so the log must name it.
#[test]
fn a_port_that_the_kernel_chose_is_logged() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let anywhere = ["--metrics-listen", "127.0.0.1:0"];
    let mut daemon = filter.start(&[&RUN[..], &anywhere].concat())?;
    let line = daemon.line(|line| line.contains("metrics at"))?;
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let address: SocketAddr = address.unwrap_or_default().parse()?;
    site.node
        .run(|| std::net::TcpStream::connect(address))
        .map(drop)?;
    Ok(())
}

#[test]
fn nothing_is_served_without_a_listen_address() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut daemon = filter.start(&[&RUN[..], &["--metrics-listen", "off"]].concat())?;
    // `run` listens before it attaches, wherever it does.
    let log = daemon.log_until("guarding")?;
    assert!(!log.contains("metrics at"), "{log}");
    assert!(connect(&site.node).is_err());
    Ok(())
}

#[test]
fn clients_that_hang_cost_little_and_block_no_other_client() -> Result<()> {
    /// Maximum number of simultaneous connections.
    const SERVED: usize = 32;
    let (site, filter) = Site::unguarded()?;
    let mut daemon = start(&site, &filter)?;
    let descriptors = format!("/proc/{}/fd", daemon.pid());
    let open_files = || anyhow::Ok(fs::read_dir(&descriptors)?.count());
    let before = open_files()?;

    let mut clients = Vec::new();
    for client in 0..3 * SERVED {
        let mut stream = connect(&site.node)?;
        // Some clients send nothing, some send part of a request.
        if client % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ")?;
        }
        clients.push(stream);
    }
    // A new client is answered, and the oldest silent ones are closed.
    assert_eq!(get(&site.node, "/healthz")?.status, 200);
    scrape(&site.node)?.check()?;
    // Besides the connections, a read of the kernel's state has descriptors open for a moment, now
    // or at the first count.
    let open = open_files()?;
    assert!(
        open < before + SERVED + SERVED / 2,
        "{before} open files before, {open} now"
    );
    let mut end = [0; 1];
    assert_eq!(clients.remove(0).read(&mut end).unwrap_or(0), 0);

    // A client that never reads the answer, and one that sends nothing: neither delays the end.
    connect(&site.node)?.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
    clients.push(connect(&site.node)?);
    daemon.signal(Signal::SIGTERM)?;
    ends(&mut daemon)?;
    assert_eq!(filter.status("state")?, "enforcing");
    Ok(())
}
