//! Entries with an expiry, and the usage of each entry.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    cli::{Apifence, INPUT, Ran, refused, words},
    site::{ADMIN, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait::{until, while_it_lasts},
};

const PORT: u16 = 6443;

/// The row of `ranges list` for `range`.
fn row(filter: &Apifence, range: &str) -> Result<Value> {
    let list = filter.json(&["ranges", "list"])?;
    let rows = list["ranges"].as_array().cloned().unwrap_or_default();
    let found = rows.into_iter().find(|row| row["range"] == range);
    found.ok_or_else(|| anyhow::anyhow!("`{range}` is not listed: {list:#}"))
}

#[test]
fn an_entry_expires_without_any_process() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;

    let connections = while_it_lasts(|time| {
        let add = ["ranges", "add", UNLISTED[0], UNLISTED[1]];
        let more = ["--expires", time, "--comment", "a guest"];
        filter.ok(&[&add[..], &more].concat())?;
        let connections = Family::BOTH.map(|family| site.unlisted_gets_in(family, PORT));
        let check = filter.json(&["check", UNLISTED[0]])?;
        let answer = &check["results"][0];
        ensure!(
            answer["allowed"] == true
                && answer["comment"] == "a guest"
                && answer["expires"].is_string(),
            "{check:#}"
        );
        connections.into_iter().collect::<Result<Vec<_>>>()
    })?;
    // The filter keeps its counts when it is attached again, and the entry does not live longer.
    filter.ok(&ATTACH[..3])?;
    filter.until_authorized(UNLISTED[0], false)?;
    for family in Family::BOTH {
        site.unlisted_is_dropped(family, PORT, &filter)?;
        site.admin_gets_in(family, PORT)?;
    }
    for mut open in connections {
        filter.cuts(&mut open)?;
    }
    let text = filter.run(&["check", UNLISTED[0]])?.stdout;
    ensure!(text.contains("has expired"), "{text}");
    ensure!(filter.ok(&["ranges", "list"])?.contains("(expired)"));
    ensure!(filter.ok(&["status"])?.contains("2 ranges have expired"));
    // It is still in the file, and returns with a new time.
    filter.ok(&["ranges", "add", UNLISTED[0], "--expires", "1h"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    ensure!(filter.list()?.contains("# a guest"));
    Ok(())
}

#[test]
fn an_entry_inside_a_longer_lived_one_lives_as_long() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let cluster = ["--cluster-cidrs", "2001:db8:bb::/48"];
    filter.ok(&[&ATTACH[..], &cluster].concat())?;
    filter.ok(&["ranges", "add", "203.0.113.0/24"])?;
    filter.ok(&words(&format!(
        "ranges add 203.0.113.8/29 {0} --expires 1s",
        UNLISTED[1]
    )))?;
    until("the entry expires", || {
        Ok(filter
            .ok(&["check", UNLISTED[0]])?
            .contains("`203.0.113.8/29` has expired"))
    })?;
    // The longest match has expired; the wider range, and the cluster's, have not.
    for (family, range) in [
        (Family::V4, "203.0.113.0/24"),
        (Family::V6, "2001:db8:bb::/48"),
    ] {
        site.unlisted_gets_in(family, PORT)?;
        let check = filter.json(&["check", UNLISTED[family as usize]])?;
        ensure!(check["results"][0]["range"] == range, "{check:#}");
    }
    filter.ok(&["ranges", "remove", "203.0.113.0/24"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)
}

#[test]
fn expired_entries_of_a_file_authorize_no_source() -> Result<()> {
    let (site, filter, _server) = Site::unguarded_server(PORT)?;
    let list = format!(
        "{} expires=2001-01-01T00:00:00Z\n{}\n",
        UNLISTED[0], ADMIN[0]
    );
    filter.write_list(list)?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V4, PORT)?;
    // It expired before the boot. The kernel does not store such times, which must not count as a
    // change.
    let change = filter.json(&["ranges", "add", "192.0.2.1", "--dry-run"])?;
    let count = |key: &str| change[key].as_array().map(Vec::len);
    ensure!(
        count("added") == Some(1) && count("changed") == Some(0) && change["unchanged"] == 2,
        "{change:#}"
    );
    let ran = filter.run(&words(
        "ranges add 192.0.2.1 --expires 2001-01-01T00:00:00Z",
    ))?;
    refused(&ran, INPUT, &["not in the future"])
}

