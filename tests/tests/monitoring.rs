//! The alert rules and the provisioning files under `deploy/`. The suite `dashboard` asks the
//! queries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where the documentation of the alerts is, in the rules. A placeholder.
const DOCUMENTATION: &str = "https://apifence.example.org/docs/reference/alerts.md#";

/// The file at `path` from the root of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository(path)).with_context(|| path.to_owned())
}

/// Runs promtool in the folder of the rules, and requires success.
fn promtool(words: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(words)
        .current_dir(repository("deploy/prometheus"))
        .output()
        .context("start `promtool`")?;
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy);
    ensure!(output.status.success(), "`promtool {words:?}`: {said:?}");
    Ok(())
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() -> Result<()> {
    promtool(&["check", "rules", "apifence.rules.yml"])?;
    promtool(&["test", "rules", "apifence.rules.test.yml"])
}

/// Its name, its lines in the rules.
fn alerts(rules: &str) -> impl Iterator<Item = (&str, &str)> {
    let alerts = rules.split("- alert: ").skip(1);
    alerts.filter_map(|alert| Some((alert.lines().next()?, alert)))
}

#[test]
fn every_alert_says_what_to_do() -> Result<()> {
    let rules = read("deploy/prometheus/apifence.rules.yml")?;
    let reference = read("docs/reference/alerts.md")?;
    assert!(alerts(&rules).count() > 10);
    for (name, alert) in alerts(&rules) {
        for part in ["severity:", "summary:", "description:", "runbook:"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let (_, runbook) = alert.split_once("runbook:").context("no runbook")?;
        assert!(runbook.contains("`apifence "), "{name}: no command to run");
        let anchor = name.to_lowercase();
        let url = format!("runbook_url: {DOCUMENTATION}{anchor}\n");
        assert!(alert.contains(&url), "{name}: no {url}");
        let is_heading = |line: &str| {
            line.starts_with('#') && line.trim_matches(['#', ' ', '`']).to_lowercase() == anchor
        };
        assert!(
            reference.lines().any(is_heading),
            "{name} is not documented"
        );
    }
    Ok(())
}

/// Each alert fires in a test, and is over at the end of that test.
#[test]
fn every_alert_is_tested_until_it_is_over() -> Result<()> {
    let rules = read("deploy/prometheus/apifence.rules.yml")?;
    let tests = read("deploy/prometheus/apifence.rules.test.yml")?;
    let tests: Vec<&str> = tests.split("\n  - name: ").skip(1).collect();
    let over = "- { expr: 'ALERTS";
    for (name, _) in alerts(&rules) {
        let firing = format!("alertname=\"{name}\", alertstate=\"firing\"");
        let is_over = |test: &&str| {
            let fired = test.rfind(&firing);
            let ended = test.rfind(over).filter(|place| {
                let line = test[*place..].lines().next().unwrap_or_default();
                !line.contains("firing") && line.ends_with("exp_samples: [] }")
            });
            fired.is_some_and(|fired| ended.is_some_and(|ended| fired < ended))
        };
        assert!(tests.iter().any(is_over), "{name}: no test to its end");
    }
    Ok(())
}

/// The page about monitoring names every alert and every panel.
#[test]
fn the_page_names_every_alert_and_panel() -> Result<()> {
    let page = read("docs/operate/monitoring.md")?;
    let rules = read("deploy/prometheus/apifence.rules.yml")?;
    for (name, alert) in alerts(&rules) {
        let severity = alert.split("severity: ").nth(1).context("no severity")?;
        let severity = severity.lines().next().unwrap_or_default();
        let row = format!("| `{severity}` |");
        let row = page.lines().find(|line| line.starts_with(&row));
        let row = row.with_context(|| format!("no row {severity}"))?;
        assert!(
            row.contains(&format!("`{name}`")),
            "{name} is not {severity}"
        );
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/apifence.json")?)?;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let is_query = ["table", "timeseries", "state-timeline"].map(Value::from);
        if !is_query.contains(&panel["type"]) {
            continue;
        }
        let title = panel["title"].as_str().context("no title")?;
        // Two panels of the process share a row.
        let title = title.trim_end_matches(" of apifence run");
        assert!(page.contains(title), "no panel `{title}`");
    }
    Ok(())
}

/// The provisioning files name the files and the data source that there are.
#[test]
fn provisioning_names_the_dashboard() -> Result<()> {
    let provider = read("deploy/grafana/provisioning/dashboards/apifence.yaml")?;
    let folder = "path: /usr/share/apifence/grafana";
    assert!(provider.contains(folder), "{provider}");
    let package = read("filter-user/Cargo.toml")?;
    let packaged = "\"usr/share/apifence/grafana/";
    assert!(
        package.contains(packaged),
        "the packages have no dashboard there"
    );
    let source = read("deploy/grafana/provisioning/datasources/prometheus.yaml")?;
    assert!(source.contains("type: prometheus"), "{source}");
    Ok(())
}
