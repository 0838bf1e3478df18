//! What an operator should know about this node, though nothing is broken: how traffic may come past the filter, or the filter may
//! hit what it should not.

mod devices;
mod facts;
pub mod node;

use std::{collections::BTreeSet, fmt};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

pub use self::facts::Facts;
use crate::codes::{Acknowledgement, Code, is_acknowledged};

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What kind it is.
    pub code: Code,
    /// The interface that it is about, if it is about one.
    pub interface: Option<String>,
    /// What it is about: interfaces, ports, addresses, ranges. An acknowledgement is one of these.
    pub objects: BTreeSet<String>,
    /// What is so.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether somebody said that it is known.
    pub acknowledged: bool,
}

impl Warning {
    /// One of the kind `code`, about nothing in particular.
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

    /// What tells it from every other one: its words may change while it stays the same.
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

/// `text` as a terminal and a line of a file may have it: the names of devices and of chains can hold any byte.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// In the order in which they are shown, each marked if it is one of those that are `known`.
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
