//! Pages, and parts of pages, that are made from the program and its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cli::Apifence,
    netns::Namespace,
    scrape::{get, ready, scrape},
    site::{ADMIN_RANGES, INTERFACE, Site},
    wait,
};

use super::page::{Page, root};

/// The commands, by the manual pages that there are: `ranges add` and the like.
fn commands(filter: &Apifence) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    filter.ok(&["man", &folder.path().display().to_string()])?;
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder.path())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(command) = name.strip_suffix(".1") else {
            continue;
        };
        let words = command.strip_prefix("apifence").unwrap_or_default();
        found.insert(words.replace('-', " ").trim().to_owned());
    }
    // `help` shows the same texts once more.
    found.retain(|command| command.split(' ').all(|word| word != "help"));
    Ok(found.into_iter().collect())
}

#[test]
fn the_page_of_commands_is_their_help() -> Result<()> {
    let desk = Namespace::new("desk")?;
    let filter = Apifence::new(&desk)?;
    let commands = commands(&filter)?;
    ensure!(commands.len() > 25, "{commands:?}");
    let mut text = String::new();
    for command in &commands {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = filter.ok(&words)?;
        let title = format!("apifence {command}");
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let mut help = lines.join("\n");
        // The first command has them with all words.
        if !command.is_empty()
            && let Some((before, after)) = help.split_once("Global options:\n")
        {
            let after = after.split_once("\n\n").map_or("", |(_, after)| after);
            help = format!("{before}{after}");
        }
        text += &format!(
            "## {}\n\n```text\n{}\n```\n\n",
            title.trim(),
            help.trim_end()
        );
    }
    Page::read("docs/reference/cli.md")?.require_part("help", &text)
}

/// A metric of a scrape.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// The metrics in Prometheus's text format.
fn metrics(text: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                found.entry(name.to_owned()).or_default().help = help.to_owned();
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                found.entry(name.to_owned()).or_default().kind = kind.to_owned();
            }
            _ => {
                let Some((name, rest)) = line.split_once('{') else {
                    continue;
                };
                let labels = rest.split('"').step_by(2).filter_map(|part| {
                    let label = part.trim_start_matches(',').strip_suffix('=')?;
                    Some(label.to_owned())
                });
                found
                    .entry(name.to_owned())
                    .or_default()
                    .labels
                    .extend(labels);
            }
        }
    }
    found
}

#[test]
fn the_page_of_metrics_has_those_of_a_scrape() -> Result<()> {
    let (site, filter) = Site::unguarded()?;
    let run = [
        "run",
        "--interface",
        INTERFACE,
        "--authorized-ip-ranges",
        ADMIN_RANGES,
    ];
    let mut daemon = filter.start(&run)?;
    ready(&site.node, &mut daemon)?;
    // One metric is there only if a range expires, another one only during a trial.
    filter.ok(&["ranges", "add", "203.0.113.9", "--expires", "30d"])?;
    wait::until("the file is read", || {
        let expiry = "apifence_range_expiry_timestamp_seconds";
        Ok(scrape(&site.node)?.sum(expiry, &[]).is_some())
    })?;
    filter.ok(&["ranges", "add", "203.0.113.0/24", "--confirm-within", "1h"])?;
    let scraped = get(&site.node, "/metrics")?.body;
    let metrics = metrics(&scraped);
    ensure!(metrics.len() > 15, "{scraped}");
    let mut table = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    for (name, metric) in &metrics {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let Metric { kind, help, .. } = metric;
        table += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    let table = table.replace("|  |", "| |");
    Page::read("docs/reference/metrics.md")?.require_part("metrics", &table)
}

/// An alert of the rules.
#[derive(Default)]
struct Alert {
    name: String,
    /// Its keys, at any depth, each with its text.
    values: BTreeMap<String, String>,
}

/// The alerts in the file of rules: of YAML, what that file needs.
fn alerts(text: &str) -> Vec<Alert> {
    let mut found: Vec<Alert> = Vec::new();
    let mut last: Option<(usize, String)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("- alert: ") {
            found.push(Alert {
                name: name.to_owned(),
                ..Alert::default()
            });
            last = None;
            continue;
        }
        let Some(alert) = found.last_mut() else {
            continue;
        };
        // A folded text goes on with more indentation than its key.
        if let Some((key_indent, key)) = &last
            && indent > *key_indent
        {
            let value = alert.values.entry(key.clone()).or_default();
            *value = format!("{value} {line}").trim().to_owned();
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let (key, value) = (key.to_owned(), value.trim());
        last = (!value.is_empty()).then(|| (indent, key.clone()));
        let value = value.trim_start_matches(">-").trim_matches('"');
        alert.values.insert(key, value.to_owned());
    }
    found
}

/// `text` with names in place of templates: `INTERFACE` for `{{ $labels.interface }}`.
fn without_templates(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (template, after) = after.split_once("}}").unwrap_or((after, ""));
        let template = template.trim();
        let word = match template.strip_prefix("$labels.") {
            Some(label) => label.to_uppercase(),
            None if template == "else" => " or ".to_owned(),
            None if template == "end" || template.starts_with("if ") => String::new(),
            None => "VALUE".to_owned(),
        };
        plain += &format!("{before}{word}");
        rest = after;
    }
    plain + rest
}

