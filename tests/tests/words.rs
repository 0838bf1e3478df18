//! Output for people. After an intended change, run `INSTA_UPDATE=always cargo test -p tests --test
//! words` and read the difference.

mod snapshot;

use std::fs;

use anyhow::Result;
use filter_common::layout::LAYOUT_VERSION;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};
use snapshot::same;
use tests::{
    cli::{Apifence, VERBS, words},
    net::connect,
    site::{ADMIN, ADMIN_RANGES, ATTACH, Family, INTERFACE, NODE, Site, UNLISTED, at, ip},
    wait::{PATIENCE, until},
};

#[test]
fn help_matches_its_snapshot() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    for command in [""].into_iter().chain(VERBS) {
        let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        same(
            &format!("help {command}").trim().replace(' ', "-"),
            &filter,
            &[filter.run(&words)?],
        );
    }
    let summaries = [
        "-h",
        "ranges -h",
        "ranges add -h",
        "attach -h",
        "confirm -h",
    ];
    let said: Result<Vec<_>> = summaries
        .iter()
        .map(|line| filter.run(&words(line)))
        .collect();
    same("help-summaries", &filter, &said?);
    Ok(())
}

#[test]
fn everyday_commands_match_their_snapshot() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let said = filter.run_all(&[
        &["status"],
        &ATTACH,
        &["status"],
        &["ranges", "list"],
        &["ranges", "add", UNLISTED[0], "--comment", "a friend"],
        &["ranges", "list"],
        &["check", ADMIN[0], UNLISTED[0], UNLISTED[1]],
        &[
            &ATTACH[..3],
            &words("--mode monitor --cluster-cidrs 10.0.0.0/8 --destination 192.0.2.0/24 --force"),
        ]
        .concat(),
        &["status"],
        &["check", UNLISTED[1]],
        &["ranges", "remove", UNLISTED[0]],
        &["ranges", "clear"],
        &["status"],
        &["check", UNLISTED[1]],
        &["ranges", "list"],
        &["ranges", "set", "0.0.0.0/32"],
        &["status"],
        &["ranges", "set", "0.0.0.0/0"],
        &["status"],
        &["detach"],
        &["detach"],
        &["ranges", "list"],
    ])?;
    same("a-days-work", &filter, &said);
    Ok(())
}

#[test]
fn counters_match_their_snapshot() -> Result<()> {
    let (site, filter) = Site::guarded()?;
    site.unlisted_is_dropped(Family::V4, 6443, &filter)?;
    let mut said = filter.run(&["stats"])?;
    // How many neighbour solicitations there are does not matter here.
    said.stdout = said
        .stdout
        .lines()
        .filter(|line| !line.contains(" pass "))
        .map(|line| format!("{line}\n"))
        .collect();
    same("counters", &filter, &[said]);
    Ok(())
}

#[test]
fn drift_matches_its_snapshot() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let mut said = Vec::new();
    for text in [
        "198.51.100.0/24\n203.0.113.9\n",
        "disabled\n",
        "",
        "203.0.113.",
    ] {
        filter.write_list(text)?;
        said.push(filter.run(&["status"])?);
    }
    fs::remove_file(filter.ranges_file())?;
    said.push(filter.run(&["status"])?);
    same("drift", &filter, &said);
    Ok(())
}

