//! The layers, and the file among them. What is refused, in whose words, is in the suites `config` and `words`.

use clap::{ArgMatches, CommandFactory as _};

use ipnet::IpNet;

use super::{
    Config, Environment, PolicyMode, Settings,
    layers::{Origin, Wrong},
};
use crate::cli::Cli;

const EXAMPLE: &str = include_str!("../../../deploy/apifence.toml");

fn matches(words: &[&str]) -> ArgMatches {
    let all = ["apifence", "config"].iter().chain(words);
    let matches = Cli::command().get_matches_from(all);
    let (_, matches) = matches.subcommand().expect("a subcommand was given");
    matches.clone()
}

/// `config` takes the flags, which are in order.
fn typed_into(config: &mut Config, flags: &[&str]) {
    let wrong = config.read_typed(&Cli::command(), &matches(flags), &Environment::default());
    assert_eq!(wrong, Wrong::default());
}

/// What `config` says of `key`: the value, and where that comes from.
fn says(config: &Config, key: &str) -> (String, String) {
    let rows = config.rows();
    let row = rows.iter().find(|row| row.key == key).expect("a known key");
    (row.value.to_string(), row.origin.clone())
}

/// The causes of what is wrong with `text`, and what could be read of it.
fn read(text: &str) -> (Vec<String>, Config) {
    let mut config = Config::default();
    let wrong = config.read_file("F", text);
    (wrong.into_iter().map(|(cause, _)| cause).collect(), config)
}

fn values(config: &Config) -> Vec<(&'static str, serde_json::Value)> {
    let rows = config.rows().into_iter();
    rows.map(|row| (row.key, row.value)).collect()
}

#[test]
fn the_example_changes_nothing_as_it_is_and_with_every_line_uncommented() {
    let (wrong, config) = read(EXAMPLE);
    assert_eq!(wrong, [""; 0]);
    assert!(config.rows().iter().all(|row| row.source == "default"));

    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (wrong, config) = read(&uncommented);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(values(&config), values(&Config::default()));
    for row in config.rows() {
        assert_eq!(row.source, "file", "`{}` is not in the example", row.key);
    }
}

#[test]
fn the_defaults_that_help_shows_are_those_that_hold() {
    let matches = matches(&[]);
    let mut config = Config::default();
    for setting in config.each() {
        let refusals = setting.take(&matches, Origin::Default);
        assert_eq!(refusals, []);
    }
    assert_eq!(values(&config), values(&Config::default()));
}

#[test]
fn every_setting_has_a_flag_and_a_variable() {
    let command = Cli::command();
    for row in Config::default().rows() {
        let argument = super::layers::argument(&command, row.key);
        let flag = argument.get_long().expect("a setting has a flag");
        let variable = argument.get_env().expect("a setting has a variable");
        let name = flag.trim_start_matches("no-").replace('-', "_");
        let want = format!("APIFENCE_{}", name.to_uppercase());
        assert_eq!(variable.to_string_lossy(), want);
    }
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let (wrong, mut config) =
        read("# ours\nports = [443]\n\nmax_ranges = 1_000\nmode = 'monitor'\n");
    assert_eq!(wrong, [""; 0]);
    let flags = ["--port", "6443,8443", "--no-node-addresses", "-v"];
    typed_into(&mut config, &flags);
    let say = |key, value: &str, origin: &str| {
        assert_eq!(says(&config, key), (value.to_owned(), origin.to_owned()));
    };
    say("ports", "[6443,8443]", "flag --port");
    say("node_addresses", "false", "flag --no-node-addresses");
    say("verbose", "true", "flag --verbose");
    say("max_ranges", "1000", "F:4");
    say("mode", "\"monitor\"", "F:5");
    say("xdp_mode", "\"auto\"", "default");
}

/// `config` with these variables, and what is wrong with them.
fn with_variables(variables: &[(&str, &str)]) -> (Config, Vec<(String, String)>) {
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let environment = Environment::new(variables);
    let mut config = Config::default();
    let wrong = config.read_typed(&Cli::command(), &matches(&[]), &environment);
    assert_eq!(wrong.flags, []);
    (config, wrong.environment)
}

