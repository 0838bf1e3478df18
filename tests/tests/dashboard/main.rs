//! The dashboard under `deploy/grafana`: its shape, and the answers to its queries. No Grafana is
//! needed.

mod queries;
mod shape;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The dashboard.
fn dashboard() -> Result<Value> {
    json("../deploy/grafana/apifence.json")
}

/// The file at `path` from the folder of this crate, which holds JSON.
fn json(path: &str) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The elements of the array at `pointer` in `value`.
fn elements<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The text at `pointer` in `value`; empty if there is none.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