#[test]
fn entries_show_their_usage() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    let before = row(&filter, "198.51.100.0/24")?;
    ensure!(
        before["packets"] == 0
            && before["last_seen"].is_null()
            && before["counted_since"].is_string(),
        "{before:#}"
    );
    drop(tests::net::open(
        &site.admin,
        ip(ADMIN[0]),
        at(NODE[0], PORT),
    )?);
    let used = |range: &str| Ok::<_, anyhow::Error>(row(&filter, range)?["packets"].as_u64());
    // A handshake takes two packets from the client.
    until("the packets are counted", || {
        Ok(used("198.51.100.0/24")? >= Some(2))
    })?;
    ensure!(row(&filter, "198.51.100.0/24")?["last_seen"].is_string());
    ensure!(used("2001:db8:aa::/48")? == Some(0), "the other family");
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;

    // A change of the list keeps the counts of the ranges that stay.
    let counted = used("198.51.100.0/24")?;
    filter.ok(&["ranges", "add", "192.0.2.128/25"])?;
    ensure!(used("198.51.100.0/24")? >= counted);
    ensure!(used("192.0.2.128/25")? == Some(0), "another's count");
    filter.ok(&["ranges", "remove", "198.51.100.0/24"])?;
    filter.ok(&["ranges", "add", "198.51.100.0/24"])?;
    ensure!(used("198.51.100.0/24")? == Some(0), "it is a new entry");

    let unused = |time| -> Result<Vec<String>> {
        let list = filter.json(&["ranges", "list", "--unused-for", time])?;
        let rows = list["ranges"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| row["range"].to_string()).collect())
    };
    until("nobody used one for a second", || {
        Ok(unused("1s")?
            .iter()
            .any(|range| range.contains("2001:db8:aa::/48")))
    })?;
    // The node's own addresses are not entries of a list.
    ensure!(!unused("1s")?.iter().any(|range| range.contains(NODE[0])));
    // No process counted for a month.
    ensure!(unused("30d")?.is_empty());
    let ran = filter.run(&["ranges", "list", "--unused-for", "30d"])?;
    ensure!(ran.stderr.contains("not counted that long yet"), "{ran}");
    Ok(())
}

#[test]
fn lists_are_kept_for_rollback() -> Result<()> {
    let (site, filter, _server) = Site::guarded_server(PORT)?;
    for host in 1..=12 {
        filter.ok(&["ranges", "add", &format!("192.0.2.{host}")])?;
    }
    let history = |filter: &Apifence| -> Result<Vec<Value>> {
        let report = filter.json(&["ranges", "history"])?;
        Ok(report["lists"].as_array().cloned().unwrap_or_default())
    };
    let lists = history(&filter)?;
    ensure!(lists.len() == 11, "the list and ten before it: {lists:#?}");
    ensure!(
        lists[0]["change"]["added"][0] == "192.0.2.12/32",
        "{:#}",
        lists[0]
    );
    ensure!(lists[10]["ranges"] == 4, "{:#}", lists[10]);
    let refusal = filter.run(&["ranges", "rollback", "11"])?;
    refused(&refusal, INPUT, &["roll back to list 11", "10 lists"])?;

    // A mistake, and its correction.
    filter.ok(&["ranges", "set", UNLISTED[0], "--force"])?;
    site.unlisted_gets_in(Family::V4, PORT)?;
    filter.ok(&["ranges", "rollback", "--force"])?;
    site.unlisted_is_dropped(Family::V4, PORT, &filter)?;
    site.admin_gets_in(Family::V4, PORT)?;
    ensure!(
        filter.json(&["ranges", "list"])?["ranges"]
            .as_array()
            .is_some_and(|rows| rows.len() >= 14)
    );

    // A change that replaces a broken file keeps that, too.
    filter.write_list("198.51.100.0/24 # mine\nwhat is this\n")?;
    filter.ok(&["ranges", "set", tests::site::ADMIN_RANGES])?;
    let lists = history(&filter)?;
    ensure!(lists[1]["ranges"].is_null(), "{:#}", lists[1]);
    ensure!(filter.ok(&["ranges", "history"])?.contains("not a list"));
    Ok(())
}

