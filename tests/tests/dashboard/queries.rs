//! A real Prometheus scrapes three nodes with real packets, and answers every query of the
//! dashboard with data.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    cli::{Apifence, Background},
    mounts::BPFFS,
    net::{Echo, Transfer, connect},
    prometheus::{Prometheus, Target},
    scrape::{ENDPOINT, ready, scrape, until_not_ready},
    site::{ADMIN, ADMIN_RANGES, INTERFACE, NODE, Site, UNLISTED, ip},
    wait,
};

use super::{dashboard, elements, text};

const PORT: u16 = 6443;
const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/prometheus/apifence.rules.yml"
);
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
/// The node that drops packets, the one in monitor mode, and the one with problems.
const TARGETS: [Target; 3] = [
    Target {
        job: "apifence",
        cluster: "east",
        instance: "node-a",
        address: "192.0.2.10:9464",
    },
    Target {
        job: "apifence",
        cluster: "east",
        instance: "node-b",
        address: ENDPOINT,
    },
    Target {
        job: "apifence",
        cluster: "east",
        instance: "node-c",
        address: "203.0.113.9:9464",
    },
];
/// Two values of the dashboard's variables: the choice "All", and one of each.
const CHOICES: [[(&str, &str); 4]; 2] = [
    [
        ("cluster", ".*"),
        ("job", ".*"),
        ("instance", ".*"),
        ("interface", ".*"),
    ],
    [
        ("cluster", "east"),
        ("job", "apifence"),
        ("instance", "(node-a|node-b|node-c)"),
        ("interface", INTERFACE),
    ],
];

/// An interface that the last node should guard and does not have.
const MISSING: &str = "eth7";

/// The nodes and their traffic. All of it ends when dropped.
struct Nodes {
    site: Site,
    daemons: [Background; 3],
    filters: [Apifence; 3],
    _server: Echo,
    _transfer: Transfer,
}

impl Nodes {
    fn new() -> Result<Self> {
        let (site, first, server) = Site::unguarded_server(PORT)?;
        let second = Apifence::new(&site.admin)?.with_bpffs(format!("{BPFFS}/second"));
        let third = Apifence::new(&site.unlisted)?.with_bpffs(format!("{BPFFS}/third"));
        let daemons = [
            enforcing(&site, &first)?,
            monitoring(&site, &second)?,
            with_problems(&site, &third)?,
        ];
        let target = SocketAddr::new(ip(NODE[0]), PORT);
        let transfer = Transfer::new(&site.admin, ip(ADMIN[0]), target)?;
        Ok(Self {
            site,
            daemons,
            filters: [first, second, third],
            _server: server,
            _transfer: transfer,
        })
    }

    /// The unlisted client sends a few packets to both nodes, more than are reported.
    fn unlisted_traffic(&self) {
        for target in [NODE[0], ADMIN[0]] {
            let target = SocketAddr::new(ip(target), PORT);
            // The first node does not answer, and that is what is measured.
            for _ in 0..60 {
                let within = Duration::from_millis(1);
                let _ = connect(&self.site.unlisted, ip(UNLISTED[0]), target, within);
            }
        }
    }
}

/// A node that drops packets: with a range that expires, one that has expired, and a change on
/// trial.
fn enforcing(site: &Site, filter: &Apifence) -> Result<Background> {
    let old = "203.0.113.1 expires=2020-01-01T00:00:00Z";
    filter.write_list(format!("{}\n{old}\n", ADMIN_RANGES.replace(',', "\n")))?;
    let listen = ["--metrics-listen", "0.0.0.0:9464"];
    let run = [&["run", "--interface", INTERFACE][..], &listen].concat();
    let mut daemon = filter.start(&run)?;
    ready(&site.node, &mut daemon)?;
    filter.ok(&["ranges", "add", "203.0.113.7", "--expires", "12h"])?;
    wait::until("the file with it is read", || {
        let expiry = "apifence_range_expiry_timestamp_seconds";
        Ok(scrape(&site.node)?.sum(expiry, &[]).is_some())
    })?;
    filter.ok(&["ranges", "add", "203.0.113.8", "--confirm-within", "10m"])?;
    Ok(daemon)
}

/// A node in monitor mode.
fn monitoring(site: &Site, filter: &Apifence) -> Result<Background> {
    filter.write_list(format!("{}\n", NODE[0]))?;
    let mut daemon = filter.start(&["run", "--interface", INTERFACE, "--mode", "monitor"])?;
    ready(&site.admin, &mut daemon)?;
    Ok(daemon)
}

