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
    ui::output::eprint,
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

/// Reports a provisional change and its author: the values shown next to it may be rolled back.
pub(crate) fn report_trial(maps: &Maps) -> Result<()> {
    let standing = maps.standing()?;
    let Some(trial) = Provisional::of(standing, &Clocks::now()?) else {
        return Ok(());
    };
    let by = maps.author(standing.slot()).ok().flatten();
    let by = by.map_or_else(String::new, |by| format!(" by {by}"));
    eprint(format_args!(
        "note: a change{by} is on trial until {}, for {} s more; then the old policy returns by itself (`apifence confirm` keeps this one)",
        trial.until, trial.seconds_left
    ));
    Ok(())
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
