//! Errors of apifence: each with its own message, a hint, an exit code, and no change.

use std::{fs, process::Command};

use anyhow::Result;
use filter_common::layout::LAYOUT_VERSION;
use tests::{
    cli::{Apifence, FAILED, INPUT, refused, words},
    foreign::{self, Foreign},
    net::Echo,
    netns::Namespace,
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
};

#[test]
fn a_foreign_program_is_not_displaced() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut foreign = Foreign::load()?;
    let id = format!("xdp id {}", foreign.id()?);
    let is_there = || {
        anyhow::Ok(
            site.node
                .ip(&format!("link show dev {INTERFACE}"))?
                .contains(&id),
        )
    };
    foreign.pin("/sys/fs/bpf/foreign")?;

    for mode in ["xdp", "xdpgeneric", "link"] {
        let link = match mode {
            "link" => Some(site.node.run(|| foreign.attach(INTERFACE))?),
            mode => {
                site.node.ip(&format!(
                    "link set dev {INTERFACE} {mode} pinned /sys/fs/bpf/foreign"
                ))?;
                None
            }
        };
        for xdp_mode in ["auto", "native", "generic"] {
            let ran = filter.run(&[&ATTACH[..], &["--xdp-mode", xdp_mode]].concat())?;
            refused(&ran, FAILED, &[INTERFACE, foreign::PROGRAM])?;
            assert!(
                is_there()?,
                "{mode}: displaced by attach --xdp-mode {xdp_mode}"
            );
        }
        filter.ok(&["detach"])?;
        assert!(is_there()?, "{mode}: removed by detach");
        assert!(!filter.bpffs().exists(), "pins are left");
        match link {
            Some(link) => drop(link),
            None => drop(
                site.node
                    .ip(&format!("link set dev {INTERFACE} {mode} off"))?,
            ),
        }
        tests::wait::until("the foreign program is off", || Ok(!is_there()?))?;
    }
    filter.ok(&ATTACH)?;
    Ok(())
}

#[test]
fn pins_of_another_layout_are_refused_by_all_commands_but_attach() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&ATTACH)?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    // The same pins, as a later version would make them.
    fs::rename(
        filter.bpffs().join(format!("layout-{LAYOUT_VERSION}")),
        filter.bpffs().join("layout-999"),
    )?;

    for command in [
        &["status"][..],
        &["detach", "--interface", INTERFACE],
        &["stats"],
        &["ranges", "list"],
        &["ranges", "clear"],
        &["check", "::2"],
    ] {
        let ran = filter.run(command)?;
        refused(&ran, FAILED, &["layout 999", "apifence"])?;
        assert!(
            ran.stderr.contains("`apifence attach` or"),
            "the way out is not named; {ran}"
        );
    }
    tests::net::silent(
        &site.unlisted,
        tests::site::ip(UNLISTED[0]),
        tests::site::at(tests::site::NODE[0], 443),
    )?;

    filter.ok(&["detach"])?;
    assert!(!filter.bpffs().exists(), "pins are left");
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&ATTACH)?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)
}

#[test]
fn a_missing_bpffs_is_named() -> Result<()> {
    let site = Site::new()?;
    let elsewhere = tempfile::TempDir::new()?;
    let filter = Apifence::new(&site.node)?.with_bpffs(elsewhere.path().join("apifence"));
    let ran = filter.run(&ATTACH)?;
    refused(
        &ran,
        FAILED,
        &["bpffs", &elsewhere.path().display().to_string()],
    )?;
    assert!(
        ran.stderr.contains("mount -t bpf"),
        "the way out is not named; {ran}"
    );
    assert_eq!(
        fs::read_dir(elsewhere.path())?.count(),
        0,
        "something was made there"
    );
    assert!(!filter.ranges_file().exists(), "a list was written");
    Ok(())
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let ran = filter.run(&words(&format!(
        "attach --interface eth7 --authorized-ip-ranges {ADMIN_RANGES}"
    )))?;
    refused(&ran, INPUT, &["`eth7`"])?;
    assert!(
        ran.stderr
            .contains("did you mean `eth0`? this host has `lo`, `eth0`"),
        "the hint does not name those there are; {ran}"
    );
    // One of several interfaces: all or nothing.
    let ran = filter.run(&[&ATTACH[..], &["--interface", "eth7"]].concat())?;
    refused(&ran, INPUT, &["`eth7`"])?;
    assert_eq!(filter.status("state")?, "detached");
    assert!(!filter.ranges_file().exists(), "a list was written");
    // The config file is written by hand as well.
    filter.write_config("interfaces = ['nowhere']\n")?;
    let ran = filter.run(&["attach", "--authorized-ip-ranges", ADMIN_RANGES])?;
    refused(&ran, INPUT, &["`nowhere`"])?;
    assert!(!ran.stderr.contains("meant"), "nothing is like it; {ran}");
    filter.write_config("")?;
    filter.ok(&ATTACH)?;
    for words in [
        &["detach", "--interface", "eth7"][..],
        &["detach", "--interface", "eth0,eth7"],
        &["events", "--interface", "eth7"],
        &["events", "--recent", "--interface", "eth7"],
    ] {
        let ran = filter.run(words)?;
        refused(&ran, INPUT, &["`eth7`: no such interface"])?;
        assert!(ran.stderr.contains("did you mean `eth0`?"), "{ran}");
    }
    assert_eq!(filter.status("state")?, "enforcing");
    // An interface that is gone is known by its index.
    filter.ok(&["events", "--recent", "--interface", "#7"])?;
    Ok(())
}

