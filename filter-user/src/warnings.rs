//! Facts of this node that let traffic bypass the filter, or that make it drop too much.

mod facts;
pub mod node;

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

pub use self::facts::Facts;
use crate::codes::{Acknowledgement, Code, Severity, is_acknowledged};

/// A fact that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(into = "WarningFields")]
pub struct Warning {
    /// Its kind.
    pub code: Code,
    /// The interface that it is about, if it is about one.
    pub interface: Option<String>,
    /// Its objects: interfaces, ports, addresses, ranges. An acknowledgement names one of these.
    pub objects: BTreeSet<String>,
    /// The fact.
    pub message: String,
    /// The remedy.
    pub hint: String,
    /// Whether the operator acknowledged it.
    pub acknowledged: bool,
}

impl Warning {
    /// A warning of the kind `code`, without objects.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            interface: None,
            objects: BTreeSet::new(),
            message: plain(&message.into()),
            hint: plain(&hint.into()),
            acknowledged: false,
        }
    }

    /// The same about the interface `name`.
    #[must_use]
    pub fn on(mut self, name: &str) -> Self {
        self.interface = Some(name.to_owned());
        self.about([name])
    }

    /// The same about `objects`.
    #[must_use]
    pub fn about<T: ToString>(mut self, objects: impl IntoIterator<Item = T>) -> Self {
        let objects = objects.into_iter();
        let objects = objects.map(|object| plain(&object.to_string()).trim().to_owned());
        self.objects.extend(objects);
        self
    }

    /// Its identity: the message may change while the warning stays the same.
    pub fn key(&self) -> (Code, BTreeSet<String>) {
        (self.code, self.objects.clone())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.acknowledged {
            " (acknowledged)"
        } else {
            ""
        };
        write!(
            f,
            "{}{known}: {} [{}]\nhint: {}",
            self.code.severity().label(),
            self.message,
            self.code,
            self.hint
        )
    }
}

/// A warning as programs read it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Warning"))]
struct WarningFields {
    /// The number of its kind, like `W08`. It never changes its meaning.
    code: Code,
    /// The name of its kind, like `tunnel`.
    name: &'static str,
    /// Whether it needs the operator's attention.
    severity: Severity,
    /// The interface that it is about; null if it is not about one.
    interface: Option<String>,
    /// The fact, in words. They may change in any version.
    message: String,
    /// What to do, in words.
    hint: String,
    /// Whether the operator acknowledged it.
    acknowledged: bool,
}

impl From<Warning> for WarningFields {
    fn from(warning: Warning) -> Self {
        Self {
            code: warning.code,
            name: warning.code.name(),
            severity: warning.code.severity(),
            interface: warning.interface,
            message: warning.message,
            hint: warning.hint,
            acknowledged: warning.acknowledged,
        }
    }
}

/// `text` without control characters: names of devices and chains can hold any byte.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// Sorts the warnings for display, and marks those that are in `known`.
pub fn sorted(mut warnings: Vec<Warning>, known: &[Acknowledgement]) -> Vec<Warning> {
    for warning in &mut warnings {
        warning.acknowledged = is_acknowledged(known, warning.code, &warning.objects);
    }
    warnings.sort_by(|one, other| {
        let rank = |warning: &Warning| (warning.code.severity(), warning.code);
        rank(one)
            .cmp(&rank(other))
            .then_with(|| one.objects.cmp(&other.objects))
    });
    warnings
}