#[test]
fn a_variable_is_named_as_the_flag_or_as_the_key() {
    for (variable, value, key, want) in [
        ("APIFENCE_PORT", "1,2", "ports", "[1,2]"),
        ("APIFENCE_PORTS", "1,2", "ports", "[1,2]"),
        ("APIFENCE_INTERFACE", "a", "interfaces", "[\"a\"]"),
        ("APIFENCE_INTERFACES", "a,b", "interfaces", "[\"a\",\"b\"]"),
        (
            "APIFENCE_DESTINATIONS",
            "10.0.0.0/8",
            "destinations",
            "[\"10.0.0.0/8\"]",
        ),
        (
            "APIFENCE_NODE_ADDRESSES",
            "false",
            "node_addresses",
            "false",
        ),
        ("APIFENCE_NODE_ADDRESSES", "yes", "node_addresses", "true"),
        ("APIFENCE_VERBOSE", "1", "verbose", "true"),
        ("APIFENCE_DETACH_ON_EXIT", "off", "detach_on_exit", "false"),
        ("APIFENCE_MODE", "monitor", "mode", "\"monitor\""),
        ("APIFENCE_BPFFS", "-x=y", "bpffs", "\"-x=y\""),
    ] {
        let (config, wrong) = with_variables(&[(variable, value)]);
        assert_eq!(wrong, [], "{variable}");
        let origin = format!("environment {variable}");
        assert_eq!(says(&config, key), (want.to_owned(), origin));
    }
    let both = [("APIFENCE_PORT", "1"), ("APIFENCE_PORTS", "1")];
    assert_eq!(with_variables(&both).1, []);
    let (config, wrong) = with_variables(&[("APIFENCE_PORT", "1"), ("APIFENCE_PORTS", "2")]);
    assert!(
        wrong[0]
            .0
            .contains("APIFENCE_PORT and APIFENCE_PORTS differ")
    );
    assert!(config.doubts(&["ports"]));
}

#[test]
fn an_empty_variable_is_not_given_and_a_bad_one_is_named() {
    for row in Config::default().rows() {
        let name = format!("APIFENCE_{}", row.key.to_uppercase());
        for empty in ["", " "] {
            let (config, wrong) = with_variables(&[(&name, empty)]);
            assert_eq!(wrong, [], "{name}");
            assert_eq!(says(&config, row.key).1, "default");
        }
    }
    for (variable, value, cause, hint) in [
        (
            "APIFENCE_PORTS",
            "https",
            "invalid value `https`: invalid digit",
            "--port",
        ),
        (
            "APIFENCE_PORT",
            "443,70000",
            "invalid value `70000`: 70000 is not in",
            "--port",
        ),
        (
            "APIFENCE_MODE",
            "monitr",
            "invalid value `monitr`",
            "one of `enforce`, `monitor`",
        ),
        (
            "APIFENCE_VERBOSE",
            "maybe",
            "invalid value `maybe`: ",
            "--verbose",
        ),
        (
            "APIFENCE_MAX_RANGES",
            "0",
            "invalid value `0`: 0 is not in",
            "--max-ranges",
        ),
        (
            "APIFENCE_METRICS_LISTEN",
            "9464",
            "invalid value `9464`: an address",
            "--metrics",
        ),
        (
            "APIFENCE_CLUSTER_CIDRS",
            "10.1.2.3/8",
            "has bits set after the first 8",
            "`10.0.0.0/8`",
        ),
    ] {
        let (config, wrong) = with_variables(&[(variable, value)]);
        let [(said, way)] = &wrong[..] else {
            panic!("{variable}: {wrong:?}");
        };
        let begins = format!("environment {variable}: ");
        assert!(said.starts_with(&begins) && said.contains(cause), "{said}");
        assert!(way.contains(hint), "{way}");
        assert!(config.rows().iter().all(|row| row.source == "default"));
    }
}

