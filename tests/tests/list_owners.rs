//! Lists that other users write: bounds, modes and links.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::{INPUT, refused},
    scrape::ready,
    site::{Family, INTERFACE, Site, UNLISTED},
};

const PORT: u16 = 6443;
const LIST: &str = "198.51.100.0/24\n2001:db8:aa::/48\n";
const V4: Family = Family::V4;

#[test]
fn bounds_hold_against_whoever_writes_a_list() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("[lists.guests]\nmax_ranges = 2\nwidest = { ipv4 = 32, ipv6 = 128 }\nmax_expires = \"1d\"\n")?;
    filter.write_list(LIST)?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(8)).to_string();
    for (text, want) in [
        ("0.0.0.0/0\n".to_owned(), "wider than /32"),
        (format!("203.0.113.0/24 expires={soon}\n"), "wider than /32"),
        (format!("{}\n", UNLISTED[0]), "does not expire"),
        (
            format!("{} expires=2099-01-01T00:00:00Z\n", UNLISTED[0]),
            "expires in more than",
        ),
        (
            ["1", "2", "9"]
                .map(|host| format!("203.0.113.{host} expires={soon}\n"))
                .concat(),
            "has 3 ranges",
        ),
        ("disabled\n".to_owned(), "switches enforcement off"),
    ] {
        filter.write_list_of("guests", &text)?;
        daemon.line(|line| line.contains(want))?;
        site.is_guarded(PORT).context(text)?;
    }
    filter.write_list_of("guests", "empty\n")?;
    let ran = filter.run(&["ranges", "add", "--list", "guests", UNLISTED[0]])?;
    refused(&ran, INPUT, &["list `guests`", "does not expire"])?;
    filter
        .ok(&[
            "ranges",
            "set",
            "--list",
            "guests",
            "192.0.2.1",
            "--dry-run",
        ])
        .expect_err("no expiry");
    filter.write_list_of("guests", format!("{} expires={soon}\n", UNLISTED[0]))?;
    filter.until_authorized(UNLISTED[0], true)?;
    let bounds = &filter.list_state("guests")?["bounds"];
    ensure!(
        bounds["max_ranges"] == 2 && bounds["max_expires"] == "24h",
        "{bounds:#}"
    );
    site.unlisted_gets_in(V4, PORT).map(drop)
}

#[test]
fn a_list_that_every_user_may_write_is_not_used() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    filter.write_list_of("office", "192.0.2.77\n")?;
    filter.until_authorized("192.0.2.77", true)?;
    let file = filter.list_file("office");
    fs::write(file.with_file_name(".new"), format!("{}\n", UNLISTED[0]))?;
    fs::set_permissions(file.with_file_name(".new"), Permissions::from_mode(0o666))?;
    fs::rename(file.with_file_name(".new"), &file)?;
    daemon.line(|line| line.contains("every user can write"))?;
    site.is_guarded(PORT)?;
    ensure!(
        filter.run(&["check", "192.0.2.77"])?.code == Some(0),
        "the last good entries stay"
    );
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    filter.until_authorized(UNLISTED[0], true)?;
    let directory = file.parent().context("in a directory")?;
    fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    filter.write_list_of("office", "192.0.2.78\n")?;
    daemon.line(|line| line.contains("every user can write"))?;
    ensure!(filter.run(&["check", "192.0.2.78"])?.code == Some(1));
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    filter.until_authorized("192.0.2.78", true)
}

#[test]
fn a_list_may_be_a_link_into_a_directory_of_its_owner() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    let owners = tempfile::tempdir()?;
    let target = owners.path().join("list");
    fs::write(&target, format!("{}\n", UNLISTED[0]))?;
    std::os::unix::fs::chown(&target, Some(65534), Some(65534))?;
    fs::create_dir_all(
        filter
            .list_file("feed")
            .parent()
            .context("in a directory")?,
    )?;
    symlink(&target, filter.list_file("feed"))?;
    filter.until_authorized(UNLISTED[0], true)?;
    ensure!(filter.list_state("feed")?["owner"] == "nobody");
    daemon.line(|line| line.contains("in force"))?;
    filter.ok(&["ranges", "set", "--list", "feed", "192.0.2.5"])?;
    site.is_guarded(PORT)?;
    ensure!(
        fs::read_link(filter.list_file("feed"))? == target,
        "the link stays"
    );
    ensure!(fs::read_to_string(&target)? == "192.0.2.5/32\n");
    filter.ok(&["ranges", "delete", "--list", "feed"])?;
    ensure!(target.exists() && filter.list_file("feed").symlink_metadata().is_err());
    Ok(())
}

