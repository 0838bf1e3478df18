//! Bounded access to the bytes of a frame.

/// The highest offset at which a frame can be read, in bytes.
///
/// The verifier takes a packet pointer plus at most this much (`MAX_PACKET_OFF` in
/// `kernel/bpf/verifier.c`), and `bpf_xdp_load_bytes` refuses more (`bpf_xdp_pointer` in
/// `net/core/filter.c`, Linux 5.18). An IP packet is no longer than this, so only a frame of the largest MTU can
/// reach further, with its last few bytes; headers there count as unreadable, never as absent.
pub const MAX_OFFSET: usize = 0xffff;

/// A frame whose bytes are read with their bounds checked.
///
/// Implemented for `&[u8]` here and for the XDP frame in `filter-ebpf`, so that one classifier serves
/// both.
pub trait PacketBytes {
    /// The length of the whole frame in bytes, the parts beyond the linear one included.
    ///
    /// This may cost a helper call: the classifier asks only where a header is missing or names no length.
    fn frame_len(&self) -> usize;

    /// The `N` bytes at `offset`; `None` if the frame ends before them, or `offset` is beyond
    /// [`MAX_OFFSET`].
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Steps `walk` from `offset` on until it is done, and returns the offset it came to.
    ///
    /// The XDP frame does this with `bpf_loop`, whose body the verifier checks once: so a chain of any
    /// length is walked to its end.
    fn walk<W: Walk>(&self, offset: usize, walk: &mut W) -> usize;
}

/// The most steps a [`Walk`] takes: one for each byte that can be read, so that the frame always ends first.
pub const MAX_STEPS: u32 = MAX_OFFSET as u32 + 1;

/// A loop over the headers of a frame, one header a step.
pub trait Walk {
    /// Looks at the header at `offset`.
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step;
}

/// Whether a [`Walk`] goes on, and how many bytes further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is another header, this many bytes further on; at least one.
    More(usize),
    /// The walk has its answer, and ends this many bytes further on.
    Done(usize),
}

impl PacketBytes for &[u8] {
    fn frame_len(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.get(offset..)?.first_chunk().copied()
    }

    fn walk<W: Walk>(&self, mut offset: usize, walk: &mut W) -> usize {
        for _ in 0..MAX_STEPS {
            match walk.step(self, offset) {
                Step::More(len) => offset += len,
                Step::Done(len) => return offset + len,
            }
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end_and_at_the_highest_offset() {
        let frame = [7; MAX_OFFSET + 10];
        let whole = &frame[..];
        assert_eq!(whole.read::<4>(MAX_OFFSET), Some([7; 4]));
        assert_eq!(whole.read::<4>(MAX_OFFSET + 1), None);
        assert_eq!(whole.read::<4>(usize::MAX), None);
        let short = &frame[..10];
        assert_eq!(short.read::<4>(6), Some([7; 4]));
        assert_eq!(short.read::<4>(7), None);
        assert_eq!(short.read::<0>(10), Some([]));
    }

    #[test]
    fn walks_end_however_many_steps_they_take() {
        struct Forever(u32);
        impl Walk for Forever {
            fn step<P: PacketBytes>(&mut self, _packet: &P, _offset: usize) -> Step {
                self.0 += 1;
                Step::More(1)
            }
        }
        let mut walk = Forever(0);
        let offset = (&[0; 4][..]).walk(3, &mut walk);
        assert_eq!((walk.0, offset), (MAX_STEPS, 3 + MAX_STEPS as usize));
    }
}