#[test]
fn an_unknown_variable_is_named_and_the_nearest_that_is_known() {
    for (variable, hint) in [
        ("APIFENCE_PROT", "`APIFENCE_PORT` is meant?"),
        ("APIFENCE_INTERFACS", "`APIFENCE_INTERFACE"),
        (
            "APIFENCE_NO_NODE_ADDRESSES",
            "`APIFENCE_NODE_ADDRESSES` is meant?",
        ),
        ("APIFENCE_CONFIG_FILE", "`APIFENCE_CONFIG` is meant?"),
        ("APIFENCE_AUTHORIZED_IP_RANGES", "`apifence ranges set`"),
        ("APIFENCE_XYZZY", "unset it"),
    ] {
        let (_, wrong) = with_variables(&[(variable, "1"), ("OTHER_VARIABLE", "1")]);
        let [(cause, way)] = &wrong[..] else {
            panic!("{variable}: {wrong:?}");
        };
        assert_eq!(
            *cause,
            format!("environment: there is no setting `{variable}`")
        );
        assert!(way.contains(hint), "{variable}: {way}");
    }
    // Kubernetes sets these for a Service named `apifence`.
    let links = [
        ("APIFENCE_SERVICE_HOST", "10.96.0.7"),
        ("APIFENCE_SERVICE_PORT", "9464"),
        ("APIFENCE_SERVICE_PORT_METRICS", "9464"),
        ("APIFENCE_PORT", "tcp://10.96.0.7:9464"),
        ("APIFENCE_PORT_9464_TCP", "tcp://10.96.0.7:9464"),
        ("APIFENCE_PORT_9464_TCP_ADDR", "10.96.0.7"),
    ];
    let (config, wrong) = with_variables(&links);
    assert_eq!(wrong, []);
    assert_eq!(says(&config, "ports").1, "default");
}

#[test]
fn an_empty_flag_takes_a_list_back() {
    let (_, mut config) = read("destinations = ['10.0.0.0/8']\n");
    typed_into(&mut config, &["--destination", ""]);
    assert_eq!(
        says(&config, "destinations"),
        ("[]".to_owned(), "flag --destination".to_owned())
    );
}

#[test]
fn one_mistake_is_one_complaint_and_hides_no_other() {
    let (wrong, config) = read(
        "max_ranges 5\n\
         mode = enforce\n\
         cluster_cidrs = [\n  '10.0.0.0/8'\n  '11.0.0.0/8'\n]\n\
         ports = [443, 6443\n\
         bpffs = '/sys/fs/bpf/other'\n\
         = 3\n\
         bpfs = 1\n\
         verbose = 1\n\
         output = \"json\n",
    );
    let lines: Vec<&str> = wrong
        .iter()
        .map(|cause| cause.split(": ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        lines,
        ["F:1", "F:2", "F:4", "F:7", "F:9", "F:10", "F:11", "F:12"],
        "{wrong:#?}"
    );
    assert_eq!(says(&config, "bpffs").1, "F:8");
    for key in [
        "max_ranges",
        "mode",
        "cluster_cidrs",
        "ports",
        "output",
        "verbose",
    ] {
        assert!(config.doubts(&[key]), "{key}");
        assert_eq!(says(&config, key).1, "default");
    }
    assert!(!config.doubts(&["bpffs", "ranges_file", "destinations"]));
}

#[test]
fn a_flag_removes_the_doubt() {
    let (_, mut config) = read("bpffs = /x\nranges_file = 3\n");
    typed_into(&mut config, &["--bpffs", "/x"]);
    assert!(!config.doubts(&["bpffs"]));
    assert!(config.doubts(&["bpffs", "ranges_file"]));
    assert!(!config.doubts(&["output"]));
}

#[test]
fn a_key_that_is_set_twice_is_doubtful() {
    let (wrong, config) = read("bpffs = '/a'\nbpffs = '/b'\n");
    assert_eq!(wrong, ["F:2: `bpffs` is set twice"]);
    assert!(config.doubts(&["bpffs"]));
}

#[test]
fn another_file_altogether_is_given_up_soon() {
    let (wrong, config) = read(&"10.0.0.0/8\n".repeat(10_000));
    assert!(wrong.len() < 30, "{} complaints", wrong.len());
    assert!(!config.doubts(&["bpffs"]));
}

#[test]
fn no_text_is_too_strange() {
    for text in [
        "\"\"\"",
        "[",
        "[[",
        "a=[",
        "=",
        "\u{feff}",
        "\r",
        "a = {",
        "x=\"\u{1F600}",
        "é\n",
    ] {
        let (wrong, _) = read(text);
        assert!(wrong.len() < 5, "{text:?}: {wrong:?}");
    }
    let mut random = 1_u32;
    for _ in 0..2_000 {
        let text: String = (0..24)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let letters = b"ports=[]{}\"'\n\n#.,0 \xff";
                char::from(letters[(random >> 16) as usize % letters.len()])
            })
            .collect();
        read(&text);
    }
}

