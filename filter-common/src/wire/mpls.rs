//! MPLS (RFC 3032).

/// Length of a label stack entry, in bytes (RFC 3032 section 2.1).
pub const LABEL_LEN: usize = 4;
/// Offset of the byte whose lowest bit is the bottom of the stack: this label is the last (RFC 3032
/// section 2.1).
pub const BOTTOM: usize = 2;