#[test]
fn errors_match_their_snapshot() -> Result<()> {
    let site = Site::new()?;
    site.node.ip("link add br0 type bridge")?;
    let filter = Apifence::new(&site.node)?;
    let mut said = filter.run_all(&[
        &["check", ADMIN[0]],
        &ATTACH[..3],
        &words(&format!(
            "attach --interface eth7 --authorized-ip-ranges {ADMIN_RANGES}"
        )),
        &words(&format!(
            "attach --interface lo --authorized-ip-ranges {ADMIN_RANGES}"
        )),
        &words(&format!(
            "attach --interface br0 --xdp-mode native --authorized-ip-ranges {ADMIN_RANGES}"
        )),
        &words(&format!(
            "attach --interface {INTERFACE} --destination 10.1.2.3/8 --cluster-cidrs 10.1.2.3/8"
        )),
        &words(
            "ranges set 10.1.2.3/8,224.0.0.0/4,127.0.0.1,::ffff:192.0.2.1,::,nobody,10.0.0.0/33",
        ),
        &["ranges", "set", "0.0.0.0/32,192.0.2.1"],
        &["ranges", "fly"],
        &["check", "nobody"],
        &["run", "--metrics-listen", "9464"],
    ])?;
    filter.ok(&ATTACH)?;
    said.extend(filter.run_all(&[
        &["ranges", "remove", UNLISTED[0]],
        &["ranges", "remove", ADMIN[0]],
        &["ranges", "remove", "198.51.100.0/24", "2001:db8:aa::/48"],
        &["attach", "--interface", INTERFACE, "--max-ranges", "1"],
        &["attach", "--interface", INTERFACE, "--xdp-mode", "generic"],
        &["detach", "--interface", "lo"],
    ])?);
    filter.write_list("# ours\n198.51.100.0/24\n10.1.2.3/8\nnobody\n")?;
    said.push(filter.run(&["ranges", "add", UNLISTED[0]])?);
    fs::rename(
        filter.bpffs().join(format!("layout-{LAYOUT_VERSION}")),
        filter.bpffs().join("layout-999"),
    )?;
    said.push(filter.run(&["status"])?);
    same("errors", &filter, &said);
    Ok(())
}

/// JSON objects. A field here is a promise.
#[test]
fn json_matches_its_snapshot() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let json = |words: &[&str]| filter.run(&[&["-o", "json"], words].concat());
    let said = [
        json(&ATTACH)?,
        json(&["ranges", "add", "192.0.2.128/25", "--comment", "spare"])?,
        json(&["ranges", "list"])?,
        json(&["check", ADMIN[0], UNLISTED[1]])?,
        json(&["ranges", "set", "192.0.2.128/25,2001:db8:aa::/48"])?,
        json(&["ranges", "clear"])?,
        json(&["detach"])?,
        json(&["status"])?,
    ];
    same("objects", &filter, &said);
    Ok(())
}

/// The clock of the reports: it advances once a tick.
fn coarse_clock() -> Result<TimeSpec> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?)
}

#[test]
fn refused_sources_match_their_snapshot() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    filter.ok(&[&ATTACH[..], &["--mode", "monitor"]].concat())?;
    let mut said = filter.run_all(&[&["events", "--recent"], &["suggest"]])?;
    for family in Family::BOTH {
        let [source, node] = [UNLISTED, NODE].map(|addresses| addresses[family as usize]);
        // Without a listener: one packet, and an answer to it.
        let refused = connect(&site.unlisted, ip(source), at(node, 6443), PATIENCE);
        assert!(refused.is_err());
        // Reports of two CPUs within one tick of the clock have no order, so each gets a tick of
        // its own.
        let tick = coarse_clock()?;
        until("the clock has ticked", || Ok(coarse_clock()? != tick))?;
    }
    said.extend(filter.run_all(&[
        &["events", "--recent"],
        &["-o", "json", "events", "--recent"],
        &["suggest"],
        &["-o", "json", "suggest"],
        &["suggest", "--group-v4", "33"],
        &["events", "--reason", "bad_luck"],
    ])?);
    filter.ok(&["detach"])?;
    said.extend(filter.run_all(&[&["events"], &["suggest"]])?);
    same("who-was-refused", &filter, &said);
    Ok(())
}

