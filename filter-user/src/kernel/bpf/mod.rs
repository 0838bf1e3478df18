//! The kernel side as user space sees it: the only place that names aya.

mod attach;
mod batch;
mod census;
mod counters;
mod maps;
mod object;
mod prefilter;
mod reports;
mod slot;
mod stage;
mod strangers;
mod sys;
mod table;
mod tries;
mod usage;

pub use self::{
    attach::{Attachment, Link, LogLines, detach_link, links, loaded, refusal},
    census::{Census, Family},
    counters::{CounterRow, Counters},
    maps::Maps,
    object::{HeldMaps, Program, create_maps},
    reports::{Begin, News, Refused, ReportReader},
    slot::{PolicyState, Slot},
    stage::Staging,
    strangers::read_strangers,
    usage::Use,
};
