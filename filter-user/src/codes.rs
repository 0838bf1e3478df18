//! The codes of warnings: names, severities and acknowledgements. `text.rs` explains them.
//!
//! A code never changes its meaning and is never reused: scripts, alerts and acknowledgements
//! depend on it.

mod text;

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Serialize, Serializer};

pub use self::text::Text;
use crate::ui::log::Level;

/// A kind of warning. Its number is shown as `W01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// An interface should be guarded, but is not.
    UnguardedInterface = 1,
    /// A filter is attached whose pins are elsewhere.
    FilteredElsewhere = 2,
    /// A range holds every address of its family.
    Everyone = 3,
    /// The maps of the filter cannot be read.
    UnreadablePolicy = 4,
    /// The files were unusable at the last start.
    PolicySource = 5,
    /// Other users may write a file that the policy depends on.
    WrittenByOthers = 6,
    /// A listener is reachable over an interface without a filter.
    UnguardedListener = 7,
    /// A tunnel without a filter.
    Tunnel = 8,
    /// A listener is reachable at an address that is not a guarded destination.
    OutsideDestinations = 9,
    /// Destinations are rewritten on this node.
    RewrittenDestination = 10,
    /// The program runs in the network stack.
    GenericXdp = 11,
    /// All clients appear under the same few addresses.
    HiddenClients = 12,
    /// The node's own connections may start from a protected port.
    EphemeralPort = 13,
    /// Ranges have expired.
    Expired = 14,
    /// An overlay of the cluster's network carries pod traffic.
    ClusterOverlay = 15,
}

/// Severity of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Needs the operator's attention.
    Warning,
    /// For information.
    Info,
}

impl Severity {
    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    /// Its level in the log of `run`.
    pub const fn level(self) -> Level {
        match self {
            Self::Warning => Level::Warning,
            Self::Info => Level::Info,
        }
    }
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::UnguardedInterface,
        Self::FilteredElsewhere,
        Self::Everyone,
        Self::UnreadablePolicy,
        Self::PolicySource,
        Self::WrittenByOthers,
        Self::UnguardedListener,
        Self::Tunnel,
        Self::OutsideDestinations,
        Self::RewrittenDestination,
        Self::GenericXdp,
        Self::HiddenClients,
        Self::EphemeralPort,
        Self::Expired,
        Self::ClusterOverlay,
    ];

    /// Its number as shown, `W01`.
    pub fn number(self) -> String {
        format!("W{:02}", self as u8)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnguardedInterface => "unguarded-interface",
            Self::FilteredElsewhere => "filtered-elsewhere",
            Self::Everyone => "everyone",
            Self::UnreadablePolicy => "unreadable-policy",
            Self::PolicySource => "policy-source",
            Self::WrittenByOthers => "written-by-others",
            Self::UnguardedListener => "unguarded-listener",
            Self::Tunnel => "tunnel",
            Self::OutsideDestinations => "outside-destinations",
            Self::RewrittenDestination => "rewritten-destination",
            Self::GenericXdp => "generic-xdp",
            Self::HiddenClients => "hidden-clients",
            Self::EphemeralPort => "ephemeral-port",
            Self::Expired => "expired",
            Self::ClusterOverlay => "cluster-overlay",
        }
    }

    /// Its severity.
    pub const fn severity(self) -> Severity {
        match self {
            Self::ClusterOverlay => Severity::Info,
            _ => Severity::Warning,
        }
    }

    /// Whether an operator can acknowledge it. Not if the filter itself differs from what the
    /// operator believes: that must be fixed, and an acknowledgement would also silence the next
    /// occurrence.
    pub const fn can_be_acknowledged(self) -> bool {
        !matches!(
            self,
            Self::UnguardedInterface
                | Self::FilteredElsewhere
                | Self::Everyone
                | Self::UnreadablePolicy
                | Self::PolicySource
                | Self::WrittenByOthers
        )
    }

    /// How to silence it, in a sentence.
    pub fn silence(self) -> String {
        let number = self.number();
        if self.can_be_acknowledged() {
            format!(
                "`apifence status --ack {number}` acknowledges the current warnings with this code, \
                 `--ack {number}:NAME` only the one for that interface, port or address. \
                 `acknowledged_warnings = [\"{number}\"]` in the config file also acknowledges future ones."
            )
        } else {
            "This warning cannot be acknowledged. Remove its cause.".to_owned()
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.number())
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Code {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^W[0-9]{2}$" })
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// No such warning exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// By number or name, in upper or lower case.
impl FromStr for Code {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let text = text.trim();
        let is = |code: &Self| {
            text.eq_ignore_ascii_case(&code.number()) || text.eq_ignore_ascii_case(code.name())
        };
        Self::ALL.into_iter().find(is).ok_or(Unknown)
    }
}

/// All codes with their names, for an error.
pub fn listed() -> String {
    let each = Code::ALL.map(|code| format!("{code} `{}`", code.name()));
    each.join(", ")
}

/// An acknowledged warning: a code for all objects, or for one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledgement {
    /// The code.
    pub code: Code,
    /// The interface, port, address or range; `None` for all.
    pub object: Option<String>,
}

