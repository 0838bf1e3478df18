//! The configuration of k0s.

use std::path::PathBuf;

use super::files::{Root, flags};

/// The unit of a controller of k0s, which may be a worker, too.
pub(super) const UNIT: &str = "k0scontroller.service";

/// The path of the configuration: as the unit has it, or the usual one.
pub(super) fn config(root: &Root) -> PathBuf {
    let words = root.unit(UNIT).map(|(_, words)| words).unwrap_or_default();
    let named = [flags(&words, "--config"), flags(&words, "-c")].concat();
    let named = named.last().map(PathBuf::from);
    named.unwrap_or_else(|| "/etc/k0s/k0s.yaml".into())
}
