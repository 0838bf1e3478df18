//! `state.json`: whole or absent, never through a link of another user, and true.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::json;
use tests::{
    cli::Background,
    scrape::until_ready,
    site::{INTERFACE, Site, UNLISTED},
    wait::until,
};

use super::{Node, PORT, V4, WRITER, followed, start};

#[test]
fn it_tells_what_status_does_and_is_for_every_user() -> Result<()> {
    let (site, node, daemon, _server) = followed("ports = [6443, 443]\n")?;
    until("it is there", || Ok(node.state()?["state"] == "enforcing"))?;
    node.until_in_force("default", node.filter.ranges_file())?;
    let state = node.state()?;
    ensure!(
        state["schema"] == 1 && state["ports"] == json!([443, 6443]),
        "{state:#}"
    );
    ensure!(state["pid"] == daemon.pid().as_raw(), "{state:#}");
    let version = node.filter.ok(&["--version"])?;
    ensure!(
        version
            .trim()
            .ends_with(state["version"].as_str().context("a version")?)
    );
    let interfaces = state["interfaces"].as_array().context("interfaces")?;
    ensure!(
        interfaces.len() == 1 && interfaces[0]["name"] == INTERFACE,
        "{state:#}"
    );
    ensure!(
        interfaces[0]["guarded"] == true && interfaces[0]["hook"].is_string(),
        "{state:#}"
    );
    ensure!(state["trial_until"].is_null(), "{state:#}");
    let default = json!({
        "name": "default", "sha256": Node::sha256(node.filter.ranges_file())?,
        "ranges": 2, "expired": 0, "fault": null,
    });
    ensure!(state["lists"] == json!([default]), "{state:#}");
    let codes = state["warnings"].as_array().context("warnings")?;
    ensure!(
        codes
            .iter()
            .all(|code| code.as_str().is_some_and(|code| code.starts_with('W')))
    );
    let directory = node.filter.runtime_dir();
    let file = directory.join("state.json");
    for (path, mode) in [(&directory, 0o755), (&file, 0o644)] {
        let found = fs::metadata(path)?;
        ensure!(
            (found.uid(), found.mode() & 0o777) == (0, mode),
            "{}",
            path.display()
        );
    }
    ensure!(
        fs::read_dir(&directory)?.count() == 1,
        "something is left over"
    );

    // It is written although nothing changes.
    let written = |state: &serde_json::Value| -> Result<Timestamp> {
        Ok(state["written"].as_str().context("a time")?.parse()?)
    };
    let before = written(&state)?;
    until("it is written again", || {
        Ok(written(&node.state()?)? > before)
    })?;
    let later = written(&node.state()?)?.duration_since(before);
    eprintln!("written again after {later:#}");
    ensure!(later.as_secs() <= 11, "{later:#}");

    node.filter.ok(&["monitor"])?;
    until("it tells the mode", || {
        Ok(node.state()?["state"] == "monitoring")
    })?;
    node.filter.ok(&["enforce"])?;
    node.filter.ok(&["ranges", "clear", "--force"])?;
    until("it tells that it is off", || {
        Ok(node.state()?["state"] == "off")
    })?;
    node.filter.ok(&["ranges", "rollback"])?;
    node.until_in_force("default", node.filter.ranges_file())?;

    // A process that ends leaves it, and its time tells.
    daemon.signal(Signal::SIGKILL)?;
    drop(daemon);
    let dead = node.state()?;
    let daemon = start(&site, &node)?;
    until("the next one writes it", || {
        Ok(node.state()?["pid"] == daemon.pid().as_raw())
    })?;
    ensure!(node.state()?["pid"] != dead["pid"]);
    node.until_in_force("default", node.filter.ranges_file())
}

#[test]
fn a_digest_is_that_of_the_bytes_in_force_also_during_a_trial() -> Result<()> {
    let (site, node, daemon, _server) = followed("")?;
    let file = node.directory().join("office");
    node.write("office", &format!("{}\n", UNLISTED[0]))?;
    node.until_in_force("kubernetes.office", &file)?;
    // Another text of the same list is in force as it is.
    node.write("office", &format!("# a comment\n{} # Kim\n", UNLISTED[0]))?;
    node.until_in_force("kubernetes.office", &file)?;
    // After a restart as well, where nothing changed, and where something did.
    drop(daemon);
    let daemon = start(&site, &node)?;
    until("it is told by the new one", || {
        Ok(node.state()?["pid"] == daemon.pid().as_raw())
    })?;
    node.until_in_force("kubernetes.office", &file)?;
    drop(daemon);
    node.write("office", "192.0.2.8\n")?;
    let daemon = start(&site, &node)?;
    node.until_in_force("kubernetes.office", &file)?;
    node.filter.ok(&["check", "192.0.2.8"])?;

    // A change of another list is on trial: this one is in force, and its next version waits.
    node.filter
        .ok(&["ranges", "add", "192.0.2.90", "--confirm-within", "1h"])?;
    until("the trial is told", || {
        Ok(node.state()?["trial_until"].is_string())
    })?;
    node.until_in_force("kubernetes.office", &file)?;
    node.until_fault("default", &["on trial"])?;
    node.write("office", "192.0.2.9\n")?;
    node.filter.ok(&["check", "192.0.2.8"])?;
    node.filter.ok(&["confirm"])?;
    node.until_in_force("kubernetes.office", &file)?;
    node.filter.ok(&["check", "192.0.2.9", "192.0.2.90"])?;
    node.until_in_force("default", node.filter.ranges_file())?;
    ensure!(node.state()?["trial_until"].is_null());

    // A broken config file: what is in force is told, and what is not.
    node.filter.write_config("nonsense\n")?;
    node.write("office", "192.0.2.10\n")?;
    node.until_in_force("kubernetes.office", &file)?;
    node.filter.ok(&["check", "192.0.2.10"])?;
    // After a restart what holds is the policy of before, and no file is known to be usable.
    drop(daemon);
    let daemon = start_broken(&node)?;
    node.until_fault(
        "kubernetes.office",
        &["its limits in the config file cannot be read"],
    )?;
    node.filter.ok(&["check", "192.0.2.10"])?;
    node.filter.write_config("")?;
    node.until_in_force("kubernetes.office", &file)?;
    drop(daemon);
    site.is_guarded(PORT)
}