/// `text` in lines of at most 98 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + word.chars().count() + 1 > 98 {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.join("\n")
}

#[test]
fn the_page_of_alerts_has_those_of_the_rules() -> Result<()> {
    let rules = fs::read_to_string(root().join("deploy/prometheus/apifence.rules.yml"))?;
    let alerts = alerts(&rules);
    ensure!(alerts.len() > 10, "only {} alerts", alerts.len());
    let mut text = String::new();
    for alert in &alerts {
        let value = |key: &str| {
            let value = alert.values.get(key);
            let value = value.filter(|value| !value.is_empty());
            let value = value.with_context(|| format!("{} has no `{key}`", alert.name))?;
            anyhow::Ok(without_templates(value))
        };
        let summary = value("summary")?;
        let head = format!(
            "Severity `{}`, after {}.",
            value("severity")?,
            value("for")?
        );
        let means = wrapped(&format!("*{summary}.* {head} {}", value("description")?));
        let first = wrapped(&format!("**First:** {}", value("runbook")?));
        text += &format!("## {}\n\n{means}\n\n{first}\n\n", alert.name);
    }
    Page::read("docs/reference/alerts.md")?.require_part("alerts", &text)
}

#[test]
fn rules_are_read_and_their_templates_named() {
    let text = "groups:\n  - alert: A\n    expr: >-\n      x\n      > 1\n    for: 5m\n    labels:\n      severity: info\n    annotations:\n      summary: \"s\"\n      runbook: >-\n        run `x {{ $labels.code }}` and\n        wait {{ $value | humanize }}\n";
    let alerts = alerts(text);
    let value = |key: &str| without_templates(&alerts[0].values[key]);
    assert_eq!(alerts[0].name, "A");
    assert_eq!(
        (value("expr"), value("for")),
        ("x > 1".to_owned(), "5m".to_owned())
    );
    assert_eq!(value("severity"), "info");
    assert_eq!(value("runbook"), "run `x CODE` and wait VALUE");
}

/// The paragraphs of the example of a config file: comments without their `# `, and the lines that
/// set something.
fn settings(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut words = String::new();
        let mut lines = Vec::new();
        for line in paragraph.lines() {
            match line.strip_prefix('#') {
                Some(comment) if comment.is_empty() || comment.starts_with(' ') => {
                    words += &format!("{} ", comment.trim());
                }
                Some(setting) => lines.push(setting.to_owned()),
                None => lines.push(line.to_owned()),
            }
        }
        if !lines.is_empty() {
            found.push((words.trim().to_owned(), lines));
        }
    }
    found
}

#[test]
fn the_page_of_settings_has_those_of_the_example() -> Result<()> {
    let example = fs::read_to_string(root().join("deploy/apifence.toml"))?;
    let desk = Namespace::new("desk")?;
    let filter = Apifence::new(&desk)?;
    let help = filter.ok(&["config", "--help"])?;
    let words: BTreeSet<&str> = help.split([' ', '\n', ',', '`']).collect();
    let mut text = String::new();
    let mut named = BTreeSet::new();
    for (comment, lines) in settings(&example) {
        let comment = wrapped(&comment);
        let first = &lines[0];
        let Some((key, default)) = first.split_once(" = ").filter(|_| lines.len() == 1) else {
            let lines = lines.join("\n");
            let title = first.trim_matches(['[', ']']);
            text += &format!("## {title}\n\n{comment}\n\n```toml\n{lines}\n```\n\n");
            named.insert(title.split('.').next().unwrap_or_default().to_owned());
            continue;
        };
        let flag = key.replace('_', "-");
        let flags = [
            flag.clone(),
            flag.trim_end_matches('s').to_owned(),
            format!("no-{flag}"),
        ];
        let mut flags = flags.iter().map(|flag| format!("--{flag}"));
        let flag = flags
            .find(|flag| words.contains(&**flag))
            .context(key.to_owned())?;
        let variable = key.to_uppercase();
        text += &format!(
            "## {key}\n\n{comment}\n\nDefault `{default}`, flag `{flag}`, variable `APIFENCE_{variable}`.\n\n"
        );
        named.insert(key.to_owned());
    }
    let shown = filter.json(&["config"])?;
    let rows = shown["settings"].as_array().into_iter().flatten();
    let all: BTreeSet<String> = rows
        .filter_map(|row| row["key"].as_str())
        .map(str::to_owned)
        .collect();
    assert_eq!(named, all);
    Page::read("docs/reference/config.md")?.require_part("keys", &text)
}
