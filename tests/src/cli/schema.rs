//! The schemas of the JSON output: whatever a suite makes `apifence` print is checked against its
//! own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use jsonschema::Validator;
use serde_json::{Deserializer, Value};

macro_rules! schemas {
    ($($name:literal,)*) => {
        &[$(($name, include_str!(concat!("../../../docs/reference/schema/", $name, ".json")))),*]
    };
}

/// The schemas by their names, in this program: it may run where the repository is not.
pub const SCHEMAS: &[(&str, &str)] = schemas![
    "attach",
    "check",
    "config",
    "confirm",
    "detach",
    "doctor",
    "doctor-bundle",
    "enforce",
    "events",
    "explain",
    "init",
    "monitor",
    "ranges-add",
    "ranges-clear",
    "ranges-delete",
    "ranges-edit",
    "ranges-history",
    "ranges-list",
    "ranges-lists",
    "ranges-prune",
    "ranges-reload",
    "ranges-remove",
    "ranges-rollback",
    "ranges-set",
    "run",
    "state",
    "stats",
    "stats-watch",
    "status",
    "suggest",
    "top",
    "version",
];

/// Options whose next word is their value.
const WITH_VALUE: [&str; 11] = [
    "-o",
    "--output",
    "--color",
    "--config",
    "--bpffs",
    "--state-dir",
    "--ranges-file",
    "--list",
    "--interface",
    "--port",
    "--mode",
];

/// The output of a command that there is a schema for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name of the schema.
    pub schema: String,
    /// Whether the command line asks for JSON; a file or a variable may do so as well.
    pub json: bool,
}

impl Asked {
    /// What a command line asks for; none if its output has no schema.
    pub fn of<S: AsRef<str>>(arguments: &[S]) -> Option<Self> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let has = |words: &[&str]| arguments.iter().any(|word| words.contains(word));
        if has(&["-h", "--help", "-V", "--version"]) {
            return None;
        }
        let format = arguments
            .windows(2)
            .any(|pair| ["-o", "--output"].contains(&pair[0]) && pair[1] == "json");
        let json = format || has(&["-ojson", "-o=json", "--output=json", "--json"]);
        let mut verbs = Vec::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            if WITH_VALUE.contains(word) {
                words.next();
            } else if !word.starts_with('-') {
                verbs.push(*word);
            }
        }
        let second = verbs.get(1).copied().unwrap_or_default();
        let schema = match *verbs.first()? {
            "ls" => "ranges-list".to_owned(),
            "rm" => "ranges-remove".to_owned(),
            "ranges" => match second {
                "ls" => "ranges-list".to_owned(),
                "rm" => "ranges-remove".to_owned(),
                verb => format!("ranges-{verb}"),
            },
            "stats" if has(&["--watch", "-w"]) => "stats-watch".to_owned(),
            verb => verb.to_owned(),
        };
        let is_known = SCHEMAS.iter().any(|(name, _)| *name == schema);
        is_known.then_some(Self { schema, json })
    }

    /// Whether each line of both streams is an object.
    pub fn is_log(&self) -> bool {
        self.schema == "run"
    }

    /// Checks what the command printed.
    ///
    /// # Errors
    /// The path of each fault.
    pub fn check(&self, text: &str) -> Result<()> {
        if !(self.json || text.trim_start().starts_with('{')) {
            return Ok(());
        }
        for value in Deserializer::from_str(text).into_iter() {
            let value = value
                .with_context(|| format!("the output of `{}` is not JSON: {text}", self.schema))?;
            check(&self.schema, &value)?;
        }
        Ok(())
    }
}

/// Checks a value against the schema `name`.
///
/// # Errors
/// The path of each fault.
pub fn check(name: &str, value: &Value) -> Result<()> {
    static COMPILED: Mutex<BTreeMap<String, &'static Validator>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = match compiled.get(name) {
        Some(validator) => *validator,
        None => {
            let validator: &Validator = Box::leak(Box::new(compile(name)?));
            compiled.insert(name.to_owned(), validator);
            validator
        }
    };
    drop(compiled);
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|fault| format!("`{}`: {fault}", fault.instance_path()))
        .collect();
    ensure!(
        faults.is_empty(),
        "not as docs/reference/schema/{name}.json says: {}\n{value:#}",
        faults.join("; ")
    );
    Ok(())
}

/// The schema `name`.
///
/// # Errors
/// If there is none.
pub fn schema(name: &str) -> Result<&'static Value> {
    static PARSED: OnceLock<BTreeMap<&str, Value>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| {
        let parse = |(name, text): &(&'static str, &str)| {
            (*name, serde_json::from_str(text).expect("a schema is JSON"))
        };
        SCHEMAS.iter().map(parse).collect()
    });
    parsed
        .get(name)
        .with_context(|| format!("no schema `{name}`"))
}

fn compile(name: &str) -> Result<Validator> {
    let options = jsonschema::options().should_validate_formats(true);
    options
        .build(schema(name)?)
        .with_context(|| format!("compile schema `{name}`"))
}
