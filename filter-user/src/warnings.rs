//! Facts of this node that let traffic bypass the filter, or that make it drop too much.

mod facts;
pub mod node;

use std::{collections::BTreeSet, fmt};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

pub use self::facts::Facts;
use crate::codes::{Acknowledgement, Code, is_acknowledged};

/// A fact that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("Warning", 7)?;
        object.serialize_field("code", &self.code)?;
        object.serialize_field("name", self.code.name())?;
        object.serialize_field("severity", &self.code.severity())?;
        object.serialize_field("interface", &self.interface)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("hint", &self.hint)?;
        object.serialize_field("acknowledged", &self.acknowledged)?;
        object.end()
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
