//! MPLS (RFC 3032).

use crate::{PacketBytes, Step, Walk};

/// Length of a label with what belongs to it, in bytes.
pub const LABEL_LEN: usize = 4;
/// Offset of the byte whose lowest bit says that no more labels follow (RFC 3032 section 2.1).
pub const BOTTOM: usize = 2;

/// A walk over the labels of a frame.
///
/// Behind the last one Linux looks at the version of what follows (`mpls_egress` in `net/mpls/af_mpls.c`), and hands it to the
/// interface that the label's route names: `lo`, for the explicit null label always.
pub(crate) struct Labels {
    /// Whether the last one was seen.
    pub(crate) bottom: bool,
}

impl Walk for Labels {
    #[inline(always)]
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step {
        match packet.read::<LABEL_LEN>(offset) {
            None => Step::Done(0),
            Some(label) if label[BOTTOM] & 1 == 1 => {
                self.bottom = true;
                Step::Done(LABEL_LEN)
            }
            Some(_) => Step::More(LABEL_LEN),
        }
    }
}