#[test]
fn without_a_default_route_an_interface_must_be_named() -> Result<()> {
    let lonely = Namespace::new("lonely")?;
    let filter = Apifence::new(&lonely)?;
    refused(
        &filter.run(&["attach", "--authorized-ip-ranges", ADMIN_RANGES])?,
        FAILED,
        &["default route"],
    )
    .or_else(|_| {
        refused(
            &filter.run(&["attach", "--authorized-ip-ranges", ADMIN_RANGES])?,
            INPUT,
            &["default route"],
        )
    })
}

#[test]
fn the_interfaces_of_the_default_routes_are_guarded_if_none_is_named() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    filter.ok(&["attach", "--authorized-ip-ranges", ADMIN_RANGES])?;
    let status = filter.json(&["status"])?;
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["interfaces"][0]["interface"], INTERFACE);
    Ok(())
}

#[test]
fn a_user_who_is_not_root_gets_the_command_for_root() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    for (words, verb) in [
        (&["status"][..], "status"),
        (&["check", "192.0.2.1"], "check"),
        (&["ranges", "list"], "ranges list"),
    ] {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        let ran = filter.run_by(other, words)?;
        let cause = format!("error: `apifence {verb}` needs root");
        refused(&ran, FAILED, &[&cause])?;
        let hint = format!("hint: `sudo apifence {}`\n", words.join(" "));
        ran.stderr_has(&[&hint])?;
    }
    Ok(())
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let powerless = |arguments: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--bounding-set=-all", "--inh-caps=-all"]);
        filter.run_by(setpriv, arguments)
    };
    let ran = powerless(&ATTACH)?;
    refused(&ran, FAILED, &["operation not permitted"])?;
    assert!(
        ran.stderr.contains("CAP_BPF") && ran.stderr.contains("root"),
        "the way out is not named; {ran}"
    );
    assert!(!filter.bpffs().exists(), "pins are left");

    let _server = Echo::new(&site.node, 443)?;
    filter.ok(&ATTACH)?;
    for command in [
        &ATTACH[..],
        &["ranges", "clear"],
        &["ranges", "add", UNLISTED[0]],
        &["status"],
    ] {
        let ran = powerless(command)?;
        // Linux 6.18 opens root's pins without a capability, older kernels for CAP_BPF.
        if command == ["status"] && ran.code == Some(0) {
            continue;
        }
        refused(&ran, FAILED, &["operation not permitted"])?;
        assert!(
            ran.stderr.contains("CAP_BPF"),
            "the way out is not named; {ran}"
        );
        site.unlisted_is_dropped(Family::V4, 443, &filter)?;
        site.admin_gets_in(Family::V4, 443)?;
    }
    Ok(())
}

#[test]
fn commands_that_need_a_filter_say_so() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    for command in [&["check", "192.0.2.1"][..], &["stats"]] {
        let ran = filter.run(command)?;
        refused(&ran, FAILED, &["no filter is attached"])?;
    }
    refused(
        &filter.run(&ATTACH[..3])?,
        INPUT,
        &["ranges", "no such file"],
    )?;
    assert!(!filter.bpffs().exists(), "pins are left");
    // The list can be written beforehand.
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    filter.ok(&["ranges", "add", UNLISTED[0], "--comment", "a friend"])?;
    assert_eq!(filter.status("state")?, "detached");
    filter.ok(&ATTACH[..3])?;
    filter.ok(&["check", UNLISTED[0], UNLISTED[0]]).map(drop)
}

