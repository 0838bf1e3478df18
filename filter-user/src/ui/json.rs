//! JSON as it is written: with the number of its schema, and with hidden characters escaped.

use serde::Serialize;

use super::visible::visible_json;

/// The number of the promise about JSON: fields are added, and never renamed or removed. It rises
/// if that promise must be broken. `docs/reference/schema` has the schemas.
pub const SCHEMA: u32 = 1;

/// An object with the number of its schema.
#[derive(Serialize)]
pub struct Numbered<'a, T> {
    schema: u32,
    #[serde(flatten)]
    data: &'a T,
}

impl<'a, T: Serialize> Numbered<'a, T> {
    /// `data`, an object, with the number.
    pub const fn new(data: &'a T) -> Self {
        Self {
            schema: SCHEMA,
            data,
        }
    }

    /// In one line.
    ///
    /// # Errors
    /// If `data` is not an object.
    pub fn line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(visible_json)
    }

    /// In several lines, for people as well.
    ///
    /// # Errors
    /// If `data` is not an object.
    pub fn pretty(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(visible_json)
    }
}

/// The schema of a time.
#[cfg(test)]
pub(crate) struct Time;

#[cfg(test)]
impl schemars::JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}
