//! Directories of lists (`ranges.d/kubernetes/`), which another user may write, and `state.json`,
//! in which that user reads what is in force.

mod hostile;
mod state;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    cli::{Apifence, Background, INPUT, refused},
    net::Echo,
    scrape::{ready, scrape},
    site::{ADMIN_RANGES, Family, INTERFACE, Site, UNLISTED},
    wait::{until, while_it_lasts},
};

const PORT: u16 = 6443;
const V4: Family = Family::V4;
/// The user that writes the lists, as on a node.
const WRITER: u32 = 60843;

/// A node whose directory `kubernetes` belongs to [`WRITER`].
struct Node {
    filter: Apifence,
    _folder: TempDir,
}

impl Node {
    fn new(filter: Apifence) -> Result<Self> {
        let folder = TempDir::with_prefix("apf-")?;
        // The writer has to reach its directory.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let filter = filter.with_ranges_file(folder.path().join("ranges"));
        filter.write_list(ADMIN_RANGES.replace(',', "\n") + "\n")?;
        let node = Self {
            filter,
            _folder: folder,
        };
        fs::create_dir_all(node.directory())?;
        chown(node.directory(), Some(WRITER), Some(WRITER))?;
        Ok(node)
    }

    fn directory(&self) -> PathBuf {
        self.filter.list_file("kubernetes")
    }

    /// Runs a script as the writer, in its directory.
    fn writer(&self, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        let user = WRITER.to_string();
        command.args(["--pdeathsig", "KILL", "--reuid", &user, "--regid", &user]);
        command.args(["--clear-groups", "sh", "-euc", script]);
        command.current_dir(self.directory());
        command
    }

