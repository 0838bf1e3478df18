//! The words that a person or a script reads: output, progress, errors.

pub mod error;
pub mod explain;
pub mod held;
pub mod output;
pub mod progress;
pub mod visible;
