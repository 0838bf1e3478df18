//! The words that a person or a script reads: output, progress, errors.

pub mod crates;
pub mod error;
pub mod explain;
pub mod held;
pub mod json;
pub mod line;
pub mod log;
pub mod number;
pub mod output;
pub mod page;
pub mod progress;
pub mod redraw;
pub mod style;
pub mod table;
pub mod visible;
pub mod when;
