//! Active values that stay, and the effects of a change.

use ipnet::IpNet;

use super::*;
use crate::config::{ClusterCidr, PolicyMode, SettingChange, Settings};

/// The differences between settings, as text.
fn changes(want: &Settings, have: &Settings) -> Vec<String> {
    let changes = want.changes_from(have).into_iter();
    changes.map(|change| change.to_string()).collect()
}

#[test]
fn an_unset_key_keeps_its_active_value() {
    let (_, config) = read("ports = [443, 9345]\nmode = 'monitor'\noutbound_ips = ['192.0.2.1']\n");
    let have = config.settings();
    let default = Config::default().settings();
    assert_eq!(
        changes(&have, &default),
        [
            "warning: ports 443, 9345 (was 443, 6443): opens TCP 6443 to everyone",
            "warning: mode monitor (was enforce): nothing is dropped",
            "note: outbound addresses 192.0.2.1/32 (was none)"
        ]
    );
    // A missing file sets and resets nothing.
    assert_eq!(Config::default().over(&have, false), have);
    // A file that no longer sets a key means the default, for each key by itself.
    assert_eq!(Config::default().over(&have, true), default);
    let (_, less) = read("ports = [443, 9345]\noutbound_ips = ['192.0.2.1']\n");
    assert_eq!(
        changes(&less.over(&have, true), &have),
        ["note: mode enforce (was monitor)"]
    );

    // A flag's value stays, whatever the files contain.
    let mut typed = Config::default();
    let flags = [
        "--port",
        "9345",
        "--outbound-ip-prefixes",
        "198.51.100.0/24",
    ];
    typed_into(&mut typed, &flags);
    let have = typed.over(&have, true);
    assert_eq!(have.from_file, [].into());
    for is_file in [false, true] {
        assert_eq!(Config::default().over(&have, is_file), have);
    }
    // Addresses and prefixes are two settings, and one active value.
    let mut typed = Config::default();
    let flags = [
        "--outbound-ips",
        "192.0.2.7",
        "--outbound-ip-prefixes",
        "192.0.2.8",
    ];
    typed_into(&mut typed, &flags);
    let both = typed.over(&have, true);
    let mut typed = Config::default();
    let flags = ["--outbound-ip-prefixes", ""];
    typed_into(&mut typed, &flags);
    assert_eq!(
        changes(&typed.over(&both, true), &both),
        [
            "warning: outbound addresses 192.0.2.7/32 (was 192.0.2.7/32, 192.0.2.8/32): only the list still allows 192.0.2.8/32"
        ]
    );
    let mut typed = Config::default();
    let flags = ["--outbound-ips", "192.0.2.7"];
    typed_into(&mut typed, &flags);
    assert_eq!(
        changes(&typed.over(&have, true), &have),
        ["note: outbound addresses 192.0.2.7/32, 198.51.100.0/24 (was 198.51.100.0/24)"]
    );
}

/// The effects of `change` that need `--force`.
fn risks(have: &Settings, change: &dyn Fn(&mut Settings)) -> Vec<String> {
    let mut want = have.clone();
    change(&mut want);
    let changes = want.changes_from(have);
    assert!(!changes.is_empty());
    changes.iter().filter_map(SettingChange::risk).collect()
}

#[test]
fn a_setting_that_opens_or_blocks_needs_force() {
    let (_, config) = read(
        "ports = [443, 9345]\ncluster_cidrs = ['10.0.0.0/8', '192.0.2.0/24']\n\
         outbound_ips = ['198.51.100.1']\ndestinations = ['192.0.2.0/24']\n",
    );
    let have = config.settings();
    let range = |text: &str| -> IpNet { text.parse().expect("a range") };
    let cidr = |text: &str| -> ClusterCidr { text.parse().expect("a value") };
    type Case<'a> = (&'a dyn Fn(&mut Settings), &'a [&'a str]);
    let cases: [Case<'_>; _] = [
        (
            &|want| want.ports = [443, 8443].into(),
            &["opens TCP 9345 to everyone"],
        ),
        (&|want| want.ports = [443, 9345, 1].into(), &[]),
        (&|want| want.destinations = Vec::new(), &[]),
        (&|want| want.destinations = vec![range("192.0.0.0/16")], &[]),
        (
            &|want| want.destinations = vec![range("192.0.2.1/32")],
            &["opens 192.0.2.0/24 to everyone"],
        ),
        (&|want| want.mode = PolicyMode::Monitor, &[]),
        (
            &|want| want.node_addresses = false,
            &["only the list still allows the node's own addresses"],
        ),
        (
            &|want| want.cluster = vec![cidr("10.0.0.0/9")],
            &["only the list still allows 10.0.0.0/8, 192.0.2.0/24"],
        ),
        (
            &|want| want.outbound = Vec::new(),
            &["only the list still allows 198.51.100.1/32"],
        ),
        (
            &|want| {
                want.outbound = vec![range("10.0.0.0/8")];
                want.cluster = vec![cidr("198.51.100.0/24"), cidr("192.0.2.0/24")];
            },
            &[],
        ),
        (&|want| want.max_ranges = 1, &[]),
    ];
    for (change, want) in cases {
        assert_eq!(risks(&have, change), want);
        // No packet is dropped in monitor mode; the effect comes with the mode.
        let mut monitored = have.clone();
        monitored.mode = PolicyMode::Monitor;
        if !want.is_empty() {
            assert_eq!(risks(&monitored, change), want);
        }
    }
    let mut anywhere = have.clone();
    anywhere.destinations = Vec::new();
    assert_eq!(
        risks(&anywhere, &|want| want.destinations =
            vec![range("192.0.2.1/32")]),
        ["opens every other address to everyone"]
    );
}

#[test]
fn a_setting_that_authorizes_everyone_needs_force() {
    let have = Config::default().settings();
    for all in ["0.0.0.0/0", "::/0"] {
        let cluster = vec![all.parse().expect("a value")];
        let all = vec![all.parse().expect("a range")];
        for now in [
            Settings {
                cluster: cluster.clone(),
                ..have.clone()
            },
            Settings {
                outbound: all.clone(),
                ..have.clone()
            },
        ] {
            let changes = now.changes_from(&have);
            assert!(changes[0].risk().is_some(), "{}", changes[0]);
            // It is active already.
            assert!(now.changes_from(&now).is_empty());
        }
    }
}

#[test]
fn taking_a_preset_away_needs_force_whatever_is_in_its_file() {
    let settings = |values: &[&str]| {
        let values = values.iter().map(|text| text.parse().expect("a value"));
        Settings {
            cluster: values.collect(),
            ..Config::default().settings()
        }
    };
    let cut = |whom: &str| vec![format!("only the list still allows {whom}")];
    for (had, now, want) in [
        (&["@nodes", "@pods"][..], &["@pods"][..], cut("@nodes")),
        (&["@nodes"], &["0.0.0.0/1"], cut("@nodes")),
        (&["@azure-probe"], &[], cut("@azure-probe")),
        // What stands in its place lets the same sources in.
        (&["@azure-probe"], &["168.63.129.16/32"], Vec::new()),
        (
            &["168.63.129.0/24"],
            &["@azure-probe"],
            cut("168.63.129.0/24"),
        ),
        (&["168.63.129.16/32"], &["@azure-probe"], Vec::new()),
        (&[], &["@nodes"], Vec::new()),
    ] {
        let changes = settings(now).changes_from(&settings(had));
        let risks: Vec<String> = changes.iter().filter_map(SettingChange::risk).collect();
        assert_eq!(risks, want, "{had:?} {now:?}");
    }
}
