//! Programs and maps: the only place that names aya.

mod attach;
mod batch;
mod counters;
mod drop_reports;
mod held;
mod maps;
mod monitored_sources;
mod object;
mod prefilter;
mod range_counts;
mod slot;
mod staging;
mod sys;
mod table;
mod tries;
mod usage;

pub use self::{
    attach::{Attachment, Link, LogLines, Unnamed, detach_link, links, loaded, refusal},
    counters::{CounterRow, Counters},
    drop_reports::{DropReport, ReportBatch, ReportReader, StartAt},
    held::HeldMaps,
    maps::Maps,
    monitored_sources::{MonitoredSourceSeen, read_monitored_sources},
    object::{Program, create_maps},
    range_counts::{Family, RangeCounts},
    slot::{Group, PolicyState, Slot},
    staging::Staging,
    usage::Use,
};
