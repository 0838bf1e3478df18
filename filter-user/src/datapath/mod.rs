//! The kernel side as user space sees it: the only place that names aya.

mod attach;
mod batch;
mod blank;
mod census;
mod counters;
mod maps;
mod object;
mod prefilter;
mod reports;
mod stage;
mod strangers;
mod sys;
mod table;
mod tries;
mod usage;

pub use attach::{Attachment, Link, Loaded, LogLines, detach_link, links, loaded, refusal};
pub use census::{Census, Family};
pub use counters::{CounterRow, Counters};
pub use maps::{Maps, Policy, Slot, Standing};
pub use object::{HeldMaps, Program, create_maps};
pub use reports::{Begin, News, Refused, ReportReader};
pub use strangers::{SeenStranger, read_strangers};
pub use usage::{Use, Used};
