//! The words that a person or a script reads: output, progress, errors.

pub mod error;
pub mod explain;
pub mod held;
pub mod line;
pub mod number;
pub mod output;
pub mod page;
pub mod progress;
pub mod redraw;
pub mod style;
pub mod table;
pub mod visible;
pub mod when;
