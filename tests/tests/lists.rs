//! The list changes as a whole, in the file and in the kernel, or not at all.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use filter_common::layout::LAYOUT_VERSION;
use tests::{
    cli::{FAILED, INPUT, refused, words},
    foreign::Foreign,
    peer::Peer,
    site::{ADMIN_RANGES, ATTACH, Family, INTERFACE, Site, UNLISTED},
};

#[test]
fn a_bad_ranges_file_never_opens_the_port() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(443)?;
    site.unlisted_gets_in(Family::V4, 443)?;
    filter.ok(&ATTACH)?;
    let good = fs::read(filter.ranges_file())?;
    let attach = &ATTACH[..3];
    let bad: [(&str, Option<&[u8]>); 9] = [
        ("missing", None),
        ("empty", Some(b"")),
        ("blank", Some(b"\n\n  \n")),
        ("comments alone", Some(b"# 198.51.100.0/24\n")),
        ("cut", Some(b"198.51.100.0/24\n203.0.113.")),
        (
            "cut inside a prefix length",
            Some(b"198.51.100.0/24\n203.0.113.9/3"),
        ),
        ("garbage", Some(b"\x00\xff\xfe\x80\n")),
        ("off beside ranges", Some(b"disabled\n198.51.100.0/24\n")),
        ("host bits", Some(b"203.0.113.9/24\n")),
    ];
    for (what, bytes) in bad {
        match bytes {
            Some(bytes) => filter.write_list(bytes)?,
            None => fs::remove_file(filter.ranges_file())?,
        }
        for command in [
            attach,
            &["ranges", "add", "192.0.2.128/25"],
            &["ranges", "remove", "198.51.100.0/24"],
        ] {
            let ran = filter.run(command)?;
            ensure!(matches!(ran.code, Some(INPUT | FAILED)), "{what}: {ran}");
            refused(&ran, ran.code.unwrap_or_default(), &["ranges"])?;
            let now = fs::read(filter.ranges_file()).ok();
            ensure!(
                now.as_deref() == bytes,
                "{what}: `{}` wrote {now:?}",
                command.join(" ")
            );
        }
        site.unlisted_is_dropped(Family::V4, 443, &filter)?;
        site.admin_gets_in(Family::V4, 443)?;
        let status = filter.ok(&["status"])?;
        ensure!(status.starts_with("● enforcing"), "{what}: {status}");
        ensure!(
            status.contains("stays in force"),
            "{what}: status does not say why; {status}"
        );
    }

    // The solution: an explicit list.
    filter.ok(&["ranges", "set", ADMIN_RANGES])?;
    assert_eq!(fs::read(filter.ranges_file())?, good);
    site.unlisted_is_dropped(Family::V4, 443, &filter)
}

#[test]
fn bad_input_changes_nothing() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let file = filter.list()?;
    let in_force = filter.json(&["ranges", "list"])?;
    let bad: [(&[&str], &[&str]); 12] = [
        (
            &["ranges", "add", "137.117.106.90/29"],
            &["137.117.106.90/29"],
        ),
        (&["ranges", "add", "10.0.0.0/33"], &["10.0.0.0/33"]),
        (&["ranges", "add", "example.com"], &["example.com"]),
        (
            &["ranges", "add", "192.0.2.128/25", "224.0.0.0/4"],
            &["224.0.0.0/4", "multicast"],
        ),
        (
            &["ranges", "add", "127.0.0.0/8"],
            &["127.0.0.0/8", "loopback"],
        ),
        (
            &["ranges", "add", "::ffff:192.0.2.1"],
            &["::ffff:192.0.2.1"],
        ),
        (&["ranges", "set", "0.0.0.0/32,192.0.2.1"], &["0.0.0.0/32"]),
        (&["ranges", "remove", "192.0.2.77"], &["192.0.2.77"]),
        (
            &words("attach --interface eth0 --authorized-ip-ranges 1.2.3.4/8"),
            &["1.2.3.4/8"],
        ),
        (
            &words("attach --interface eth0 --destination 1.2.3.4/8"),
            &["1.2.3.4/8", "--destination"],
        ),
        (
            &["attach", "--interface", INTERFACE, "--max-ranges", "1"],
            &["2", "1"],
        ),
        (&[&ATTACH[..], &["--max-ranges", "1"]].concat(), &["2", "1"]),
    ];
    for (command, named) in bad {
        refused(&filter.run(command)?, INPUT, named)?;
        assert_eq!(filter.list()?, file, "{command:?}");
        assert_eq!(filter.json(&["ranges", "list"])?, in_force, "{command:?}");
    }
    let ran = filter.run(&["ranges", "add", "137.117.106.90/29"])?;
    assert!(
        ran.stderr.contains("137.117.106.88/29"),
        "the fix is not named; {ran}"
    );
    let ran = filter.run(&["ranges", "add", "::ffff:192.0.2.1"])?;
    assert!(
        ran.stderr.contains("`192.0.2.1"),
        "the IPv4 form is not named; {ran}"
    );
    // Wrong usage, in clap's own words.
    for command in [
        &["attach", "--port", "0"][..],
        &["check"],
        &["check", "nobody"],
        &["fly"],
        &["ranges", "add"],
    ] {
        assert_eq!(filter.run(command)?.code, Some(INPUT), "{command:?}");
    }
    Ok(())
}

