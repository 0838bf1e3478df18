//! Bounded access to the bytes of a frame.

use crate::wire::ethernet;

/// The highest offset at which a frame can be read, in bytes.
///
/// The verifier accepts a packet pointer plus at most this much (`MAX_PACKET_OFF` in
/// `kernel/bpf/verifier.c`), and `bpf_xdp_load_bytes` refuses more (`bpf_xdp_pointer` in
/// `net/core/filter.c`, Linux 5.18). An IP packet is not longer than this, so only the last few
/// bytes of a frame of the largest MTU lie further. Headers there count as unreadable, never as
/// absent.
pub const MAX_OFFSET: usize = 0xffff;

/// What precedes the IP packet in the frames of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkHeader {
    /// An Ethernet header, then tags if any.
    Ethernet,
    /// Nothing. The IP header comes first, and its version field states its type.
    None,
}

impl LinkHeader {
    /// All variants.
    pub const ALL: [Self; 2] = [Self::Ethernet, Self::None];

    /// Length of the header without tags, in bytes: the offset of an untagged IP header.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        match self {
            Self::Ethernet => ethernet::HEADER_LEN,
            Self::None => 0,
        }
    }

    /// The name of the XDP program for such devices, as the kernel lists it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Ethernet => "apifence",
            Self::None => "apifence_ip",
        }
    }
}

/// A frame whose bytes are read with their bounds checked.
///
/// [`Bytes`] implements it here and the XDP frame in `filter-ebpf`, so that one classifier serves
/// both.
pub trait PacketBytes {
    /// The type that [`head`](Self::head) returns.
    type Head<const N: usize>: Head<N>;

    /// What the frame starts with. A constant in the XDP program.
    fn link_header(&self) -> LinkHeader;

    /// The first `N` bytes after a link header without tags, if no copy is needed to read them.
    /// `None` says nothing about the length of the frame.
    fn head<const N: usize>(&self) -> Option<Self::Head<N>>;

    /// The length of the whole frame in bytes, the parts beyond the linear one included.
    ///
    /// This may cost a helper call. The classifier asks only where a header is missing or states no
    /// length.
    fn frame_len(&self) -> usize;

    /// The `N` bytes at `offset`; `None` if the frame ends before them, or `offset` is beyond
    /// [`MAX_OFFSET`].
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies the bytes at `offset` to `into`. False under the conditions of [`read`](Self::read)
    /// for `None`; the content of `into` is then unspecified.
    fn copy(&self, offset: usize, into: &mut [u8]) -> bool;

    /// Steps `walk` from `offset` until it is done, and returns the offset that it reached.
    ///
    /// The XDP frame does this with `bpf_loop`, whose body the verifier checks once. So a chain of
    /// any length is walked to its end.
    fn walk<W: Walk>(&self, offset: usize, walk: &mut W) -> usize;

    /// Makes the verifier forget the value of `word`, if that lies where it tracks none. The value
    /// itself stays.
    fn forget(&self, _word: &mut u32) {}
}

/// The first `N` bytes after the link header of a frame, read as numbers in network order. A read
/// beyond them does not compile.
pub trait Head<const N: usize> {
    /// The EtherType before them, in host order. Without a link header, that of the IP version in
    /// the first byte.
    fn ether_type(&self) -> u16;
    /// The byte at `AT`.
    fn u8<const AT: usize>(&self) -> u8;
    /// The two bytes at `AT`.
    fn u16<const AT: usize>(&self) -> u16;
    /// The four bytes at `AT`.
    fn u32<const AT: usize>(&self) -> u32;
    /// The eight bytes at `AT`.
    fn u64<const AT: usize>(&self) -> u64;
}

/// The maximum number of steps of a [`Walk`]: one for each readable byte, so that the frame always
/// ends first.
pub const MAX_STEPS: u32 = MAX_OFFSET as u32 + 1;

/// A loop over the headers of a frame, one header a step.
pub trait Walk {
    /// Reads the header at `offset`.
    fn step<P: PacketBytes>(&mut self, packet: &P, offset: usize) -> Step;
}

/// Whether a [`Walk`] continues, and by how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another header follows, this many bytes further; at least one.
    More(usize),
    /// The walk is done, this many bytes further.
    Done(usize),
}

/// A frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// What the frame starts with.
    pub link_header: LinkHeader,
    /// All bytes of the frame.
    pub bytes: &'a [u8],
}

impl<'a> PacketBytes for Bytes<'a> {
    type Head<const N: usize> = BytesHead<'a, N>;

    fn link_header(&self) -> LinkHeader {
        self.link_header
    }

    fn head<const N: usize>(&self) -> Option<BytesHead<'a, N>> {
        let (front, rest) = self.bytes.split_at_checked(self.link_header.header_len())?;
        Some(BytesHead {
            bytes: rest.first_chunk()?,
            ether_type: front.last_chunk().copied().map(u16::from_be_bytes),
        })
    }

    fn frame_len(&self) -> usize {
        self.bytes.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        let bytes = self.bytes.get(offset..offset + into.len());
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

/// The start of a frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct BytesHead<'a, const N: usize> {
    bytes: &'a [u8; N],
    ether_type: Option<u16>,
}

impl<const N: usize> Head<N> for BytesHead<'_, N> {
    fn ether_type(&self) -> u16 {
        self.ether_type
            .unwrap_or_else(|| ethernet::type_of_version(self.bytes[0] >> 4))
    }

    fn u8<const AT: usize>(&self) -> u8 {
        u8::from_be_bytes(bytes_at::<AT, _, _>(self.bytes))
    }

    fn u16<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(bytes_at::<AT, _, _>(self.bytes))
    }

    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(bytes_at::<AT, _, _>(self.bytes))
    }

    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_be_bytes(bytes_at::<AT, _, _>(self.bytes))
    }
}

fn bytes_at<const AT: usize, const LEN: usize, const N: usize>(bytes: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N, "beyond the bytes at hand") };
    core::array::from_fn(|index| bytes[AT + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end_and_at_the_highest_offset() {
        let frame = [7; MAX_OFFSET + 10];
        let bytes = |bytes| Bytes {
            link_header: LinkHeader::Ethernet,
            bytes,
        };
        let whole = bytes(&frame[..]);
        assert_eq!(whole.read::<4>(MAX_OFFSET), Some([7; 4]));
        assert_eq!(whole.read::<4>(MAX_OFFSET + 1), None);
        assert_eq!(whole.read::<4>(usize::MAX), None);
        let short = bytes(&frame[..10]);
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
        let frame = Bytes {
            link_header: LinkHeader::None,
            bytes: &[0; 4],
        };
        let offset = frame.walk(3, &mut walk);
        assert_eq!((walk.0, offset), (MAX_STEPS, 3 + MAX_STEPS as usize));
    }
}
