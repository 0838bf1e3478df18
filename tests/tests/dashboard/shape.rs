//! The dashboard is what Grafana expects, and it hangs together.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{dashboard, elements, json, text};

/// The variables, in the order of the screen.
const VARIABLES: [&str; 6] = [
    "datasource",
    "cluster",
    "job",
    "instance",
    "interface",
    "docs",
];

fn schema() -> Result<Validator> {
    let schema = json("data/grafana-dashboard-39.schema.json")?;
    jsonschema::draft7::new(&schema).context("the schema itself")
}

/// The fields of an object.
fn fields<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

#[test]
fn it_fits_the_schema_of_the_version_that_it_names() -> Result<()> {
    let dashboard = dashboard()?;
    let schema = schema()?;
    let errors: Vec<String> = schema
        .iter_errors(&dashboard)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(errors.is_empty(), "{errors:#?}");
    Ok(())
}

/// Each of these mistakes would be seen.
#[test]
fn the_schema_refuses_mistakes() -> Result<()> {
    let schema = schema()?;
    let good = dashboard()?;
    let panels: Vec<&str> = elements(&good, "/panels")
        .map(|panel| text(panel, "/type"))
        .collect();
    let first = |kind: &str| {
        let place = panels.iter().position(|panel| *panel == kind);
        place.with_context(|| format!("no {kind}"))
    };
    let (table, lines) = (first("table")?, first("timeseries")?);
    for (pointer, value) in [
        ("/schemaVersion".to_owned(), json!(40)),
        (format!("/panels/{table}/gridPos/w"), json!(25)),
        (format!("/panels/{table}/type"), json!("tabel")),
        (
            format!("/panels/{table}/datasource/uid"),
            json!("P1809F7CD0C75ACF3"),
        ),
        (format!("/panels/{table}/targets/0/refId"), json!("first")),
        (format!("/panels/{table}/targets/0/exp"), json!("up")),
        (
            format!("/panels/{lines}/options/tooltip/mode"),
            json!("all"),
        ),
        (
            format!("/panels/{lines}/fieldConfig/defaults/unit"),
            json!("packets"),
        ),
        (
            format!("/panels/{lines}/fieldConfig/defaults/custom/fill"),
            json!(1),
        ),
        (
            format!("/panels/{lines}/fieldConfig/defaults/color/fixedColor"),
            json!("rot"),
        ),
    ] {
        let mut bad = good.clone();
        let (parent, field) = pointer.rsplit_once('/').context("no field")?;
        bad.pointer_mut(parent).context("no such place")?[field] = value;
        ensure!(!schema.is_valid(&bad), "{pointer}");
    }
    Ok(())
}

#[test]
fn its_panels_have_ids_and_places_of_their_own() -> Result<()> {
    let dashboard = dashboard()?;
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut rows = Vec::new();
    for panel in elements(&dashboard, "/panels") {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        assert!(titles.insert(title), "{title}: two panels");
        let place = |field: &str| panel["gridPos"][field].as_u64().context("no place");
        for x in place("x")?..place("x")? + place("w")? {
            for y in place("y")?..place("y")? + place("h")? {
                let is_free = x < 24 && cells.insert((x, y));
                assert!(is_free, "{title}: no room at {x}, {y}");
            }
        }
        if text(panel, "/type") == "row" {
            rows.push(title);
        }
    }
    assert_eq!(rows, ["State", "Traffic", "List", "Health"]);
    Ok(())
}

