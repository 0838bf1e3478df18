//! The kernel side as user space sees it: the only place that names aya.

mod attach;
mod maps;
mod object;

pub use attach::{Attachment, LogLines, attach, detach_link, program_name, replace};
pub use maps::{CounterRow, Maps, Policy, Slot, read_counters};
pub use object::{Program, create_maps};
