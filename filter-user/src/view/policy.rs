//! The policy in force as it is shown.

use std::fmt;

use anyhow::Result;
use filter_common::{
    Mode,
    layout::{Origin, PolicyRecord},
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock::{Clocks, to_second},
    kernel::bpf::{Maps, PolicyState},
    policy::author::Author,
    ui::{line::Line, style::Ink, when::span},
};

/// A change on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Provisional {
    /// When the previous generation is active again: RFC 3339, UTC.
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    pub(crate) until: Timestamp,
    /// Seconds until then.
    pub(crate) seconds_left: u64,
}

impl Provisional {
    pub(crate) fn of(standing: PolicyState, now: &Clocks) -> Option<Self> {
        let PolicyState::Provisional { until, .. } = standing else {
            return None;
        };
        Some(Self {
            until: to_second(now.wall_at_boot(until)),
            seconds_left: until.saturating_sub(now.boot).div_ceil(1_000_000_000),
        })
    }
}

/// A change on trial, and its author.
pub(crate) struct Trial {
    pub(crate) provisional: Provisional,
    by: Option<Author>,
}

impl Trial {
    /// The one in `maps`, if there is one.
    pub(crate) fn read(maps: &Maps) -> Result<Option<Self>> {
        let standing = maps.standing()?;
        let provisional = Provisional::of(standing, &Clocks::now()?);
        Ok(provisional.map(|provisional| Self {
            provisional,
            by: maps.author(standing.slot()).ok().flatten(),
        }))
    }

    /// The line for a screen about something else.
    pub(crate) fn line(&self) -> Line {
        let by = self.by.as_ref();
        let by = by.map_or_else(String::new, |by| format!(" ({})", by.short()));
        Line::inked(Ink::Caution, format!("on trial{by}: ")).and_line(self.provisional.line())
    }
}

impl Provisional {
    /// The trial and the commands that end it.
    pub(crate) fn line(&self) -> Line {
        let left = format!("reverts in {}", span(self.seconds_left));
        Line::inked(Ink::Caution, left)
            .and("   keep: ")
            .and_inked(Ink::Hint, "apifence confirm")
            .and("   undo: ")
            .and_inked(Ink::Hint, "apifence ranges rollback")
    }
}

impl fmt::Display for Provisional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "provisional: {} s left, until {}; then the old policy returns by itself (`apifence confirm` keeps this one)",
            self.seconds_left, self.until
        )
    }
}

/// The headline: the verdict for packets from unauthorized sources to `ports`.
pub(crate) fn headline(state: &str, ports: &str) -> String {
    match state {
        "enforcing" => {
            format!("enforcing: TCP {ports} from sources outside the authorized ranges is dropped")
        }
        "monitoring" => format!(
            "monitoring: TCP {ports} from sources outside the authorized ranges is counted, and passes"
        ),
        "off" => "off: enforcement is switched off, everyone passes".to_owned(),
        "unknown" => "unknown: a filter is attached, and its policy cannot be read".to_owned(),
        _ => "detached: no filter is attached, everyone passes".to_owned(),
    }
}

/// The word for the effect of the policy of `record`, if a filter is attached.
pub(crate) fn state(record: &PolicyRecord) -> &'static str {
    match record.mode {
        mode if mode == Mode::Off as u8 => "off",
        mode if mode == Mode::Monitor as u8 => "monitoring",
        _ => "enforcing",
    }
}

/// The names of a set of origin bits.
pub(crate) fn origin_labels(origins: u8) -> Vec<&'static str> {
    Origin::ALL
        .into_iter()
        .filter(|origin| origins & *origin as u8 != 0)
        .map(Origin::label)
        .collect()
}
