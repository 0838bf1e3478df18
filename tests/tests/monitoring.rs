//! The alert rules and the dashboard under `deploy/`: valid, with existing metrics.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    cli::words,
    scrape::{ready, scrape},
    site::{ADMIN_RANGES, INTERFACE, Site},
};

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file)
}

fn rules() -> Result<String> {
    Ok(fs::read_to_string(deploy("prometheus/apifence.rules.yml"))?)
}

fn dashboard() -> Result<Value> {
    let text = fs::read_to_string(deploy("grafana/apifence.json"))?;
    serde_json::from_str(&text).context("the dashboard is no JSON")
}

/// Runs promtool in the folder of the rules, and requires success.
fn promtool(words: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(words)
        .current_dir(deploy("prometheus"))
        .output()
        .context("start `promtool`")?;
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy);
    ensure!(output.status.success(), "`promtool {words:?}`: {said:?}");
    Ok(())
}

/// Every string under a key `name`, at any depth.
fn strings<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == name => found.push(text),
                    _ => strings(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| strings(value, name, found)),
        _ => {}
    }
}

/// The metrics in `text`.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("apifence_"))
        .collect()
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() -> Result<()> {
    promtool(&["check", "rules", "apifence.rules.yml"])?;
    promtool(&["test", "rules", "apifence.rules.test.yml"])
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() -> Result<()> {
    let rules = rules()?;
    let tests = fs::read_to_string(deploy("prometheus/apifence.rules.test.yml"))?;
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let name = alert.lines().next().context("no name")?;
        for part in ["severity:", "summary:", "description:", "runbook:"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let (_, runbook) = alert.split_once("runbook:").context("no runbook")?;
        assert!(runbook.contains("`apifence "), "{name}: no command to run");
        let firing = format!("alertname=\"{name}\", alertstate=\"firing\"");
        assert!(tests.contains(&firing), "no test in which {name} fires");
    }
    Ok(())
}

#[test]
fn rules_and_dashboard_name_metrics_that_there_are() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let mut daemon = filter.start(&words(&format!(
        "run --interface {INTERFACE} --authorized-ip-ranges {ADMIN_RANGES}"
    )))?;
    ready(&site.node, &mut daemon)?;
    let page = scrape(&site.node)?;
    let there_are = page.names();

    let dashboard = dashboard()?;
    let mut expressions = Vec::new();
    for key in ["expr", "definition", "query"] {
        strings(&dashboard, key, &mut expressions);
    }
    assert!(expressions.len() > 10, "{expressions:?}");
    let rules = rules()?;
    for (place, text) in [
        ("the dashboard", expressions.join(" ")),
        ("the rules", rules),
    ] {
        let unknown: Vec<_> = metrics(&text).difference(&there_are).copied().collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?}");
    }
    // The other direction: every metric must be used.
    let shown = expressions.join(" ");
    let unseen: Vec<_> = there_are.difference(&metrics(&shown)).copied().collect();
    assert!(unseen.is_empty(), "on no panel: {unseen:?}");
    Ok(())
}

#[test]
fn the_dashboard_holds_together() -> Result<()> {
    let dashboard = dashboard()?;
    let mut variables = Vec::new();
    strings(&dashboard["templating"], "name", &mut variables);
    assert_eq!(variables, ["datasource", "instance"]);
    let mut sources = Vec::new();
    strings(&dashboard["panels"], "uid", &mut sources);
    assert!(sources.iter().all(|uid| *uid == "${datasource}"));

    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    let mut group = String::from("groups:\n- name: dashboard\n  rules:\n");
    for panel in panels {
        let title = panel["title"].as_str().context("no title")?;
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let place = |field: &str| panel["gridPos"][field].as_u64().context("no place");
        for x in place("x")?..place("x")? + place("w")? {
            for y in place("y")?..place("y")? + place("h")? {
                assert!(
                    x < 24 && cells.insert((x, y)),
                    "{title}: no room at {x}, {y}"
                );
            }
        }
        let mut expressions = Vec::new();
        strings(&panel["targets"], "expr", &mut expressions);
        assert!(!expressions.is_empty(), "{title} shows nothing");
        for expression in expressions {
            assert!(expression.contains("$instance"), "{title}: of any node");
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$__range", "6h");
            let rule = serde_json::json!({ "record": "a:b", "expr": expression });
            group.push_str(&format!("  - {rule}\n"));
        }
    }
    // promtool checks PromQL only in rules.
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), group)?;
    let path = file.path().to_str().context("a path that is no text")?;
    promtool(&["check", "rules", path])
}
