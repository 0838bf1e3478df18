//! Variables, and their faults.

use super::*;

/// `config` with these variables, and their faults.
fn with_variables(variables: &[(&str, &str)]) -> (Config, Vec<(String, String)>) {
    let variables = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let environment = Environment::new(variables);
    let mut config = Config::default();
    let errors = config.read_typed(&Cli::command(), &matches(&[]), &environment);
    assert_eq!(errors.flags, []);
    (config, errors.environment)
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
        let (config, errors) = with_variables(&[(variable, value)]);
        assert_eq!(errors, [], "{variable}");
        let origin = format!("environment {variable}");
        assert_eq!(row_of(&config, key), (want.to_owned(), origin));
    }
    let both = [("APIFENCE_PORT", "1"), ("APIFENCE_PORTS", "1")];
    assert_eq!(with_variables(&both).1, []);
    let (config, errors) = with_variables(&[("APIFENCE_PORT", "1"), ("APIFENCE_PORTS", "2")]);
    assert!(
        errors[0]
            .0
            .contains("APIFENCE_PORT and APIFENCE_PORTS set the same setting")
    );
    assert!(config.has_unreadable(&["ports"]));
}

/// Variables with an invalid value, a part of the cause, and of the hint.
const INVALID: [(&str, &str, &str, &str); 7] = [
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
        "invalid value `9464`: write an address",
        "--metrics",
    ),
    (
        "APIFENCE_CLUSTER_CIDRS",
        "10.1.2.3/8",
        "has bits set after the first 8",
        "`10.0.0.0/8`",
    ),
];

#[test]
fn an_empty_variable_is_not_given_and_a_bad_one_is_named() {
    for row in Config::default().rows() {
        let name = format!("APIFENCE_{}", row.key.to_uppercase());
        for empty in ["", " "] {
            let (config, errors) = with_variables(&[(&name, empty)]);
            assert_eq!(errors, [], "{name}");
            assert_eq!(row_of(&config, row.key).1, "default");
        }
    }
    for (variable, value, cause, hint) in INVALID {
        let (config, errors) = with_variables(&[(variable, value)]);
        let [(have, have_hint)] = &errors[..] else {
            panic!("{variable}: {errors:?}");
        };
        let begins = format!("environment {variable}: ");
        assert!(have.starts_with(&begins) && have.contains(cause), "{have}");
        assert!(have_hint.contains(hint), "{have_hint}");
        assert!(config.rows().iter().all(|row| row.source == "default"));
    }
}

#[test]
fn an_unknown_variable_is_named_and_the_nearest_that_is_known() {
    for (variable, hint) in [
        ("APIFENCE_PROT", "did you mean `APIFENCE_PORT`?"),
        ("APIFENCE_INTERFACS", "`APIFENCE_INTERFACE"),
        (
            "APIFENCE_NO_NODE_ADDRESSES",
            "did you mean `APIFENCE_NODE_ADDRESSES`?",
        ),
        ("APIFENCE_CONFIG_FILE", "did you mean `APIFENCE_CONFIG`?"),
        ("APIFENCE_AUTHORIZED_IP_RANGES", "`apifence ranges set`"),
        ("APIFENCE_XYZZY", "unset it"),
    ] {
        let (_, errors) = with_variables(&[(variable, "1"), ("OTHER_VARIABLE", "1")]);
        let [(cause, have_hint)] = &errors[..] else {
            panic!("{variable}: {errors:?}");
        };
        assert_eq!(
            *cause,
            format!("environment: unknown variable `{variable}`")
        );
        assert!(have_hint.contains(hint), "{variable}: {have_hint}");
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
    let (config, errors) = with_variables(&links);
    assert_eq!(errors, []);
    assert_eq!(row_of(&config, "ports").1, "default");
}