/// Every query is of the chosen nodes, and every variable that is named exists.
#[test]
fn its_queries_use_its_variables() -> Result<()> {
    let dashboard = dashboard()?;
    let variables: Vec<&str> = elements(&dashboard, "/templating/list")
        .map(|variable| text(variable, "/name"))
        .collect();
    assert_eq!(variables, VARIABLES);
    for panel in elements(&dashboard, "/panels") {
        let title = text(panel, "/title");
        let queried = elements(panel, "/targets").chain([panel]);
        for source in queried.filter_map(|part| part.get("datasource")) {
            assert_eq!(text(source, "/uid"), "${datasource}", "{title}");
        }
        for target in elements(panel, "/targets") {
            let query = text(target, "/expr");
            for variable in ["$cluster", "$job", "$instance"] {
                assert!(
                    query.contains(variable),
                    "{title}: {query}: of any {variable}"
                );
            }
            let is_traffic = query.contains("apifence_packets_total{")
                || query.contains("apifence_bytes_total{");
            assert!(
                !is_traffic || query.contains("$interface"),
                "{title}: {query}"
            );
        }
    }
    // `$__` and `${__` are Grafana's own.
    let all = dashboard.to_string();
    for named in all.split('$').skip(1) {
        let named = named.trim_start_matches('{');
        let end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
        let name = named.split(end).next().unwrap_or_default();
        assert!(
            name.starts_with("__") || VARIABLES.contains(&name),
            "no variable `{name}`"
        );
    }
    Ok(())
}

/// The columns that a table shows and colours are those that its queries have.
#[test]
fn its_tables_name_their_own_columns() -> Result<()> {
    let dashboard = dashboard()?;
    for panel in elements(&dashboard, "/panels").filter(|panel| text(panel, "/type") == "table") {
        let title = text(panel, "/title");
        let queries: Vec<&Value> = elements(panel, "/targets").collect();
        let mut columns = BTreeSet::from(["Time".to_owned()]);
        for query in &queries {
            assert_eq!(query["instant"], true, "{title}");
            assert_eq!(query["format"], "table", "{title}");
            columns.insert(match queries[..] {
                [_] => "Value".to_owned(),
                _ => format!("Value #{}", text(query, "/refId")),
            });
            let by = text(query, "/expr")
                .split(" by (")
                .nth(1)
                .context("no labels")?;
            let labels = by.split(')').next().unwrap_or_default();
            columns.extend(labels.split(", ").map(str::to_owned));
        }
        let organize = elements(panel, "/transformations")
            .last()
            .context("no columns")?;
        assert_eq!(text(organize, "/id"), "organize", "{title}");
        let named = |field: &str| {
            let pointer = format!("/options/{field}");
            fields(organize, &pointer)
                .map(|(name, _)| name.clone())
                .collect::<BTreeSet<_>>()
        };
        let (shown, hidden) = (named("renameByName"), named("excludeByName"));
        assert_eq!(&shown | &hidden, columns, "{title}");
        assert!(shown.is_disjoint(&hidden), "{title}");
        assert_eq!(named("indexByName"), shown, "{title}");

        let names: BTreeSet<&str> = fields(organize, "/options/renameByName")
            .filter_map(|(_, name)| name.as_str())
            .collect();
        let overrides = elements(panel, "/fieldConfig/overrides");
        let overrides = overrides.map(|part| text(part, "/matcher/options"));
        let sorted = elements(panel, "/options/sortBy").map(|part| text(part, "/displayName"));
        for name in overrides.chain(sorted) {
            assert!(names.contains(name), "{title}: no column `{name}`");
        }
    }
    Ok(())
}

/// What is dropped is red, what monitor mode would drop is orange, what is authorized is green.
#[test]
fn verdicts_have_their_colours() -> Result<()> {
    let dashboard = dashboard()?;
    for (title, colour) in [
        ("Authorized", "green"),
        ("Dropped, by reason", "red"),
        ("Would be dropped, by reason", "orange"),
    ] {
        let mut panels = elements(&dashboard, "/panels");
        let panel = panels
            .find(|panel| text(panel, "/title") == title)
            .context(title)?;
        assert_eq!(
            text(panel, "/fieldConfig/defaults/color/fixedColor"),
            colour,
            "{title}"
        );
    }
    Ok(())
}
