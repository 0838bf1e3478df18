//! The agent of Kubernetes, as it says itself how it is. It is another user: what it wrote is
//! shown, and nothing depends on it.

use std::{io, path::Path, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::diagnosis::{Check, ok, warn};
use crate::{store::read_without_link, ui::visible::visible_in_line};

/// The file in the directory of lists.
const FILE: &str = ".health.json";

/// The most bytes of it.
const MAX_LEN: u64 = 64 << 10;

/// How old it may be: the agent writes it every five seconds.
const MAX_AGE: Duration = Duration::from_secs(30);

/// The name of the check.
const CHECK: &str = "kubernetes";

#[derive(Deserialize)]
struct Health {
    alive: Timestamp,
    away: Option<Timestamp>,
    cause: Option<String>,
}

/// How the agent that writes to `directory` is at `now`; `None` if none has run.
pub(super) fn agent(directory: &Path, now: Timestamp) -> Option<Check> {
    let path = directory.join(FILE);
    let unclear = |why: &str| {
        warn(
            CHECK,
            format!("`{}`: {why}", path.display()),
            "`kubectl -n apifence-system get pods` shows the agent; the lists stay as they are",
        )
    };
    let bytes = match read_without_link(&path, MAX_LEN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(unclear(&error.to_string())),
        Ok(bytes) => bytes,
    };
    let Ok(health) = serde_json::from_slice::<Health>(&bytes) else {
        return Some(unclear("this is not a file of the agent"));
    };
    if now.duration_since(health.alive).unsigned_abs() > MAX_AGE {
        return Some(unclear(&format!(
            "the agent last wrote at {:.0}",
            health.alive
        )));
    }
    let Some(since) = health.away else {
        return Some(ok(CHECK, "the agent reaches the API"));
    };
    let cause = health.cause.unwrap_or_default();
    Some(warn(
        CHECK,
        format!(
            "the API does not answer since {since:.0}; its last lists stay in force: {}",
            visible_in_line(&cause)
        ),
        "the agent continues when the API answers; docs/kubernetes.md lists causes",
    ))
}
