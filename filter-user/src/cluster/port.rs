//! A port, and where the fact comes from.

/// A port, and the source of the fact in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// What it is for, and the file and key that say so.
    pub from: String,
}