/// How the settings differ, as they are told.
fn told(want: &Settings, have: &Settings) -> Vec<String> {
    let changes = want.changes_from(have).into_iter();
    changes.map(|change| change.to_string()).collect()
}

#[test]
fn what_nobody_says_stays_as_it_is_in_force() {
    let (_, config) = read("ports = [443, 9345]\nmode = 'monitor'\noutbound_ips = ['192.0.2.1']\n");
    let have = config.settings();
    let default = Config::default().settings();
    assert_eq!(
        told(&have, &default),
        [
            "note: ports 443, 9345 (was 443, 6443)",
            "warning: mode monitor (was enforce): nothing is dropped",
            "note: outbound addresses 192.0.2.1/32 (was none)"
        ]
    );
    // A file that is gone says nothing.
    assert_eq!(Config::default().over(&have, false), have);
    // One that is there, and no longer says it, means the default; a key at a time.
    assert_eq!(Config::default().over(&have, true), default);
    let (_, less) = read("ports = [443, 9345]\noutbound_ips = ['192.0.2.1']\n");
    assert_eq!(
        told(&less.over(&have, true), &have),
        ["note: mode enforce (was monitor)"]
    );

    // What a flag said stays, whatever files there are.
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
    // Addresses and prefixes are two settings, in force as one.
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
        told(&typed.over(&both, true), &both),
        [
            "warning: outbound addresses 192.0.2.7/32 (was 192.0.2.7/32, 192.0.2.8/32): nothing but the list lets 192.0.2.8/32 in"
        ]
    );
    let mut typed = Config::default();
    let flags = ["--outbound-ips", "192.0.2.7"];
    typed_into(&mut typed, &flags);
    assert_eq!(
        told(&typed.over(&have, true), &have),
        ["note: outbound addresses 192.0.2.7/32, 198.51.100.0/24 (was 198.51.100.0/24)"]
    );
}

#[test]
fn what_opens_or_keeps_out_must_be_insisted_on() {
    let (_, config) = read(
        "ports = [443, 9345]\ncluster_cidrs = ['10.0.0.0/8', '192.0.2.0/24']\n\
         outbound_ips = ['198.51.100.1']\ndestinations = ['192.0.2.0/24']\n",
    );
    let have = config.settings();
    let dangers = |have: &Settings, change: &dyn Fn(&mut Settings)| {
        let mut want = have.clone();
        change(&mut want);
        let changes = want.changes_from(have);
        assert!(!changes.is_empty());
        let dangers = changes.iter().filter_map(|change| change.danger());
        dangers.map(str::to_owned).collect::<Vec<_>>()
    };
    let range = |text: &str| -> IpNet { text.parse().expect("a range") };
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
            &["nothing but the list lets the node's own addresses in"],
        ),
        (
            &|want| want.cluster = vec![range("10.0.0.0/9")],
            &["nothing but the list lets 10.0.0.0/8, 192.0.2.0/24 in"],
        ),
        (
            &|want| want.outbound = Vec::new(),
            &["nothing but the list lets 198.51.100.1/32 in"],
        ),
        (
            &|want| {
                want.outbound = vec![range("10.0.0.0/8")];
                want.cluster = vec![range("198.51.100.0/24"), range("192.0.2.0/24")];
            },
            &[],
        ),
        (&|want| want.max_ranges = 1, &[]),
    ];
    for (change, want) in cases {
        assert_eq!(dangers(&have, change), want);
        // Nothing is dropped in monitor mode.
        let mut monitored = have.clone();
        monitored.mode = PolicyMode::Monitor;
        if !want.is_empty() {
            assert_eq!(dangers(&monitored, change), [""; 0]);
        }
    }
    let mut anywhere = have.clone();
    anywhere.destinations = Vec::new();
    assert_eq!(
        dangers(&anywhere, &|want| want.destinations =
            vec![range("192.0.2.1/32")]),
        ["opens every other address to everyone"]
    );
}
