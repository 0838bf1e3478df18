//! The rows of the table of starts in docs/service.md.

use anyhow::anyhow;

use super::*;
use crate::{config::Config, ranges::RangesFile};

fn lists(text: &str) -> Lists {
    Lists::of(RangesFile::parse(text).expect("a list"))
}

/// Usable files and no policy from before, after `change`.
fn found(change: impl FnOnce(&mut StartInputs)) -> StartInputs {
    let settings = Config::default().settings();
    let mut found = StartInputs {
        list: Ok(lists("192.0.2.1\n")),
        broken: None,
        settings: settings.clone(),
        certain: Some(settings),
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Auto,
        interfaces_unreadable: false,
        xdp_mode_unreadable: false,
        saved: None,
        lost: None,
        has_enforced: false,
        is_unconfirmed: false,
    };
    change(&mut found);
    found
}

fn break_config(found: &mut StartInputs) {
    found.broken = Some("broken".to_owned());
}

fn lose_list(found: &mut StartInputs) {
    found.list = Err(anyhow!("no list"));
}

fn save(found: &mut StartInputs) {
    found.saved = Some(SavedPolicy {
        settings: found.settings.clone(),
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Generic,
        lists: lists("203.0.113.1\n"),
        cluster: Lists::default(),
    });
}

#[test]
fn a_start_chooses_the_first_policy_that_exists() {
    let (listed, saved) = (lists("192.0.2.1\n"), lists("203.0.113.1\n"));
    type Row<'a> = (fn(&mut StartInputs), Basis, &'a Lists);
    let rows: [Row<'_>; 9] = [
        (|_| (), Basis::Files, &listed),
        (break_config, Basis::Files, &listed),
        (
            |found| {
                break_config(found);
                found.certain = None;
            },
            Basis::Fresh,
            &Lists::default(),
        ),
        (
            |found| {
                break_config(found);
                save(found);
            },
            Basis::LastInForce,
            &saved,
        ),
        (
            |found| {
                lose_list(found);
                save(found);
            },
            Basis::LastInForce,
            &saved,
        ),
        (
            |found| {
                found.is_unconfirmed = true;
                save(found);
            },
            Basis::LastInForce,
            &saved,
        ),
        (
            |found| {
                lose_list(found);
                found.has_enforced = true;
            },
            Basis::ImplicitSources,
            &Lists::default(),
        ),
        (
            |found| found.lost = Some("lost".to_owned()),
            Basis::DefaultSettings,
            &listed,
        ),
        (lose_list, Basis::Fresh, &Lists::default()),
    ];
    for (row, (change, basis, list)) in rows.into_iter().enumerate() {
        let start = choose(found(change), || None);
        assert!(start.basis == basis && start.lists == *list, "row {row}");
        let is_plain = start.fallback.is_none();
        assert_eq!(is_plain, row == 0, "only usable files need no message");
    }
}

#[test]
fn a_list_of_an_older_version_counts_as_the_last_in_force() {
    let start = choose(found(lose_list), || Some(lists("203.0.113.1\n")));
    assert!(start.basis == Basis::LastInForce);
}

#[test]
fn the_saved_policy_brings_what_the_config_leaves_open() {
    let start = choose(
        found(|found| {
            lose_list(found);
            save(found);
        }),
        || None,
    );
    assert_eq!(start.interfaces, ["eth0"]);
    assert_eq!(start.xdp_mode, XdpMode::Auto);
    let doubtful = |found: &mut StartInputs| {
        break_config(found);
        save(found);
        found.xdp_mode_unreadable = true;
    };
    let start = choose(found(doubtful), || None);
    assert_eq!(start.xdp_mode, XdpMode::Generic);
}
