//! The agent's objects, as an operator writes and reads them.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Lab;
use crate::wait::until;

/// The path of the objects with ranges.
const OBJECTS: &str = "/apis/apifence.io/v1alpha1/authorizedranges";
/// That of the nodes' reports.
const GUARDS: &str = "/apis/apifence.io/v1alpha1/nodeguards";

impl Lab {
    /// Applies an object with these ranges.
    pub fn authorize(&self, name: &str, ranges: &Value) -> Result<()> {
        self.apply(&object(name, ranges, &json!({})).to_string())
            .map(drop)
    }

    /// Withdraws all ranges of an object.
    pub fn withdraw(&self, name: &str) -> Result<()> {
        let meant = json!({"apifence.io/allow-empty": "true"});
        self.apply(&object(name, &json!([]), &meant).to_string())
            .map(drop)
    }

    /// An object, or the report of a node, with its status.
    fn read(&self, path: &str, name: &str) -> Result<Value> {
        let mut client = self.control_planes[0].api.local_client()?;
        client.get(&format!("{path}/{name}"))?.succeeded()?.json()
    }

    /// Waits until a condition of an object has this status, for its present generation; returns
    /// its message.
    pub fn until_condition(&self, name: &str, condition: &str, status: &str) -> Result<String> {
        self.until_any(OBJECTS, name, condition, |found| found["status"] == status)
    }

    /// Waits until the report of a node has a condition with this reason; returns its message.
    pub fn until_report(&self, node: &str, condition: &str, reason: &str) -> Result<String> {
        self.until_any(GUARDS, node, condition, |found| found["reason"] == reason)
    }

    fn until_any(
        &self,
        path: &str,
        name: &str,
        condition: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<String> {
        let (mut last, mut message) = (Value::Null, None);
        until(&format!("{name}: condition {condition}"), || {
            let object = self.read(path, name).unwrap_or_default();
            let conditions = object["status"]["conditions"].as_array();
            let found = conditions
                .into_iter()
                .flatten()
                .find(|found| found["type"] == condition);
            let generation = &object["metadata"]["generation"];
            let found = found.filter(|found| {
                let observed = &found["observedGeneration"];
                (observed.is_null() || observed == generation) && wanted(found)
            });
            message = found.map(|found| found["message"].as_str().unwrap_or_default().to_owned());
            last = object["status"].clone();
            Ok(message.is_some())
        })
        .with_context(|| {
            let logs = self.control_planes.iter().map(|one| one.agent.output());
            format!(
                "the last was {last:#}\nThe agents printed:\n{}",
                logs.collect::<String>()
            )
        })?;
        message.context("a message")
    }
}

fn object(name: &str, ranges: &Value, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apifence.io/v1alpha1",
        "kind": "AuthorizedRanges",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"ranges": ranges},
    })
}
