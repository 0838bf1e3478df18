//! What `cluster_cidrs` stands for, as it is shown.

use std::fmt;

use anyhow::Error;
use serde::Serialize;

use crate::{
    change::build::cluster_fault,
    config::{ClusterCidr, Settings},
    context::Context,
    ranges::Lists,
};

/// A value of `cluster_cidrs`, and the ranges that it stands for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ClusterRow {
    /// The CIDR or the name.
    value: ClusterCidr,
    /// How many ranges it stands for.
    ranges: usize,
    /// Why its file cannot be used, so that its last known ranges count; null if it can be used.
    fault: Option<String>,
}

impl fmt::Display for ClusterRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.ranges) {
            (ClusterCidr::Range(range), _) => range.fmt(f),
            (name, 1) => write!(f, "{name} (1 range)"),
            (name, ranges) => write!(f, "{name} ({ranges} ranges)"),
        }
    }
}

impl ClusterRow {
    /// Whether it is a name.
    pub(crate) const fn is_preset(&self) -> bool {
        matches!(self.value, ClusterCidr::Preset(_))
    }

    /// The fault of its file.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

/// The values of `cluster_cidrs` in `settings`, and the files that they were looked up in.
pub(crate) fn cluster_rows(context: &Context, settings: &Settings) -> (Vec<ClusterRow>, Lists) {
    let read = context.read_cluster(settings.cluster_files());
    let fault = |value: &ClusterCidr| {
        let name = value.file()?;
        let is_it = |(faulty, _): &&(_, Error)| *faulty == name;
        let (_, error) = read.faults.iter().find(is_it)?;
        Some(cluster_fault(error, read.lists.get(&name).is_some()))
    };
    let rows = settings.cluster.iter().map(|value| ClusterRow {
        value: *value,
        ranges: value.ranges(&read.lists).len(),
        fault: fault(value),
    });
    let rows = rows.collect();
    (rows, read.lists)
}