#[test]
fn expiring_entries_and_rollback_match_their_snapshot() -> Result<()> {
    let (_site, filter) = Site::guarded()?;
    let set = ["ranges", "set", "198.51.100.0/24,203.0.113.0/24"];
    let mut said = filter.run_all(&[
        &[
            "ranges",
            "add",
            "203.0.113.9",
            "--comment",
            "a guest",
            "--expires",
            "2100-01-01T00:00:00Z",
        ],
        &words("ranges add 2001:db8:aa::7 --expires 2100-01-01T00:00:00Z"),
        &["ranges", "list", "--utc"],
        &["check", "203.0.113.9", "2001:db8:aa::7"],
        &[&set[..], &["--dry-run"]].concat(),
        &[&set[..], &["--confirm-within", "1h"]].concat(),
        &["status"],
        &["-o", "json", "status"],
        &["ranges", "add", "192.0.2.1"],
        &["ranges", "rollback"],
        &["ranges", "rollback"],
        &[&set[..], &["--confirm-within", "1h"]].concat(),
        &["confirm"],
        &["confirm"],
        &["ranges", "history", "--utc"],
        &["-o", "json", "ranges", "history"],
        &["ranges", "rollback", "2"],
        &["ranges", "rollback", "9"],
    ])?;
    let text = filter.list()?;
    filter.write_list(format!("{text}192.0.2.0/24 # by hand\n"))?;
    said.extend(filter.run_all(&[
        &["status"],
        &["ranges", "reload", "--dry-run"],
        &["ranges", "reload"],
    ])?);
    same("a-friday-evening", &filter, &said);
    Ok(())
}

#[test]
fn refusals_of_changes_match_their_snapshot() -> Result<()> {
    let (_site, filter) = Site::unguarded()?;
    let mut said = filter.run_all(&[
        &["ranges", "set", "192.0.2.0/24", "--confirm-within", "1m"],
        &["ranges", "list", "--unused-for", "30d"],
        &["ranges", "reload"],
        &["confirm"],
    ])?;
    filter.ok(&ATTACH)?;
    said.extend(filter.run_all(&[
        &["ranges", "add", "192.0.2.0/24", "--expires", "tomorrow"],
        &words("ranges add 192.0.2.0/24 --expires 2001-01-01T00:00:00Z"),
        &[
            "ranges",
            "set",
            "192.0.2.0/24",
            "--confirm-within",
            "2 weeks",
        ],
        &["ranges", "set", "192.0.2.0/24", "--confirm-within", "soon"],
        &["ranges", "list", "--unused-for", "ages"],
        &["ranges", "rollback", "0"],
    ])?);
    filter.write_list(
        "192.0.2.0/24 expires=tomorrow\n\
         192.0.2.1/24 # host bits\n\
         192.0.2.0/24 expires=2100-01-01T00:00:00\n\
         192.0.2.0/24 until=2100-01-01T00:00:00Z\n\
         disabled expires=2100-01-01T00:00:00Z\n\
         ff02::/16\n\
         ::ffff:192.0.2.0/120\n",
    )?;
    said.extend(filter.run_all(&[&["ranges", "reload"], &["status"]])?);
    same("refusals-of-changes", &filter, &said);
    Ok(())
}

#[test]
fn completions_and_manual_name_every_command() -> Result<()> {
    let namespace = tests::netns::Namespace::new("desk")?;
    let filter = Apifence::new(&namespace)?;
    let help = filter.ok(&["--help"])?;
    let names = help
        .lines()
        .skip_while(|line| *line != "Start:")
        .take_while(|line| *line != "Global options:")
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.collect();
    assert!(
        names.contains(&"ranges") && names.contains(&"version"),
        "{names:?}"
    );
    let folder = tempfile::TempDir::new()?;
    let path = folder.path().display().to_string();
    filter.ok(&["man", &path])?;
    let page = filter.ok(&["man"])?;
    for shell in ["bash", "zsh", "fish"] {
        let script = filter.ok(&["completions", shell])?;
        assert!(script.contains(&format!("COMPLETE={shell} ")), "{script}");
    }
    for name in names {
        assert!(
            page.contains(&format!("apifence\\-{name}\\fR(1)")),
            "{name}"
        );
        assert!(folder.path().join(format!("apifence-{name}.1")).exists());
    }
    let ran = filter.run(&["man", "/nowhere/at/all"])?;
    tests::cli::refused(&ran, tests::cli::FAILED, &["/nowhere/at/all"])
}
