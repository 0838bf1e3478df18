//! Files that cannot be replaced, and files, names and peers with characters that a terminal would
//! obey.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use tests::{
    cli::{Apifence, FAILED, refused},
    netns::Namespace,
    scrape::get,
    site::{Family, INTERFACE, Site},
    wait::until,
};

/// The list in the file.
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const PORT: u16 = 443;

/// A bind mount that ends with the value.
struct Bound<'a>(&'a Path);

impl<'a> Bound<'a> {
    fn new(path: &'a Path, read_only: bool) -> Result<Self> {
        mount(
            Some(path),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        let bound = Self(path);
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
        }
        Ok(bound)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        // It ends with the mount namespace, too.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn no_success_is_reported_if_the_file_cannot_be_replaced() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let file = filter.ranges_file().to_owned();
    let before = filter.json(&["ranges", "list"])?["ranges"]
        .as_array()
        .map(Vec::len);
    let folder = file.parent().context("no folder")?.to_owned();
    for (mounted, read_only, words) in [
        (&file, false, "it is a mount of its own"),
        (&file, true, "it is a mount of its own"),
        (&folder, true, "cannot be written: read-only file system"),
    ] {
        let _bound = Bound::new(mounted, read_only)?;
        for command in [
            &["ranges", "add", "192.0.2.1"][..],
            &["ranges", "set", "192.0.2.1,198.51.100.0/24"],
            &["ranges", "add", "192.0.2.1", "--confirm-within", "60s"],
            &["ranges", "remove", "2001:db8:aa::/48"],
            &["ranges", "clear", "--force"],
        ] {
            let ran = filter.run(command)?;
            refused(&ran, FAILED, &[words])?;
            ran.stderr_has(&["nothing changed"])?;
            ran.stderr_lacks(&["added"])?;
            ensure!(fs::read_to_string(&file)? == LIST, "{ran}");
        }
        // A change that leaves the file as it is needs no other file.
        filter.ok(&["ranges", "reload"])?;
        filter.ok(&["ranges", "add", "192.0.2.1", "--dry-run"])?;
        let now = filter.json(&["ranges", "list"])?["ranges"]
            .as_array()
            .map(Vec::len);
        assert_eq!(now, before);
    }
    filter.ok(&["ranges", "add", "192.0.2.1"]).map(drop)
}

#[test]
fn a_rewrite_keeps_the_owner_of_the_file() -> Result<()> {
    let node = Namespace::new("node")?;
    let filter = Apifence::new(&node)?;
    let file = filter.ranges_file();
    fs::write(file, LIST)?;
    chown(file, Some(1234), Some(4321))?;
    fs::set_permissions(file, Permissions::from_mode(0o640))?;
    // user::rw-, user:1000:r--, group::r--, mask::r--, other::---
    let entries = [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let attributes = [
        ("system.posix_acl_access", acl),
        ("trusted.apifence", b"kept".to_vec()),
    ];
    for (name, value) in &attributes {
        xattr::set(file, name, value)?;
    }
    let own = || -> Result<_> {
        let metadata = fs::metadata(file)?;
        let values: Vec<_> = attributes
            .iter()
            .map(|(name, _)| xattr::get(file, name))
            .collect::<Result<_, _>>()?;
        Ok((
            metadata.uid(),
            metadata.gid(),
            metadata.mode() & 0o7777,
            values,
        ))
    };
    let before = own()?;
    assert_eq!((before.0, before.1, before.2), (1234, 4321, 0o640));
    for command in [
        &["ranges", "add", "192.0.2.1"][..],
        &["ranges", "remove", "192.0.2.1"],
        &["ranges", "set", "192.0.2.0/24"],
        &["ranges", "rollback"],
        &["ranges", "clear"],
    ] {
        let ran = filter.run(command)?.succeeded()?;
        assert_eq!(own()?, before, "{ran}");
    }
    Ok(())
}

/// Requires that it has no character that a terminal obeys or does not show.
fn clean(what: &str, text: &str) -> Result<()> {
    let bad = |letter: &char| {
        *letter != '\n' && letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let found = text.chars().find(bad);
    ensure!(found.is_none(), "{what}: {found:?} in {text:?}");
    Ok(())
}

#[test]
fn a_terminal_gets_nothing_that_it_obeys() -> Result<()> {
    const EVIL: &str = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\t";
    const NAME: &str = "e\x1b[31mvil\x07";
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let mut add = Command::new("ip");
    add.args(["link", "add", NAME, "type", "veth", "peer", "name", "other"]);
    let added = site.node.output(&mut add)?;
    ensure!(added.status.success(), "{added:?}");
    let mut up = Command::new("ip");
    up.args(["link", "set", NAME, "up"]);
    ensure!(site.node.output(&mut up)?.status.success());
    filter.write_list(format!("{LIST}192.0.2.1 # {EVIL}\n"))?;
    filter.ok(&["attach", "--interface", INTERFACE, "--interface", NAME])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    let list = filter.ok(&["ranges", "list"])?;
    ensure!(list.contains(r"\u{1b}]0;owned\u{7}"), "{list}");
    let status = filter.ok(&["status"])?;
    ensure!(status.contains(r"e\u{1b}[31mvil\u{7}"), "{status}");
    // JSON contains the characters, escaped.
    let rows = filter.json(&["ranges", "list"])?;
    let comment = |row: &serde_json::Value| row["comment"] == EVIL.trim();
    ensure!(
        rows["ranges"]
            .as_array()
            .is_some_and(|rows| rows.iter().any(comment)),
        "{rows}"
    );

    let evil = filter.ranges_file().with_file_name("evil\x1b[31m");
    fs::write(
        &evil,
        format!("{EVIL}\n10.0.0.1/8 {EVIL}\n10.0.0.0/8 # \r {EVIL}\n"),
    )?;
    let evil = evil.display().to_string();
    let commands: [&[&str]; 17] = [
        &["status"],
        &["ranges", "list"],
        &["ranges", "history"],
        &["stats"],
        &["top"],
        &["check", "192.0.2.1", "203.0.113.9"],
        &["suggest"],
        &["events", "--recent"],
        &["config"],
        &["ranges", "set", "--from-file", &evil],
        &["ranges", "add", EVIL],
        &["ranges", "add", "192.0.2.2", "--comment", EVIL],
        &["ranges", "add", "192.0.2.2", "--expires", EVIL],
        &["check", EVIL],
        &[EVIL],
        &["attach", "--mode", EVIL],
        &["attach", "--interface", EVIL],
    ];
    let every = |commands: &[&[&str]]| -> Result<()> {
        for command in commands {
            for format in [&[][..], &["-o", "json"]] {
                let ran = filter.run(&[format, command].concat())?;
                clean(&format!("{command:?}: stdout"), &ran.stdout)?;
                clean(&format!("{command:?}: stderr"), &ran.stderr)?;
            }
        }
        Ok(())
    };
    every(&commands)?;
    // The same for broken files; a line break in a value does not start a line of ours.
    filter.write_list(format!("{LIST}{EVIL}\n"))?;
    filter.write_config("mode = \"a\\nerror: b\\u001b[31m\"\ninterfaces = [\"eth0\\nerror: b\"]\nports = [\"\\u001b\\u202e\"]\n\"k\\u001bey\" = 1\n",
    )?;
    every(&commands)?;
    let said = filter.run(&["config"])?;
    ensure!(
        !said.stderr.contains("\nerror: b") && !said.stdout.contains("\nerror: b"),
        "{said}"
    );
    let mut daemon = filter.start(&["run", "--metrics-listen", "127.0.0.1:9464"])?;
    let log = daemon.log_until("metrics at")?;
    clean("log", &log)?;
    until("it is not ready", || {
        Ok(get(&site.node, "/readyz").is_ok_and(|answer| answer.status == 503))
    })?;
    clean("/readyz", &get(&site.node, "/readyz")?.body)?;
    daemon.signal(Signal::SIGTERM)?;
    let log = daemon.log_until("stays on").unwrap_or_default();
    clean("log", &log)?;

    // Our own output stays as it is.
    let script = filter.ok(&["completions", "bash"])?;
    ensure!(
        script.contains("complete -F") && !script.contains("\\u{"),
        "{script}"
    );
    Ok(())
}