fn start_broken(node: &Node) -> Result<Background> {
    let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    Ok(daemon)
}

#[test]
fn it_is_not_written_where_another_user_may_write() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let node = Node::new(filter)?;
    let directory = node.filter.runtime_dir();
    let victims = tempfile::tempdir()?;
    let own = || -> Result<()> {
        fs::create_dir(&directory)?;
        Ok(chown(&directory, Some(WRITER), None)?)
    };
    let writable = || -> Result<()> {
        fs::create_dir(&directory)?;
        Ok(fs::set_permissions(
            &directory,
            Permissions::from_mode(0o1777),
        )?)
    };
    let link = || -> Result<()> {
        symlink(victims.path(), &directory)?;
        Ok(lchown(&directory, Some(WRITER), None)?)
    };
    let file = || Ok(fs::write(&directory, "")?);
    let makes: [(&dyn Fn() -> Result<()>, &str); 4] = [
        (&own, "another user owns"),
        (&writable, "other users can write to"),
        (&link, "another user owns the link"),
        (&file, "not a directory"),
    ];
    for (host, (make, words)) in (200..).zip(makes) {
        make()?;
        let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
        let log = daemon.line(|line| line.contains("state.json"))?;
        ensure!(log.starts_with("warning: ") && log.contains(words), "{log}");
        // It works on.
        node.write("office", &format!("{}\n", UNLISTED[0]))?;
        site_lets_in(&site, &node)?;
        ensure!(
            !directory.join("state.json").exists()
                && fs::read_dir(victims.path())?.next().is_none()
        );
        node.write("office", "empty\n")?;
        node.filter.until_authorized(UNLISTED[0], false)?;
        // There is one warning, and it is written as soon as it can be.
        let _ = fs::remove_file(&directory).or_else(|_| fs::remove_dir(&directory));
        until("it is written", || Ok(!node.state()?.is_null()))?;
        let end = format!("192.0.2.{host}");
        node.filter.write_list_of("end", format!("{end}\n"))?;
        let log = daemon.log_until(&format!("+{end}/32"))?;
        ensure!(!log.contains("state.json"), "{log}");
        drop(daemon);
        fs::remove_dir_all(&directory)?;
    }

    // What lies in its place is replaced, and no link is followed.
    fs::create_dir(&directory)?;
    let victim = victims.path().join("victim");
    fs::write(&victim, "root's\n")?;
    symlink(&victim, directory.join("state.json"))?;
    symlink(&victim, directory.join(".state.json.new"))?;
    let _daemon = start(&site, &node)?;
    until("it is written", || {
        Ok(directory.join("state.json").symlink_metadata()?.is_file())
    })?;
    ensure!(fs::read_to_string(&victim)? == "root's\n");
    Ok(())
}

fn site_lets_in(site: &Site, node: &Node) -> Result<()> {
    node.filter.until_authorized(UNLISTED[0], true)?;
    site.unlisted_gets_in(V4, PORT).map(drop)
}

#[test]
fn a_runtime_directory_that_cannot_be_written_is_one_warning() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let node = Node::new(filter)?;
    let directory = node.filter.runtime_dir();
    fs::create_dir(&directory)?;
    mount(&["--bind"], &directory)?;
    mount(&["-o", "remount,bind,ro"], &directory)?;
    let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("read-only file system"))?;
    node.write("office", &format!("{}\n", UNLISTED[0]))?;
    site_lets_in(&site, &node)?;
    until_ready(&site.node)?;
    ensure!(node.state()?.is_null());
    drop(daemon);
    ensure!(Command::new("umount").arg(&directory).status()?.success());
    let _daemon = start(&site, &node)?;
    node.until_in_force("kubernetes.office", &node.directory().join("office"))
}

/// Mounts a directory on itself, in the mount namespace of this thread.
fn mount(flags: &[&str], directory: &Path) -> Result<()> {
    let mut mount = Command::new("mount");
    let status = mount.args(flags).args([directory, directory]).status()?;
    ensure!(status.success(), "mount {flags:?} failed");
    Ok(())
}

#[test]
fn it_is_whole_whenever_it_is_read() -> Result<()> {
    let (_site, node, _daemon, _server) = followed("")?;
    until("it is there", || Ok(!node.state()?.is_null()))?;
    let path = node.filter.runtime_dir().join("state.json");
    let began = SystemTime::now();
    let (mut reads, mut versions, mut last) = (0, 0, String::new());
    let mut host = 0;
    while began.elapsed()? < Duration::from_secs(5) {
        if reads % 2000 == 0 {
            host += 1;
            node.write("office", &format!("192.0.2.{host}\n"))?;
        }
        let text = fs::read_to_string(&path)?;
        let state: serde_json::Value = serde_json::from_str(&text).context(text.clone())?;
        ensure!(state["schema"] == 1);
        versions += u32::from(text != last);
        last = text;
        reads += 1;
    }
    eprintln!("{reads} reads of {versions} versions");
    ensure!(versions > 2, "{versions}");
    Ok(())
}