/// What people write is in the folder of the ranges file, and a lock, and nothing else; also after
/// an update from a version that kept the history there.
#[test]
fn the_history_is_in_the_state_directory() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let folder = filter.ranges_file().parent().context("in a folder")?;
    const KNOWN: [&str; 5] = [
        "apifence.toml",
        "ranges",
        ".ranges.lock",
        "state",
        "ranges.d",
    ];
    let beside = || -> Result<Vec<String>> {
        let entries = fs::read_dir(folder)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.retain(|name| !KNOWN.contains(&&**name));
        Ok(names)
    };
    filter.ok(&["ranges", "add", "192.0.2.1", "--comment", "one"])?;
    filter.ok(&["ranges", "add", "192.0.2.2", "--list", "guests"])?;
    ensure!(beside()?.is_empty(), "{:?}", beside()?);
    let names = fs::read_dir(folder.join("ranges.d"))?.count();
    ensure!(names == 1, "{names} files in ranges.d");

    let former = filter.ranges_file().with_file_name("ranges.history");
    fs::rename(filter.history_directory(), &former)?;
    // As a writer leaves it that died while it moved them.
    fs::create_dir_all(filter.history_directory())?;
    let lists = filter.history()?;
    ensure!(lists.len() == 2 && former.exists(), "{lists:#?}");
    let by = lists[0]["by"].clone();
    filter.ok(&["ranges", "add", "192.0.2.3"])?;
    ensure!(beside()?.is_empty(), "{:?}", beside()?);
    let lists = filter.history()?;
    ensure!(lists.len() == 3 && lists[1]["by"] == by, "{lists:#?}");
    filter.ok(&["ranges", "rollback", "2", "--force"])?;
    ensure!(!filter.list()?.contains("192.0.2.1"), "{}", filter.list()?);

    // Without a place for copies a change is still made.
    fs::remove_dir_all(filter.state_dir().join("history"))?;
    fs::write(filter.state_dir().join("history"), "in the way\n")?;
    let ran = filter.run(&["ranges", "add", "192.0.2.9"])?.succeeded()?;
    ran.stderr_has(&["warning: write history", "the previous list is not kept"])?;
    ensure!(filter.list()?.contains("192.0.2.9"));
    Ok(())
}

/// For a range that is listed twice, the longest-lived entry decides, and it counts once.
#[test]
fn the_longest_lived_entry_of_a_range_decides() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let hours = |hours: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        format!("{time:.0}")
    };
    let (soon, late) = (hours(1), hours(2));
    let list = format!(
        "{0} # for ever\n{0} expires={soon} # soon\n{1} expires={soon} # soon\n{1} expires={late} # late\n",
        UNLISTED[0], UNLISTED[1]
    );
    filter.write_list(list)?;
    filter.ok(&["attach", "--interface", INTERFACE])?;
    for (source, range, comment, expires) in [
        (UNLISTED[0], "203.0.113.9/32", "for ever", Value::Null),
        (UNLISTED[1], "2001:db8:bb::9/128", "late", late.into()),
    ] {
        let row = row(&filter, range)?;
        let check = filter.json(&["check", source])?;
        for shown in [&row, &check["results"][0]] {
            ensure!(
                shown["comment"] == comment && shown["expires"] == expires,
                "{shown:#}"
            );
        }
        ensure!(row["in_force_until"] == expires, "{row:#}");
    }
    for command in [&["monitor"][..], &["ranges", "reload"], &["enforce"]] {
        let change = filter.json(command)?;
        ensure!(change["unchanged"] == 2, "{command:?}: {change:#}");
    }
    Ok(())
}

/// `add` means to authorize the range, so it warns that the range is about to expire.
#[test]
fn a_range_that_still_expires_is_reported() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    for address in UNLISTED {
        let add = ["ranges", "add", address];
        filter.ok(&[&add[..], &["--expires", "8h"]].concat())?;
        let ran = filter.run(&add)?;
        let is_noted = |ran: &Ran| ran.stderr.contains("listed already and still expires");
        ensure!(ran.code == Some(0) && is_noted(&ran), "{ran}");
        // The hint, as printed.
        let ran = filter.run(&[&add[..], &["--expires", "never"]].concat())?;
        ensure!(ran.code == Some(0) && !is_noted(&ran), "{ran}");
        let ran = filter.run(&add)?;
        ensure!(ran.code == Some(0) && !is_noted(&ran), "{ran}");
    }
    Ok(())
}

/// `status` keeps warning of a list that authorizes every source, in any notation.
#[test]
fn status_warns_of_a_list_that_authorizes_every_source() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let warned = || -> Result<usize> {
        let status = filter.json(&["status"])?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let of_everyone = |warning: &&Value| warning["name"] == "everyone";
        Ok(warnings.iter().filter(of_everyone).count())
    };
    for (list, families) in [
        ("0.0.0.0/0", 1),
        ("0.0.0.0/1,128.0.0.0/1", 1),
        ("0.0.0.0/1,128.0.0.0/2,192.0.0.0/3,2000::/3", 2),
        ("0.0.0.0/0,10.0.0.0/8,::/1,8000::/1", 2),
        ("0.0.0.0/1", 0),
        ("128.0.0.0/1,2000::/4", 0),
    ] {
        filter.ok(&["ranges", "set", list])?;
        ensure!(warned()? == families, "{list}: {}", warned()?);
    }
    Ok(())
}
