//! The writer of a directory of lists exceeds no bound, blocks nothing, and touches no other list.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    cli::Killed,
    scrape::scrape,
    site::{Site, UNLISTED},
    wait::until,
};

use super::{Node, PORT, V4, followed, start};

/// A list of root's is followed.
fn others_are_followed(node: &Node, host: u8) -> Result<()> {
    let address = format!("192.0.2.{host}");
    node.filter.write_list_of("roots", format!("{address}\n"))?;
    node.filter.until_authorized(&address, true)
}

#[test]
fn of_257_lists_the_last_is_a_fault_and_those_in_force_stay() -> Result<()> {
    let (site, node, daemon, _server) = followed("")?;
    node.by_writer("for n in $(seq 100 355); do printf '10.1.%s.1\n' $((n - 100)) > list$n; done")?;
    node.until_in_force("kubernetes.list355", &node.directory().join("list355"))?;
    node.write("a", &format!("{}\n", UNLISTED[0]))?;
    node.until_fault("kubernetes.a", &["has more than 256 lists"])?;
    site.is_guarded(PORT)?;
    node.filter.ok(&["check", "10.1.255.1"])?;
    // Those in force are followed.
    node.write("list355", "10.2.0.1\n")?;
    node.filter.until_authorized("10.2.0.1", true)?;
    node.filter.until_authorized("10.1.255.1", false)?;
    others_are_followed(&node, 1)?;
    drop(daemon);
    let _daemon = start(&site, &node)?;
    node.until_fault("kubernetes.a", &["has more than 256 lists"])?;
    site.is_guarded(PORT)?;
    node.by_writer("printf 'empty\n' > list355")?;
    node.filter.until_authorized("10.2.0.1", false)?;
    node.by_writer("rm list355")?;
    node.filter.until_authorized(UNLISTED[0], true)?;

    // Many names are not even counted.
    node.by_writer("for n in $(seq 2000); do : > x$n; done")?;
    node.until_fault("kubernetes", &["has more than 1024 files"])?;
    node.write("list300", "10.2.0.3\n")?;
    node.filter.until_authorized("10.2.0.3", true)?;
    others_are_followed(&node, 2)?;
    let lists = scrape(&site.node)?.text;
    let lists = lists
        .lines()
        .filter(|line| line.starts_with("apifence_list_usable"));
    ensure!(lists.count() < 300);
    node.by_writer("rm x*")?;
    until("the directory can be read", || {
        Ok(node.told("kubernetes")?.is_null())
    })
}

#[test]
fn a_fifo_a_directory_or_a_link_blocks_nothing() -> Result<()> {
    let (site, node, mut daemon, _server) = followed("")?;
    let victims = tempfile::tempdir()?;
    let victim = victims.path().join("victim");
    fs::write(&victim, "secret-word\n")?;
    for (host, (script, words)) in (1..).zip([
        ("mkfifo office", "it is a FIFO"),
        ("mkdir office", "it is a directory"),
        ("ln -s /dev/zero office", "another user owns this link"),
        ("ln -s /proc/self/mem office", "another user owns this link"),
        (
            &format!("ln -s {} office", victim.display()),
            "another user owns this link",
        ),
        ("ln -s missing office", "another user owns this link"),
        ("printf 'x%.0s' $(seq 5000) > office", "xxx"),
        (
            "printf '203.0.113.9\n' > office; chmod 666 office",
            "every user can write",
        ),
        (
            "printf '203.0.113.9\n' > office; chmod 777 .",
            "every user can write",
        ),
        (
            "printf 'disabled\n' > office; chmod 755 .",
            "switches enforcement off",
        ),
        ("printf '0.0.0.0/0\n' > office", "wider than /8"),
        (": > office", "the file has no range"),
    ]) {
        node.write("office", "192.0.2.99\n")?;
        node.filter.until_authorized("192.0.2.99", true)?;
        node.by_writer(&format!("rm -r office; {script}"))?;
        node.until_fault("kubernetes.office", &[words])?;
        let told = node.told("kubernetes.office")?;
        ensure!(told["sha256"].is_null() && told["ranges"] == 1, "{told:#}");
        node.filter.ok(&["check", "192.0.2.99"])?;
        others_are_followed(&node, host)?;
        site.is_guarded(PORT)?;
        let path = node.filter.runtime_dir().join("state.json");
        ensure!(fs::read_to_string(path)?.len() < 4096);
        node.by_writer("rm -r office")?;
    }
    ensure!(daemon.runs()?);
    // What root reads through it by chance is not told either.
    let log = daemon.log_until("the file has no range")?;
    ensure!(!log.contains("secret-word"), "{log}");
    Ok(())
}

#[test]
fn a_directory_that_root_cannot_read_or_that_others_may_replace_harms_no_other() -> Result<()> {
    let (_site, node, _daemon, _server) = followed("")?;
    node.write("office", "192.0.2.99\n")?;
    node.filter.until_authorized("192.0.2.99", true)?;
    let elsewhere = tempfile::tempdir()?;
    let moved = elsewhere.path().join("kubernetes");
    fs::rename(node.directory(), &moved)?;
    node.until_fault("kubernetes.office", &["no such file"])?;
    // A link of the writer in its place.
    symlink(&moved, node.directory())?;
    std::os::unix::fs::lchown(node.directory(), Some(super::WRITER), None)?;
    node.until_fault("kubernetes.office", &["another user owns this link"])?;
    others_are_followed(&node, 1)?;
    fs::remove_file(node.directory())?;
    fs::rename(&moved, node.directory())?;
    node.until_in_force("kubernetes.office", &node.directory().join("office"))?;
    node.filter.ok(&["check", "192.0.2.99"])?;
    Ok(())
}