#[test]
fn a_list_that_makes_all_too_long_holds_up_no_other() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    filter.write_config("max_ranges = 10\n")?;
    filter.write_list(LIST)?;
    filter.write_list_of("feed", "192.0.2.1\n")?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE])?;
    ready(&site.node, &mut daemon)?;
    let many: String = (1..20).map(|host| format!("192.0.2.{host}\n")).collect();
    filter.write_list_of("feed", many)?;
    daemon
        .line(|line| line.contains("list `feed`: with it, all lists together have more than 10"))?;
    ensure!(filter.run(&["check", "192.0.2.2"])?.code == Some(1));
    filter.write_list_of("guests", format!("{}\n", UNLISTED[0]))?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.ok(&["check", "192.0.2.1"])?;
    // The ranges file gives way to no list.
    filter.ok(&["ranges", "add", "192.0.2.100"])?;
    filter.write_list_of("feed", "192.0.2.1\n192.0.2.2\n")?;
    filter.until_authorized("192.0.2.2", true)
}

#[test]
fn an_owner_leads_root_to_no_file_of_its_choice() -> Result<()> {
    let (site, filter, mut daemon, _server) = Site::followed(PORT)?;
    let owners = tempfile::tempdir()?;
    let victims = tempfile::tempdir()?;
    let victim = victims.path().join("victim");
    fs::write(&victim, "root's\n")?;
    let own = |path: &Path| Ok::<_, anyhow::Error>(lchown(path, Some(65534), Some(65534))?);
    let target = owners.path().join("list");
    fs::write(&target, format!("{}\n", UNLISTED[0]))?;
    // A link in the place of the new list.
    let link = owners.path().join(".list.new");
    symlink(&victim, &link)?;
    own(&link)?;
    fs::write(owners.path().join(".list.pending"), "0.0.0.0/0\n")?;
    own(&target)?;
    own(owners.path())?;
    fs::create_dir_all(filter.list_file("feed").parent().context("in a folder")?)?;
    symlink(&target, filter.list_file("feed"))?;
    filter.until_authorized(UNLISTED[0], true)?;
    filter.ok(&["ranges", "set", "--list", "feed", "192.0.2.5"])?;
    filter.ok(&["ranges", "rollback", "--list", "feed"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.state_dir().join("history/feed").is_dir());

    // What the owner puts next to the list is no trial, and disturbs none.
    let trial = ["--confirm-within", "1h"];
    let change = ["ranges", "--list", "feed", "set", "192.0.2.6"];
    let ran = filter.run(&[&change[..], &trial].concat())?;
    refused(&ran, INPUT, &["start trial", "list `feed`"])?;
    filter.ok(&[&["ranges", "add", "192.0.2.7"][..], &trial].concat())?;
    filter.ok(&["confirm"])?;
    filter.ok(&["check", "192.0.2.7"])?;
    ensure!(filter.run(&["check", "192.0.2.8"])?.code == Some(1));

    fs::remove_file(&target)?;
    symlink(&victim, &target)?;
    own(&target)?;
    daemon.line(|line| line.contains("another user owns this link"))?;
    let ran = filter.run(&change)?;
    ensure!(ran.stderr.contains("another user owns this link"), "{ran}");
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(fs::read_to_string(&victim)? == "root's\n");
    let left: Vec<_> = fs::read_dir(victims.path())?.flatten().collect();
    ensure!(left.len() == 1, "root wrote into the folder: {left:?}");
    Ok(())
}

#[test]
fn a_file_that_would_fill_the_memory_is_not_read() -> Result<()> {
    let (_site, filter, mut daemon, _server) = Site::followed(PORT)?;
    filter.write_list_of("feed", "\n".repeat(3 << 20))?;
    daemon.line(|line| line.contains("ranges.d/feed") && line.contains("longer than 2500 KiB"))?;
    filter.write_list_of("guests", format!("{}\n", UNLISTED[0]))?;
    filter.until_authorized(UNLISTED[0], true)
}
