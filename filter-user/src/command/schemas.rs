//! The schemas of the JSON output, in `docs/reference/schema`, from the types that are written.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p filter-user schemas` writes the files.

use std::{collections::BTreeMap, env, fs, path::Path};

use schemars::{
    JsonSchema,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};

use super::{
    check::CheckReport,
    config::ConfigReport,
    confirm::Confirmed,
    doctor::{Bundle, Diagnosis},
    edit::Unedited,
    events::NotReported,
    explain::Explained,
    feed::Written,
    history::HistoryReport,
    init::Files,
    list::ListReport,
    lists::ListsReport,
    mode::Changed,
    ranges::RolledBack,
    rates::Rates,
    status::Status,
    suggest::Suggestions,
    version::Version,
};
use crate::{
    change::{attached::Attached, changed::Change, detach::Detached},
    daemon::written::{Counters, LogEntry, NodeState},
    top::Printed,
    ui::{
        json::SCHEMA,
        log::{Level, Message},
    },
    view::{event::Event, stats::Stats},
    warnings::Warning,
};

/// A line of `events`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
enum Events {
    /// A packet that was dropped, or would have been.
    Event(Event),
    /// Packets without an event.
    NotReported(NotReported),
}

/// A line of `run`, from either stream.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
enum Run<'a> {
    /// Dropped packets. On stdout.
    Log(LogEntry),
    /// The counters, each minute if they changed. On stdout.
    Counters(Counters<'a>),
    /// The interfaces that the filter was removed from, with `--detach-on-exit`. On stdout.
    Detached(Detached),
    /// A warning about this node. On stderr.
    Warning(Warning),
    /// Anything else. On stderr.
    Message(Message<'a>),
}

/// The result of `ranges set`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
enum Set {
    /// The result of a change of the list.
    Change(Box<Change>),
    /// The result for a user who may write the file of that list, and nothing else.
    Written(Written),
}

/// The result of `ranges rollback`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
enum RollBack {
    /// The result of a change of the list.
    Change(Box<Change>),
    /// The result of taking back a change on trial.
    RolledBack(RolledBack),
}

/// The result of `ranges edit`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
enum Edit {
    /// The result of a change of the list.
    Change(Box<Change>),
    /// The result of an edit that changed nothing.
    Unedited(Unedited),
}

/// All schemas by the names of their files.
fn schemas() -> BTreeMap<&'static str, Value> {
    let mut all: BTreeMap<&str, Value> = [
        ("attach", of::<Attached>("apifence attach")),
        ("check", of::<CheckReport>("apifence check")),
        ("config", of::<ConfigReport>("apifence config")),
        ("confirm", of::<Confirmed>("apifence confirm")),
        ("detach", of::<Detached>("apifence detach")),
        ("doctor", of::<Diagnosis>("apifence doctor")),
        ("enforce", of::<Changed>("apifence enforce")),
        ("events", of::<Events>("apifence events, each line")),
        ("explain", of::<Explained>("apifence explain")),
        ("init", of::<Files<'_>>("apifence init")),
        ("monitor", of::<Changed>("apifence monitor")),
        ("ranges-edit", of::<Edit>("apifence ranges edit")),
        (
            "ranges-history",
            of::<HistoryReport>("apifence ranges history"),
        ),
        ("ranges-list", of::<ListReport>("apifence ranges list")),
        ("ranges-lists", of::<ListsReport>("apifence ranges lists")),
        (
            "ranges-rollback",
            of::<RollBack>("apifence ranges rollback"),
        ),
        ("ranges-set", of::<Set>("apifence ranges set")),
        ("state", of::<NodeState<'_>>("/run/apifence/state.json")),
        ("stats", of::<Stats>("apifence stats")),
        (
            "stats-watch",
            of::<Rates>("apifence stats --watch, each line"),
        ),
        ("status", of::<Status>("apifence status")),
        ("suggest", of::<Suggestions>("apifence suggest")),
        ("top", of::<Printed>("apifence top")),
        ("version", of::<Version>("apifence version")),
    ]
    .into();
    for (name, command) in [
        ("ranges-add", "apifence ranges add"),
        ("ranges-clear", "apifence ranges clear"),
        ("ranges-delete", "apifence ranges delete"),
        ("ranges-prune", "apifence ranges prune"),
        ("ranges-reload", "apifence ranges reload"),
        ("ranges-remove", "apifence ranges remove"),
    ] {
        all.insert(name, of::<Change>(command));
    }
    let mut run = of::<Run<'_>>("apifence run, each line of both streams");
    let level = schema_of::<Level>();
    add(
        &mut run,
        "level",
        &json!({"description": level["description"], "oneOf": level["oneOf"]}),
    );
    let time = "RFC 3339, UTC, three digits of the second.";
    add(
        &mut run,
        "time",
        &json!({"description": time, "type": "string", "format": "date-time"}),
    );
    all.insert("run", run);
    // An address may be replaced by a name.
    let mut bundle = of::<Bundle<'_>>("The report of `apifence doctor --bundle`");
    each_object(&mut bundle, &mut |object| {
        object.remove("pattern");
        object.remove("maxLength");
        let is_address = |format: &mut Value| *format != "date-time";
        if object.get_mut("format").is_some_and(is_address) && object["type"] == "string" {
            object.remove("format");
        }
    });
    all.insert("doctor-bundle", bundle);
    all
}

/// The schema of `T`, with the number that all outputs have, and `title`.
fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = schema_of::<T>();
    schema["title"] = title.into();
    add(
        &mut schema,
        "schema",
        &json!({
            "description": "The number of the promise: fields are added, never renamed or removed.",
            "const": SCHEMA,
        }),
    );
    schema
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with_transform(Plain);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    if let Some(range) = schema.pointer_mut("/$defs/IpNet") {
        // That of the crate has an IPv4 range match IPv6, too.
        *range = json!({
            "description": "An IPv4 or IPv6 address, a slash, and the length of the prefix.",
            "type": "string",
            "pattern": "^[0-9a-f.:]+/[0-9]{1,3}$",
        });
        let all = schema["$defs"].as_object_mut().expect("an object");
        all.retain(|name, _| !["Ipv4Net", "Ipv6Net"].contains(&&**name));
    }
    schema
}

/// Adds a required property to the root of `schema`.
fn add(schema: &mut Value, name: &str, property: &Value) {
    let root = schema.as_object_mut().expect("a schema is an object");
    root.insert("type".to_owned(), "object".into());
    let properties = root.entry("properties").or_insert_with(|| json!({}));
    properties[name] = property.clone();
    let required = root.entry("required").or_insert_with(|| json!([]));
    let required = required.as_array_mut().expect("a list of names");
    if !required.iter().any(|known| known == name) {
        required.insert(0, name.into());
    }
}

/// Takes out what has no meaning outside of Rust.
#[derive(Clone)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        transform_subschemas(self, schema);
        if let Some(text) = schema.get("description").and_then(Value::as_str) {
            // A line of a comment is none of the text.
            let text = text.replace('\n', " ");
            schema.insert("description".to_owned(), text.into());
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str)
            && [
                "uint", "uint8", "uint16", "uint32", "uint64", "double", "ip",
            ]
            .contains(&format)
        {
            // Other programs do not know these.
            schema.remove("format");
        }
    }
}

fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object
                .values_mut()
                .for_each(|value| each_object(value, change));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each_object(value, change)),
        _ => {}
    }
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/schema");
    let is_update = env::var_os("UPDATE_SCHEMAS").is_some();
    let mut wanted = BTreeMap::new();
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        wanted.insert(format!("{name}.json"), text);
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if is_update && !wanted.contains_key(&*name) {
            fs::remove_file(&path).expect("a file");
        }
        found.insert(
            name.into_owned(),
            fs::read_to_string(&path).unwrap_or_default(),
        );
    }
    if is_update {
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in &wanted {
            fs::write(folder.join(name), text).expect("a file");
        }
        return;
    }
    let names: Vec<&String> = wanted.keys().chain(found.keys()).collect();
    for name in names {
        assert_eq!(
            found.get(name),
            wanted.get(name),
            "{name}: `UPDATE_SCHEMAS=1 cargo test -p filter-user schemas` writes it"
        );
    }
}

#[test]
fn every_field_is_described() {
    let mut bare = Vec::new();
    for (name, mut schema) in schemas() {
        each_object(&mut schema, &mut |object| {
            let Some(Value::Object(properties)) = object.get("properties") else {
                return;
            };
            for (field, property) in properties {
                // The name of a variant.
                let is_bare = property.get("description").is_none() && field != "log";
                // Not the properties of a field that is named so.
                if is_bare && property.is_object() {
                    bare.push(format!("{name}.json: {field}: {property}"));
                }
            }
        });
    }
    assert!(bare.is_empty(), "{}", bare.join("\n"));
}