#[test]
fn a_list_that_never_stays_the_same_holds_up_no_other() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("cluster_cidrs = [\"@nodes\"]\n")?;
    let node = Node::new(filter)?;
    node.write("@nodes", "192.0.2.0/30\n")?;
    let _daemon = start(&site, &node)?;
    let churn = "while :; do printf '10.3.0.1\n' > .n; mv .n office; printf '192.0.2.0/30\n' > .n; mv .n @nodes; done";
    let mut churning = Killed(node.writer(churn).spawn()?);
    let mut times = Vec::new();
    for host in 11..16 {
        let began = Instant::now();
        others_are_followed(&node, host)?;
        times.push(began.elapsed());
    }
    eprintln!("while a list changes all the time, another is in force after {times:?}");
    node.filter.until_authorized("10.3.0.1", true)?;
    // A command of root's is not held up, and neither is the ranges file.
    node.filter.ok(&["ranges", "add", UNLISTED[0]])?;
    site.unlisted_gets_in(V4, PORT)?;
    ensure!(churning.0.try_wait()?.is_none(), "it ended");
    ensure!(
        times.iter().all(|time| *time < Duration::from_secs(30)),
        "{times:?}"
    );
    Ok(())
}

#[test]
fn files_that_would_fill_the_memory_are_not_read() -> Result<()> {
    let (_site, node, _daemon, _server) = followed("max_ranges = 5000\n")?;
    let many: String = (0..4000_u32)
        .map(|n| format!("10.{}.{}.1/32\n", n / 256, n % 256))
        .collect();
    fs::write(node.directory().join(".many"), &many)?;
    let began = Instant::now();
    fs::rename(
        node.directory().join(".many"),
        node.directory().join("many"),
    )?;
    node.until_in_force("kubernetes.many", &node.directory().join("many"))?;
    eprintln!("4,000 ranges are in force after {:?}", began.elapsed());
    ensure!(node.told("kubernetes.many")?["ranges"] == 4000);
    // 5,000 ranges have 1,250 KiB, of which a single file takes too much, or two together.
    node.by_writer("head -c 2000000 /dev/zero | tr '\\0' '\\n' > one")?;
    node.until_fault("kubernetes.one", &["longer than 1250 KiB"])?;
    node.by_writer("for n in one two; do head -c 700000 /dev/zero | tr '\\0' '\\n' > $n; printf 'empty\n' >> $n; done")?;
    node.until_fault("kubernetes.two", &["longer than 1250 KiB"])?;
    node.until_in_force("kubernetes.one", &node.directory().join("one"))?;
    others_are_followed(&node, 1)
}

#[test]
fn root_writes_no_file_of_the_writers_choice() -> Result<()> {
    let (site, node, _daemon, _server) = followed("")?;
    let victims = tempfile::tempdir()?;
    let victim = victims.path().join("victim");
    fs::write(&victim, "root's\n")?;
    let change = ["ranges", "--list", "kubernetes.office", "set", "192.0.2.6"];
    node.write("office", &format!("{}\n", UNLISTED[0]))?;
    node.filter.until_authorized(UNLISTED[0], true)?;
    let link = format!("ln -s {}", victim.display());
    node.by_writer(&format!(
        "{link} .office.new; {link} .office.lock; printf '0.0.0.0/0\n' > .office.pending"
    ))?;
    node.filter.ok(&change)?;
    site.is_guarded(PORT)?;
    node.filter
        .ok(&["ranges", "add", "192.0.2.7", "--confirm-within", "1h"])?;
    node.filter.ok(&["confirm"])?;
    node.filter.ok(&["check", "192.0.2.6", "192.0.2.7"])?;
    node.by_writer(&format!("rm office; {link} office"))?;
    node.until_fault("kubernetes.office", &["another user owns this link"])?;
    let ran = node.filter.run(&change)?;
    ensure!(ran.stderr.contains("another user owns this link"), "{ran}");
    ensure!(fs::read_to_string(&victim)? == "root's\n");
    node.by_writer("rm office; mkfifo office")?;
    node.filter.ok(&["ranges", "lists"])?;
    node.filter.ok(&change)?;
    let left: Vec<_> = fs::read_dir(victims.path())?.flatten().collect();
    ensure!(left.len() == 1, "root wrote into the folder: {left:?}");
    Ok(())
}

#[test]
fn a_first_attach_is_not_held_up() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let node = Node::new(filter)?;
    node.write("office", "nonsense\n")?;
    node.by_writer("for n in $(seq 2000); do : > .x$n; done")?;
    let ran = node.filter.run(&tests::site::ATTACH[..3])?.succeeded()?;
    ran.stderr_has(&["kubernetes", "does not authorize any source"])?;
    site.is_guarded(PORT)?;
    node.filter.ok(&["ranges", "add", UNLISTED[0]])?;
    site.unlisted_gets_in(V4, PORT).map(drop)
}