/// A node whose first start finds broken lists, and a missing interface.
fn with_problems(site: &Site, filter: &Apifence) -> Result<Background> {
    filter.write_list_of("feed", "nonsense\n")?;
    filter.write_list("nonsense\n")?;
    let interfaces = format!("{INTERFACE},{MISSING}");
    let listen = ["--metrics-listen", "0.0.0.0:9464"];
    let run = [&["run", "--interface", &interfaces][..], &listen].concat();
    let mut daemon = filter.start(&run)?;
    daemon.line(|line| line.starts_with("metrics at"))?;
    until_not_ready(&site.unlisted)?;
    Ok(daemon)
}

/// `query` as Grafana sends it.
fn interpolated(query: &str, choice: &[(&str, &str)]) -> String {
    let mut query = query
        .replace("$__rate_interval", "4s")
        .replace("$__range", "1m");
    for (name, value) in choice {
        query = query.replace(&format!("${name}"), value);
    }
    query
}

/// The names in a legend's braces.
fn labels(legend: &str) -> impl Iterator<Item = &str> {
    let parts = legend.split("{{").skip(1);
    parts.filter_map(|part| Some(part.split_once("}}")?.0))
}

/// Asks one query of a panel, and returns what is wrong with the answer.
fn ask(prometheus: &Prometheus, target: &Value, choice: &[(&str, &str)]) -> Result<Option<String>> {
    let query = interpolated(text(target, "/expr"), choice);
    let series = if target["instant"] == true {
        prometheus.query(&query)?
    } else {
        prometheus.query_range(&query, 30)?
    };
    if series.is_empty() {
        return Ok(Some(format!("no data: {query}")));
    }
    let legend = text(target, "/legendFormat");
    let missing = labels(legend).find(|label| {
        let has = |series: &Value| series["metric"].get(*label).is_some();
        !series.iter().all(has)
    });
    Ok(missing.map(|label| format!("no label `{label}`: {query}")))
}

#[test]
fn every_query_of_the_dashboard_has_data() -> Result<()> {
    let mut nodes = Nodes::new()?;
    let prometheus = Prometheus::start(&nodes.site.admin, &TARGETS, Path::new(RULES))?;
    let dashboard = dashboard()?;
    // Rates need two scrapes with traffic between them.
    wait::until("Prometheus has scraped the nodes", || {
        nodes.unlisted_traffic();
        thread::sleep(Duration::from_millis(200));
        let scrapes = prometheus.query("min(count_over_time(apifence_build_info[1m])) >= 4")?;
        Ok(!scrapes.is_empty())
    })?;

    let mut faults = Vec::new();
    for panel in elements(&dashboard, "/panels") {
        for target in elements(panel, "/targets") {
            for choice in &CHOICES {
                let fault = ask(&prometheus, target, choice)?;
                faults.extend(fault.map(|fault| format!("{}: {fault}", text(panel, "/title"))));
            }
        }
    }
    ensure!(faults.is_empty(), "{faults:#?}\n{}", prometheus.log());

    the_metrics_are_on_panels_and_in_the_documentation(&nodes, &dashboard)?;
    the_variables_have_values(&prometheus, &dashboard)?;
    the_annotations_have_data(&prometheus, &dashboard, &nodes)?;
    the_rules_are_evaluated(&prometheus)?;
    a_node_that_does_not_answer_is_shown(&prometheus, &dashboard, &mut nodes)
}

/// The names of apifence's metrics in `text`.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let words = text.split(is_end);
    let words = words.filter(|word| word.starts_with("apifence_"));
    words.map(str::to_owned).collect()
}

/// Every metric is on a panel and in the documentation, and panels and rules name no others.
fn the_metrics_are_on_panels_and_in_the_documentation(
    nodes: &Nodes,
    dashboard: &Value,
) -> Result<()> {
    let mut there_are = BTreeSet::new();
    for namespace in [&nodes.site.node, &nodes.site.admin, &nodes.site.unlisted] {
        there_are.extend(metrics(&scrape(namespace)?.text));
    }
    let queries = elements(dashboard, "/panels").flat_map(|panel| elements(panel, "/targets"));
    let queries: String = queries
        .map(|target| text(target, "/expr").to_owned() + "\n")
        .collect();
    assert_eq!(
        metrics(&queries),
        there_are,
        "on the dashboard, and of the nodes"
    );
    let unknown = &metrics(&fs::read_to_string(RULES)?) - &there_are;
    assert!(unknown.is_empty(), "in the rules: {unknown:?}");
    let reference = fs::read_to_string(REFERENCE)?;
    let unknown = &there_are - &metrics(&reference);
    assert!(unknown.is_empty(), "not in {REFERENCE}: {unknown:?}");
    Ok(())
}

