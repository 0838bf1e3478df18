//! MPLS (RFC 3032).

/// Length of a label with what belongs to it, in bytes.
pub const LABEL_LEN: usize = 4;
/// Offset of the byte whose lowest bit says that no more labels follow (RFC 3032 section 2.1).
pub const BOTTOM: usize = 2;