    fn by_writer(&self, script: &str) -> Result<()> {
        let output = self.writer(script).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{script}`: {said}");
        Ok(())
    }

    /// Replaces a file by rename, as the writer does.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        self.by_writer(&format!(
            "printf '%s' '{text}' > '.{name}.new'; mv '.{name}.new' '{name}'"
        ))
    }

    /// The digest of a file, as `state.json` has it.
    fn sha256(path: &Path) -> Result<Value> {
        let output = Command::new("sha256sum").arg(path).output()?;
        let text = String::from_utf8(output.stdout)?;
        let digest = text.split_whitespace().next().context("a digest")?;
        Ok(json!(digest))
    }

    /// `state.json`; null without it.
    fn state(&self) -> Result<Value> {
        match fs::read_to_string(self.filter.runtime_dir().join("state.json")) {
            Ok(text) => Ok(serde_json::from_str(&text).with_context(|| text.clone())?),
            Err(_) => Ok(Value::Null),
        }
    }

    /// What it tells of a list; null if it does not.
    fn told(&self, list: &str) -> Result<Value> {
        let state = self.state()?;
        let mut all = state["lists"].as_array().into_iter().flatten();
        Ok(all
            .find(|told| told["name"] == list)
            .cloned()
            .unwrap_or_default())
    }

    /// Waits until `state.json` tells that the file of a list is in force.
    fn until_in_force(&self, list: &str, path: &Path) -> Result<()> {
        let digest = Self::sha256(path)?;
        until(&format!("`{list}` is in force"), || {
            Ok(self.told(list)?["sha256"] == digest)
        })
    }

    /// Waits until it tells a fault of a list that has all of `words`.
    fn until_fault(&self, list: &str, words: &[&str]) -> Result<()> {
        until(&format!("`{list}`: {words:?}"), || {
            let fault = self.told(list)?["fault"].take();
            let fault = fault.as_str().unwrap_or_default();
            Ok(words.iter().all(|word| fault.contains(word)))
        })
    }
}

/// Replaces a file of root's in `ranges.d` by rename.
fn write_own(node: &Node, name: &str, text: &str) -> Result<()> {
    let file = node.filter.list_file(name);
    let new = file.with_file_name(".new");
    fs::create_dir_all(file.parent().context("a folder")?)?;
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

/// A node with `run`, `config` as its config file.
fn followed(config: &str) -> Result<(Site, Node, Background, Echo)> {
    let (site, filter, server) = Site::unguarded_server(PORT)?;
    filter.write_config(config)?;
    let node = Node::new(filter)?;
    let daemon = start(&site, &node)?;
    Ok((site, node, daemon, server))
}

fn start(site: &Site, node: &Node) -> Result<Background> {
    let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    Ok(daemon)
}

#[test]
fn a_file_is_in_force_and_told_within_a_second() -> Result<()> {
    let (site, node, mut daemon, _server) = followed("")?;
    let file = node.directory().join("office");
    let mut times = Vec::new();
    for round in 0..9 {
        let began = Instant::now();
        node.write("office", &format!("{}\n192.0.2.{round}\n", UNLISTED[0]))?;
        node.until_in_force("kubernetes.office", &file)?;
        times.push(began.elapsed());
        node.filter.ok(&["check", &format!("192.0.2.{round}")])?;
    }
    times.sort_unstable();
    eprintln!("a file is in force and told after {times:?}");
    ensure!(times[4] < Duration::from_millis(800), "{times:?}");
    site.unlisted_gets_in(V4, PORT)?;
    daemon.line(|line| line.contains("list files applied"))?;

    let filter = &node.filter;
    let state = filter.list_state("kubernetes.office")?;
    ensure!(
        state["owner"].as_str() == Some("60843")
            && state["ranges"] == 2
            && state["fault"].is_null(),
        "{state:#}"
    );
    ensure!(
        state["bounds"]["widest"] == json!({"ipv4": 8, "ipv6": 16}),
        "{state:#}"
    );
    let checked = filter.ok(&["check", UNLISTED[0]])?;
    ensure!(checked.contains("(list: kubernetes.office)"), "{checked}");
    let shown = filter.ok(&["status"])?;
    ensure!(shown.contains("kubernetes.office 2"), "{shown}");
    let page = scrape(&site.node)?;
    let labels = [("list", "kubernetes.office")];
    ensure!(page.sum("apifence_list_ranges", &labels) == Some(2.0));
    ensure!(page.sum("apifence_list_usable", &labels) == Some(1.0));
    Ok(())
}

#[test]
fn every_verb_takes_a_list_of_a_directory() -> Result<()> {
    let (site, node, _daemon, _server) = followed("")?;
    let filter = &node.filter;
    let list = ["--list", "kubernetes.office"];
    let ranges = |words: &[&str]| filter.ok(&[&["ranges"], &list[..], words].concat());
    node.write("office", &format!("{} # Kim\n", UNLISTED[0]))?;
    filter.until_authorized(UNLISTED[0], true)?;
    ranges(&["add", "192.0.2.7"])?;
    filter.ok(&["check", "192.0.2.7", UNLISTED[0]])?;
    let file = node.directory().join("office");
    let text = fs::read_to_string(&file)?;
    ensure!(
        text == format!("{} # Kim\n192.0.2.7/32\n", UNLISTED[0]),
        "{text}"
    );
    // The writer stays its owner.
    let found = fs::metadata(&file)?;
    ensure!(std::os::unix::fs::MetadataExt::uid(&found) == WRITER);
    node.until_in_force("kubernetes.office", &file)?;
    ensure!(
        filter
            .state_dir()
            .join("history/kubernetes.office")
            .is_dir()
    );
    ranges(&["rollback"])?;
    ensure!(filter.run(&["check", "192.0.2.7"])?.code == Some(1));
    ensure!(ranges(&["list"])?.contains(UNLISTED[0]));
    ensure!(ranges(&["history"])?.lines().count() > 1);
    // No list waits where another user may write.
    let trial = ["set", "192.0.2.6", "--confirm-within", "1h"];
    let ran = filter.run(&[&["ranges"], &list[..], &trial].concat())?;
    refused(&ran, INPUT, &["start trial", "list `kubernetes.office`"])?;
    ranges(&["delete"])?;
    ensure!(!file.exists());
    site.is_guarded(PORT)?;
    until("it is not told any more", || {
        Ok(node.told("kubernetes.office")?.is_null())
    })?;
    // Nothing is left of the lock, the new file and the rest but in the history.
    let left: Vec<_> = fs::read_dir(node.directory())?.flatten().collect();
    ensure!(left.is_empty(), "{left:?}");

    // In a directory of root's own a list can be on trial, and gets its directory from the change.
    while_it_lasts(|time| {
        let own = [
            "ranges",
            "--list",
            "own.office",
            "add",
            UNLISTED[0],
            "--confirm-within",
            time,
        ];
        filter.ok(&own)?;
        site.unlisted_gets_in(V4, PORT).map(drop)
    })?;
    filter.until_authorized(UNLISTED[0], false)?;
    filter.ok(&[
        "ranges",
        "--list",
        "own.office",
        "add",
        UNLISTED[0],
        "--confirm-within",
        "1h",
    ])?;
    filter.ok(&["confirm"])?;
    site.unlisted_gets_in(V4, PORT)?;
    ensure!(filter.list_file("own/office").is_file());
    Ok(())
}

#[test]
fn only_plain_names_are_lists() -> Result<()> {
    let (site, node, _daemon, _server) = followed("")?;
    let long = "x".repeat(63);
    let text = format!("{}\n", UNLISTED[0]);
    let too_long = "y".repeat(64);
    for name in [
        "office.bak",
        "office~",
        "#office#",
        "@nodes",
        "@office",
        &too_long,
    ] {
        node.write(name, &text)?;
    }
    write_own(&node, "old.d/office", &text)?;
    write_own(&node, "office.bak", &text)?;
    node.by_writer("mkdir inner; printf '203.0.113.9\n' > inner/office")?;
    node.write(&long, "192.0.2.77\n")?;
    node.filter.until_authorized("192.0.2.77", true)?;
    site.is_guarded(PORT)?;
    let state = node.filter.list_state(&format!("kubernetes.{long}"))?;
    ensure!(state["ranges"] == 1, "{state:#}");
    let lists = node.filter.json(&["ranges", "lists"])?;
    ensure!(
        lists["lists"].as_array().is_some_and(|all| all.len() == 2),
        "{lists:#}"
    );
    let expected = json!([
        "kubernetes/#office#",
        "kubernetes/office.bak",
        "kubernetes/office~",
        format!("kubernetes/{too_long}"),
        "office.bak"
    ]);
    ensure!(lists["ignored"] == expected, "{lists:#}");
    Ok(())
}

#[test]
fn an_empty_list_whose_file_is_gone_is_forgotten_and_another_stays() -> Result<()> {
    let (site, node, mut daemon, _server) = followed("")?;
    node.write("office", &format!("{}\n", UNLISTED[0]))?;
    node.write("guests", "empty\n")?;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    node.write("brief", &format!("192.0.2.9 expires={soon}\n"))?;
    let office = node.directory().join("office");
    node.until_in_force("kubernetes.office", &office)?;
    node.until_in_force("kubernetes.guests", &node.directory().join("guests"))?;
    until("it expires", || {
        Ok(node.told("kubernetes.brief")?["expired"] == 1)
    })?;
    node.by_writer("rm office guests brief")?;
    node.until_fault("kubernetes.office", &["no such file"])?;
    for name in ["kubernetes.guests", "kubernetes.brief"] {
        until("it is forgotten", || Ok(node.told(name)?.is_null()))?;
        ensure!(node.filter.list_state(name).is_err());
    }
    site.unlisted_gets_in(V4, PORT)?;
    let told = node.told("kubernetes.office")?;
    ensure!(told["sha256"].is_null() && told["ranges"] == 1, "{told:#}");
    let log = daemon.line(|line| line.contains("no such file"))?;
    ensure!(log.contains("kubernetes/office"), "{log}");
    let status = node.filter.status("drift")?.to_string();
    ensure!(
        !status.contains("guests") && !status.contains("brief"),
        "{status}"
    );
    // That is so after a restart, too.
    drop(daemon);
    let _daemon = start(&site, &node)?;
    node.until_fault("kubernetes.office", &["no such file"])?;
    ensure!(node.told("kubernetes.guests")?.is_null());
    node.filter
        .ok(&["ranges", "delete", "--list", "kubernetes.office"])?;
    site.is_guarded(PORT)
}

#[test]
fn a_list_that_a_guard_names_is_not_forgotten() -> Result<()> {
    let (_site, node, mut daemon, _server) = followed("")?;
    node.write("etcd", "192.0.2.7\n")?;
    node.filter.until_authorized("192.0.2.7", true)?;
    node.filter
        .write_config("[[guard]]\nports = [2379]\nlists = [\"kubernetes.etcd\"]\n")?;
    node.filter.until_status("ports", json!([443, 6443]))?;
    daemon.line(|line| line.contains("2379"))?;
    node.write("etcd", "empty\n")?;
    node.filter.until_authorized("192.0.2.7", false)?;
    node.by_writer("rm etcd")?;
    node.until_fault("kubernetes.etcd", &["no such file"])?;
    // Other lists are followed.
    node.write("office", "192.0.2.8\n")?;
    node.filter.until_authorized("192.0.2.8", true)
}

#[test]
fn bounds_hold_for_each_list_and_for_all_of_the_directory() -> Result<()> {
    let (site, node, _daemon, _server) = followed(
        "[lists.kubernetes]\nmax_ranges = 4\nwidest = { ipv4 = 24 }\n\
         [lists.\"kubernetes.office\"]\nmax_ranges = 9\nwidest = { ipv4 = 32 }\n",
    )?;
    node.write("office", "192.0.2.0/31\n")?;
    node.until_fault("kubernetes.office", &["wider than /32"])?;
    node.write("other", "192.0.0.0/23\n")?;
    node.until_fault("kubernetes.other", &["wider than /24"])?;
    node.write("other", "2000::/15\n")?;
    node.until_fault("kubernetes.other", &["wider than /16"])?;
    node.write("other", "192.0.2.0/24\n2001:db9::/32\n")?;
    node.filter.until_authorized("192.0.2.3", true)?;
    let many = |from: u8, to: u8| {
        (from..to)
            .map(|n| format!("198.51.100.{n}\n"))
            .collect::<String>()
    };
    node.write("office", &many(1, 6))?;
    node.until_fault("kubernetes.office", &["has 5 ranges, and the most is 4"])?;
    // Each is within its bounds, and together they are not.
    node.write("office", &many(1, 4))?;
    node.until_fault("kubernetes.office", &["have more than 4 ranges together"])?;
    // That of another directory, and those of root, are not concerned.
    node.filter.write_list_of("office", many(10, 20))?;
    write_own(&node, "own/office", &format!("{}\n", UNLISTED[0]))?;
    node.filter.until_authorized(UNLISTED[0], true)?;
    node.write("office", "198.51.100.1\n")?;
    node.until_in_force("kubernetes.office", &node.directory().join("office"))?;
    let bounds = &node.filter.list_state("kubernetes.office")?["bounds"];
    let both = json!({"max_ranges": 4, "widest": {"ipv4": 32, "ipv6": 16}});
    ensure!(*bounds == both, "{bounds:#}");
    write_own(&node, "own/office", "empty\n")?;
    node.filter.until_authorized(UNLISTED[0], false)?;
    site.is_guarded(PORT)
}

#[test]
fn the_files_of_the_cluster_are_there_where_the_state_directory_has_none() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("cluster_cidrs = [\"@nodes\", \"@pods\"]\n")?;
    let node = Node::new(filter)?;
    // It is not ready without the files.
    let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    let nodes = node.directory().join("@nodes");
    let mut times = Vec::new();
    for round in 0..5 {
        let began = Instant::now();
        node.write("@nodes", &format!("{}\n192.0.2.{round}\n", UNLISTED[0]))?;
        node.until_in_force("@nodes", &nodes)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    eprintln!("a node is in force and told after {times:?}");
    ensure!(times[2] < Duration::from_millis(800), "{times:?}");
    site.unlisted_gets_in(V4, PORT)?;
    node.until_fault("@pods", &["no such file"])?;
    node.write("@nodes", "0.0.0.0/0\n")?;
    node.until_fault("@nodes", &["wider than /8"])?;
    site.unlisted_gets_in(V4, PORT)?;
    // That of the state directory comes first.
    let own = node.filter.state_dir().join("@nodes");
    fs::write(&own, "192.0.2.50\n")?;
    node.filter.until_authorized("192.0.2.50", true)?;
    node.filter.until_authorized(UNLISTED[0], false)?;
    node.until_in_force("@nodes", &own)?;
    fs::remove_file(&own)?;
    daemon.line(|line| line.contains("wider than /8"))?;
    node.filter.ok(&["check", "192.0.2.50"])?;
    node.write("@nodes", &format!("{}\n", UNLISTED[0]))?;
    node.filter.until_authorized(UNLISTED[0], true)?;
    node.filter.until_authorized("192.0.2.50", false)
}

#[test]
fn a_directory_of_lists_may_be_the_mount_of_a_config_map() -> Result<()> {
    let (_site, filter, _server) = Site::unguarded_server(PORT)?;
    let node = Node::new(filter)?;
    let map = tests::config_map::ConfigMap::new(&format!("{}\n", UNLISTED[0]))?;
    let mounted = map.file();
    let mounted = mounted.parent().context("a folder")?;
    fs::remove_dir(node.directory())?;
    std::os::unix::fs::symlink(mounted, node.directory())?;
    let mut daemon = node.filter.start(&["run", "--interface", INTERFACE])?;
    daemon.line(|line| line.contains("guarding"))?;
    node.filter.until_authorized(UNLISTED[0], true)?;
    node.until_in_force("kubernetes.ranges", &map.file())?;
    map.update("..2", "192.0.2.5\n")?;
    node.filter.until_authorized("192.0.2.5", true)?;
    node.filter.until_authorized(UNLISTED[0], false)?;
    node.until_in_force("kubernetes.ranges", &map.file())
}