impl Acknowledgement {
    /// Reads `W08`, `tunnel`, or `W08:wg0`.
    ///
    /// # Errors
    /// The cause of the fault, and a hint.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let (code, object) = match text.split_once(':') {
            Some((code, object)) => (code, Some(object.trim())),
            None => (text, None),
        };
        let code: Code = code.parse().map_err(|Unknown| {
            (
                format!("unknown warning `{}`", code.trim()),
                format!("the codes are {}", listed()),
            )
        })?;
        if !code.can_be_acknowledged() {
            return Err((
                format!("{code} (`{}`) cannot be acknowledged", code.name()),
                format!(
                    "the filter may not do what you expect: `apifence explain {code}` shows the fix"
                ),
            ));
        }
        if object == Some("") {
            return Err((
                format!("`{}` has nothing after the colon", text.trim()),
                format!("write it like `{code}`, or `{code}:eth1` for one interface"),
            ));
        }
        let object = object.map(str::to_owned);
        Ok(Self { code, object })
    }

    /// Whether it covers this object of a warning with this code.
    fn covers(&self, code: Code, object: &str) -> bool {
        self.code == code && self.object.as_ref().is_none_or(|own| own == object)
    }
}

impl fmt::Display for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{}:{object}", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

/// Whether every object of a warning with this code is acknowledged.
pub fn is_acknowledged(known: &[Acknowledgement], code: Code, objects: &BTreeSet<String>) -> bool {
    let is_known = |object: &String| known.iter().any(|known| known.covers(code, object));
    code.can_be_acknowledged() && !objects.is_empty() && objects.iter().all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These entries never change; other numbers and names may be added at the end.
    #[test]
    fn a_code_keeps_its_meaning() {
        let table = Code::ALL.map(|code| {
            let silent = if code.can_be_acknowledged() {
                ""
            } else {
                " always told"
            };
            let (name, severity) = (code.name(), code.severity().label());
            format!("{code} {name} {severity}{silent}")
        });
        assert_eq!(
            table,
            [
                "W01 unguarded-interface warning always told",
                "W02 filtered-elsewhere warning always told",
                "W03 everyone warning always told",
                "W04 unreadable-policy warning always told",
                "W05 policy-source warning always told",
                "W06 written-by-others warning always told",
                "W07 unguarded-listener warning",
                "W08 tunnel warning",
                "W09 outside-destinations warning",
                "W10 rewritten-destination warning",
                "W11 generic-xdp warning",
                "W12 hidden-clients warning",
                "W13 ephemeral-port warning",
                "W14 expired warning",
                "W15 cluster-overlay info",
            ]
        );
    }

    #[test]
    fn numbers_and_names_find_the_same_code() {
        for code in Code::ALL {
            for text in [
                code.number(),
                code.number().to_lowercase(),
                code.name().to_owned(),
                code.name().to_uppercase(),
            ] {
                assert_eq!(text.parse(), Ok(code), "{text}");
            }
        }
        for text in ["", "W", "W1", "W00", "W16", "W099", "tunnels", "8"] {
            assert_eq!(text.parse::<Code>(), Err(Unknown), "{text}");
        }
    }

    #[test]
    fn an_acknowledgement_is_about_a_code_or_an_object_of_it() {
        let parse = |text: &str| Acknowledgement::parse(text);
        let known = |texts: &[&str], objects: &[&str]| {
            let known: Vec<_> = texts.iter().map(|text| parse(text).expect(text)).collect();
            let objects = objects.iter().map(|object| (*object).to_owned()).collect();
            is_acknowledged(&known, Code::Tunnel, &objects)
        };
        assert!(known(&["W08"], &["wg0", "wg1"]));
        assert!(known(&["tunnel:wg0", "w08: wg1"], &["wg0", "wg1"]));
        assert!(!known(&["W08:wg0"], &["wg0", "wg1"]));
        assert!(!known(&["W08:wg0"], &["wg01"]));
        assert!(!known(&["W07", "W15"], &["wg0"]));
        assert!(!known(&[], &["wg0"]));
        assert!(!known(&["W08"], &[]));
        // An object may hold colons.
        let address = parse("W09:[2001:db8::1]:6443").expect("one");
        assert_eq!(address.object.as_deref(), Some("[2001:db8::1]:6443"));
        assert_eq!(parse(&address.to_string()), Ok(address));
        for code in Code::ALL {
            assert_eq!(
                parse(&format!("{code}:x")).is_ok(),
                code.can_be_acknowledged()
            );
        }
        for text in ["", ":", ":wg0", "W08:", "W08: ", "W99"] {
            parse(text).expect_err(text);
        }
        // These stay even if a file acknowledges them.
        let forged = Acknowledgement {
            code: Code::Everyone,
            object: None,
        };
        assert!(!is_acknowledged(
            &[forged],
            Code::Everyone,
            &["0.0.0.0/0".to_owned()].into()
        ));
    }

    #[test]
    fn every_code_is_explained() {
        for code in Code::ALL {
            let Text {
                title,
                means,
                harm,
                fix,
            } = code.text();
            assert!(title.len() <= 70 && !title.ends_with('.'), "{code}");
            for text in [means, harm, fix] {
                assert!(text.ends_with('.') && text.len() > 40, "{code}: {text}");
            }
        }
    }
}