/// The value lists of the variables, one after the other as Grafana fills them.
fn the_variables_have_values(prometheus: &Prometheus, dashboard: &Value) -> Result<()> {
    let expected: [(&str, &[&str]); 4] = [
        ("cluster", &["east"]),
        ("job", &["apifence"]),
        ("instance", &["node-a", "node-b", "node-c"]),
        ("interface", &[INTERFACE, MISSING]),
    ];
    for (name, values) in expected {
        let mut variables = elements(dashboard, "/templating/list");
        let variable = variables.find(|variable| text(variable, "/name") == name);
        let variable = variable.context(name)?;
        let query = text(variable, "/query/query");
        assert_eq!(query, text(variable, "/definition"), "{name}");
        let query = query
            .strip_prefix("label_values(")
            .context("another query")?;
        let query = query.strip_suffix(')').context("another query")?;
        let (selector, label) = query.rsplit_once(", ").context("no label")?;
        let selector = interpolated(selector, &CHOICES[0]);
        assert_eq!(prometheus.label_values(&selector, label)?, values, "{name}");
    }
    Ok(())
}

/// A change of the list is an annotation.
fn the_annotations_have_data(
    prometheus: &Prometheus,
    dashboard: &Value,
    nodes: &Nodes,
) -> Result<()> {
    let queries: Vec<String> = elements(dashboard, "/annotations/list")
        .map(|annotation| interpolated(text(annotation, "/expr"), &CHOICES[1]))
        .filter(|query| !query.is_empty())
        .collect();
    ensure!(queries.len() == 1, "{queries:?}");
    ensure!(
        prometheus.query_range(&queries[0], 30)?.is_empty(),
        "before a change"
    );
    let [_, monitoring, _] = &nodes.filters;
    monitoring.ok(&["ranges", "add", "203.0.113.10"])?;
    wait::until("the change is an annotation", || {
        let series = prometheus.query_range(&queries[0], 30)?;
        Ok(series
            .iter()
            .any(|series| series["metric"]["instance"] == "node-b"))
    })
}

/// Every rule is evaluated without an error, and these alerts are raised.
fn the_rules_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    wait::until("every rule is evaluated", || {
        let rules = prometheus.rules()?;
        ensure!(rules.len() > 10, "no rules");
        for rule in &rules {
            ensure!(text(rule, "/lastError").is_empty(), "{rule:#}");
        }
        Ok(rules.iter().all(|rule| rule["health"] == "ok"))
    })?;
    let rules = prometheus.rules()?;
    let is_raised = |rule: &&Value| rule["state"] == "pending" || rule["state"] == "firing";
    let raised: BTreeSet<&str> = rules
        .iter()
        .filter(is_raised)
        .map(|rule| text(rule, "/name"))
        .collect();
    for name in [
        "ApifenceDrift",
        "ApifenceFilesNotInForce",
        "ApifenceInterfaceNotAttached",
        "ApifenceListUnusable",
        "ApifenceListsDiffer",
        "ApifenceMonitorMode",
        "ApifenceRangeExpires",
        "ApifenceReloadFailing",
        "ApifenceTrial",
        "ApifenceTrialPending",
        "ApifenceWarning",
    ] {
        assert!(raised.contains(name), "no {name} in {raised:?}");
    }
    for name in [
        "ApifenceAbsent",
        "ApifenceNotReady",
        "ApifenceListNearLimit",
    ] {
        assert!(!raised.contains(name), "{name} in {raised:?}");
    }
    Ok(())
}

/// The table of nodes keeps the line of a node whose `run` has ended, and an alert is raised.
fn a_node_that_does_not_answer_is_shown(
    prometheus: &Prometheus,
    dashboard: &Value,
    nodes: &mut Nodes,
) -> Result<()> {
    let [.., last] = &mut nodes.daemons;
    last.signal(Signal::SIGTERM)?;
    last.wait()?;
    let query = dashboard
        .pointer("/panels/1/targets/0/expr")
        .and_then(Value::as_str)
        .context("no table of nodes")?;
    let query = interpolated(query, &CHOICES[0]);
    wait::until("the table shows that the node is down", || {
        let series = prometheus.query(&query)?;
        ensure!(series.len() == 3, "{series:?}");
        let is_down =
            |series: &Value| series["metric"]["instance"] == "node-c" && series["value"][1] == "0";
        Ok(series.iter().any(is_down))
    })?;
    wait::until("an alert", || {
        let rules = prometheus.rules()?;
        let mut absent = rules.iter().filter(|rule| rule["name"] == "ApifenceAbsent");
        Ok(absent.any(|rule| rule["state"] == "pending"))
    })
}