/// The pins of the maps are removed: the filter goes on, no command claims to change it, and an
/// attach repairs it.
#[test]
fn lost_maps_are_noticed_and_repaired() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(443)?;
    let list = fs::read(filter.ranges_file())?;
    // The pins are in this thread's own mount namespace.
    fs::remove_dir_all(filter.bpffs().join(format!("layout-{LAYOUT_VERSION}/maps")))?;
    for command in [&["ranges", "add", UNLISTED[0]][..], &["check", ADMIN[0]]] {
        refused(
            &filter.run(command)?,
            FAILED,
            &["the maps of the attached filter are gone"],
        )?;
    }
    assert_eq!(filter.status("state")?, "unknown");
    assert_eq!(fs::read(filter.ranges_file())?, list);
    // The counters are among the maps.
    tests::net::silent(
        &site.unlisted,
        tests::site::ip(UNLISTED[0]),
        tests::site::at(tests::site::NODE[0], 443),
    )?;

    filter.ok(&ATTACH[..3])?;
    assert_eq!(filter.status("state")?, "enforcing");
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    site.admin_gets_in(Family::V4, 443)?;
    filter.ok(&["ranges", "add", UNLISTED[0]])?;
    site.unlisted_gets_in(Family::V4, 443).map(drop)
}

/// An unset variable is an empty word: it must not open the port.
#[test]
fn an_empty_list_opens_only_with_force() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    let set = ["ranges", "set"];
    let typed = ["attach", "--interface", INTERFACE, "--authorized-ip-ranges"];
    let alias = ["attach", "--api-server-authorized-ip-ranges"];
    refused(&filter.run(&["ranges", "set", ""])?, INPUT, &["empty"])?;
    assert!(!filter.ranges_file().exists(), "a list was written");
    refused(
        &filter.run(&[&typed[..], &[""]].concat())?,
        INPUT,
        &["empty"],
    )?;
    assert_eq!(filter.status("state")?, "detached");

    filter.ok(&ATTACH)?;
    let list = fs::read(filter.ranges_file())?;
    for words in [&set[..], &typed, &alias] {
        for empty in ["", " ", ",", " , ", "\n"] {
            let words = [words, &[empty]].concat();
            for more in [&[][..], &["--dry-run"], &["--confirm-within", "1m"]] {
                let ran = filter.run(&[&words[..], more].concat())?;
                refused(&ran, INPUT, &["the list is empty"])?;
                assert!(
                    ran.stderr.contains("`apifence ranges clear`"),
                    "the way is not named; {ran}"
                );
            }
        }
        // A comma is not empty: two variables are unset.
        refused(
            &filter.run(&[words, &[",", "--force"]].concat())?,
            INPUT,
            &["the list is empty"],
        )?;
    }
    for words in [
        &["ranges", "set", "--from-file", "/dev/null", "--force"][..],
        &["ranges", "set", "--from-file", "-", "--force"],
        &["ranges", "add", ""],
        &["ranges", "add", "192.0.2.1,,"],
        &["ranges", "add", "", "--force"],
        &["ranges", "remove", ""],
        &words("ranges remove 198.51.100.0/24,2001:db8:aa::/48 --force"),
        &["ranges", "set", "192.0.2.1,,192.0.2.2"],
    ] {
        refused(&filter.run(words)?, INPUT, &[])?;
    }
    let ran = filter.run(&["detach", "--interface", ""])?;
    assert_ne!(ran.code, Some(0), "{ran}");
    assert_eq!(fs::read(filter.ranges_file())?, list);
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;

    filter.ok(&["ranges", "set", "", "--force"])?;
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&ATTACH)?;
    site.unlisted_is_dropped(Family::V4, 443, &filter)?;
    filter.ok(&[&typed[..], &["", "--force"]].concat())?;
    site.unlisted_gets_in(Family::V4, 443).map(drop)
}

/// No operator is there to insist.
#[test]
fn an_empty_list_that_run_is_started_with_counts_as_none() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    for empty in ["", ","] {
        let words = [
            "run",
            "--interface",
            INTERFACE,
            "--authorized-ip-ranges",
            empty,
        ];
        let mut run = filter.start(&words)?;
        run.line(|line| line.contains("`--authorized-ip-ranges` is empty"))?;
        run.line(|line| line.contains("guarding"))?;
        site.unlisted_is_dropped(Family::V4, 443, &filter)?;
        site.admin_gets_in(Family::V4, 443)?;
    }
    Ok(())
}

/// The error names the limit, whichever open failed.
#[test]
fn too_few_descriptors_are_named() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(6443)?;
    let mut seen = 0;
    for words in [
        &["status"][..],
        &["ranges", "add", "192.0.2.1"],
        &["monitor"],
        &["attach"],
    ] {
        for most in (7..40).step_by(4) {
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={most}"));
            let ran = filter.run_by(limited, words)?;
            if !ran.stderr.contains("error: ") || !ran.stderr.contains("too many open files") {
                continue;
            }
            seen += 1;
            assert!(
                ran.stderr.contains("`ulimit -n 1024`"),
                "with {most}: {ran}"
            );
            site.admin_gets_in(Family::V4, 6443)?;
        }
        filter.ok(&["enforce"])?;
    }
    assert!(seen > 8, "{seen} were refused");
    site.unlisted_is_dropped(Family::V4, 6443, &filter)
}