/// A list that cannot be written is not put in force; one that cannot be put in force is not
/// written.
#[test]
fn file_and_kernel_change_together_or_not_at_all() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(443)?;
    let file = filter.list()?;
    let unchanged = |command: &[&str]| {
        refused(&filter.run(command)?, FAILED, &[])?;
        assert_eq!(filter.list()?, file, "{command:?}");
        site.unlisted_is_dropped(Family::V4, 443, &filter)?;
        site.admin_gets_in(Family::V4, 443).map(drop)
    };
    let add = ["ranges", "add", UNLISTED[0]];

    // Read-only, like a ConfigMap.
    let folder = filter
        .ranges_file()
        .parent()
        .expect("a file is in a folder")
        .to_owned();
    let mount = |flags: &str| {
        let path = folder.display().to_string();
        let status = Command::new("mount")
            .args(flags.split(' '))
            .args([&path, &path])
            .status()?;
        ensure!(status.success(), "mount {flags} failed");
        anyhow::Ok(())
    };
    mount("--bind")?;
    mount("-o remount,bind,ro")?;
    unchanged(&add)?;
    unchanged(&["ranges", "clear"])?;
    unchanged(&words(&format!(
        "attach --interface {INTERFACE} --authorized-ip-ranges {0}",
        UNLISTED[0]
    )))?;
    ensure!(
        Command::new("umount").arg(&folder).status()?.success(),
        "umount failed"
    );

    // The kernel's half fails.
    let maps = filter.bpffs().join(format!("layout-{LAYOUT_VERSION}/maps"));
    let hidden = filter
        .bpffs()
        .join(format!("layout-{LAYOUT_VERSION}/hidden"));
    fs::rename(maps.join("SOURCES_V6"), &hidden)?;
    refused(&filter.run(&add)?, FAILED, &[])?;
    assert_eq!(filter.list()?, file);
    fs::rename(&hidden, maps.join("SOURCES_V6"))?;
    // A foreign program on one of two interfaces.
    let _peer = Peer::new(&site)?;
    let mut foreign = Foreign::load()?;
    let _link = site.node.run(|| foreign.attach("eth1"))?;
    unchanged(&words(&format!(
        "attach --interface eth0,eth1 --authorized-ip-ranges {0}",
        UNLISTED[0]
    )))?;
    // A mode that the last of two links cannot change to.
    unchanged(&words(&format!(
        "attach --interface {INTERFACE} --xdp-mode generic --authorized-ip-ranges {0}",
        UNLISTED[0]
    )))?;

    filter.ok(&add)?;
    site.unlisted_gets_in(Family::V4, 443).map(drop)
}

#[test]
fn one_writer_at_a_time_and_no_change_is_lost() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let addresses: Vec<_> = (1..=12).map(|host| format!("192.0.2.{host}")).collect();
    let mut writers = Vec::new();
    for address in &addresses {
        writers.push(filter.start(&["ranges", "add", address])?);
    }
    for writer in &mut writers {
        assert_eq!(writer.wait()?, Some(0));
    }
    let all: Vec<_> = ["check"]
        .into_iter()
        .chain(addresses.iter().map(String::as_str))
        .collect();
    filter.ok(&all)?;
    let file = filter.list()?;
    for address in &addresses {
        assert!(
            file.contains(&format!("{address}/32")),
            "{address} is not in the file"
        );
    }
    assert!(
        filter
            .status("drift")?
            .as_array()
            .is_some_and(Vec::is_empty)
    );

    // A process that does not release it.
    let lock = fs::File::open(filter.ranges_file().with_file_name(".ranges.lock"))?;
    lock.lock()?;
    let ran = filter.run(&["ranges", "clear"])?;
    refused(
        &ran,
        FAILED,
        &["lock", &format!("process {}", std::process::id())],
    )?;
    // Commands that only read still work.
    assert_eq!(filter.status("state")?, "enforcing");
    lock.unlock()?;
    filter.ok(&["ranges", "clear"]).map(drop)
}
