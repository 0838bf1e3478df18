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
    /// What [`head`](Self::head) returns.
    type Head<const N: usize>: Head<N>;

    /// The first `N` bytes, if they are at hand without a copy; `None` says nothing about how long the frame is.
    fn head<const N: usize>(&self) -> Option<Self::Head<N>>;

    /// The length of the whole frame in bytes, the parts beyond the linear one included.
    ///
    /// This may cost a helper call: the classifier asks only where a header is missing or names no length.
    fn frame_len(&self) -> usize;

    /// The `N` bytes at `offset`; `None` if the frame ends before them, or `offset` is beyond
    /// [`MAX_OFFSET`].
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies the bytes at `offset` to `into`; false, and nothing of worth there, as with [`read`](Self::read).
    fn copy(&self, offset: usize, into: &mut [u8]) -> bool;

    /// Steps `walk` from `offset` on until it is done, and returns the offset it came to.
    ///
    /// The XDP frame does this with `bpf_loop`, whose body the verifier checks once: so a chain of any
    /// length is walked to its end.
    fn walk<W: Walk>(&self, offset: usize, walk: &mut W) -> usize;
}

/// The first `N` bytes of a frame, read as numbers in network order. An offset that reaches beyond them does not compile.
pub trait Head<const N: usize> {
    /// The byte at `AT`.
    fn u8<const AT: usize>(&self) -> u8;
    /// The two bytes at `AT`.
    fn u16<const AT: usize>(&self) -> u16;
    /// The four bytes at `AT`.
    fn u32<const AT: usize>(&self) -> u32;
    /// The eight bytes at `AT`.
    fn u64<const AT: usize>(&self) -> u64;
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

impl<'a> PacketBytes for &'a [u8] {
    type Head<const N: usize> = &'a [u8; N];

    fn head<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.first_chunk()
    }

    fn frame_len(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.get(offset..)?.first_chunk().copied()
    }

    fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        let bytes = self.get(offset..offset + into.len());
        let there = bytes.filter(|_| offset <= MAX_OFFSET);
        there.map(|bytes| into.copy_from_slice(bytes)).is_some()
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

impl<const N: usize> Head<N> for &[u8; N] {
    fn u8<const AT: usize>(&self) -> u8 {
        u8::from_be_bytes(part::<AT, _, _>(self))
    }

    fn u16<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(part::<AT, _, _>(self))
    }

    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(part::<AT, _, _>(self))
    }

    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_be_bytes(part::<AT, _, _>(self))
    }
}

fn part<const AT: usize, const LEN: usize, const N: usize>(bytes: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N, "beyond the bytes at hand") };
    core::array::from_fn(|index| bytes[AT + index])
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
