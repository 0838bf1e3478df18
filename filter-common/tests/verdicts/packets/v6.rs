//! IPv6 packets: a chain of headers, written one after the other.

use std::net::{IpAddr, Ipv6Addr};

use super::{TCP, UDP, datagram, syn};

/// Number of the hop-by-hop options header.
pub const HOP_BY_HOP: u8 = 0;
/// Number of the routing header.
pub const ROUTING: u8 = 43;
/// Number of the fragment header.
pub const FRAGMENT: u8 = 44;
/// Number of the authentication header.
pub const AUTHENTICATION: u8 = 51;
/// Number of the destination options header.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Number of the mobility header.
pub const MOBILITY: u8 = 135;
/// Number of the host identity header.
pub const HIP: u8 = 139;
/// Number of the shim6 header.
pub const SHIM6: u8 = 140;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;

/// An IPv6 packet under construction.
#[derive(Clone, Debug)]
pub struct V6 {
    source: Ipv6Addr,
    /// The final destination, which the checksum covers: the last hop of a source route.
    destination: Ipv6Addr,
    /// The destination in the fixed header.
    next_stop: Ipv6Addr,
    /// The bytes after the fixed header.
    chain: Vec<u8>,
    /// The next-header number of the fixed header.
    first: u8,
    /// The offset in `chain` of the last header's next-header number.
    next_at: Option<usize>,
    payload_len: Option<u16>,
}

impl V6 {
    /// A packet without payload.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self {
            source,
            destination,
            next_stop: destination,
            chain: Vec::new(),
            first: 59,
            next_at: None,
            payload_len: None,
        }
    }

    /// Appends a header. Its first byte is overwritten once the next header is known.
    pub fn header(mut self, number: u8, bytes: &[u8]) -> Self {
        self = self.announces(number);
        self.next_at = Some(self.chain.len());
        self.chain.extend(bytes);
        self.announces(59)
    }

    /// Sets the next-header number of the last header. The next header or payload overwrites it,
    /// except [`bytes`](Self::bytes).
    pub fn announces(mut self, number: u8) -> Self {
        match self.next_at {
            Some(at) => self.chain[at] = number,
            None => self.first = number,
        }
        self
    }

    /// Appends bytes without a next-header number.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.chain.extend(bytes);
        self
    }

    /// Appends an extension header of `len` bytes (a multiple of 8, at most 2,048) whose options
    /// are skipped.
    pub fn options(self, number: u8, len: usize) -> Self {
        self.header(number, &options(len))
    }

    /// Hop-by-hop options of `len` bytes.
    pub fn hop_by_hop(self, len: usize) -> Self {
        self.options(HOP_BY_HOP, len)
    }

    /// Destination options of `len` bytes.
    pub fn destination_options(self, len: usize) -> Self {
        self.options(DESTINATION_OPTIONS, len)
    }

    /// A routing header of the oldest form (types 0 and 2): 8 bytes, and 16 a segment.
    pub fn routing(self, kind: u8, left: u8, segments: &[Ipv6Addr]) -> Self {
        let units = u8::try_from(segments.len() * 2).expect("a routing header has few segments");
        let mut header = vec![0, units, kind, left, 0, 0, 0, 0];
        segments
            .iter()
            .for_each(|segment| header.extend(segment.octets()));
        self.header(ROUTING, &header)
    }

    /// A segment routing header (type 4): the segments in reverse, so that the last hop is the
    /// first of them.
    pub fn segments(self, left: u8, segments: &[Ipv6Addr]) -> Self {
        let units = u8::try_from(segments.len() * 2).expect("a routing header has few segments");
        let last = u8::try_from(segments.len() - 1).expect("a routing header has few segments");
        let mut header = vec![0, units, 4, left, last, 0, 0, 0];
        segments
            .iter()
            .for_each(|segment| header.extend(segment.octets()));
        self.header(ROUTING, &header)
    }

    /// A fragment header: offset in units of 8 bytes, the more-fragments flag, and the
    /// identification.
    pub fn fragment(self, offset: u16, more: bool, identification: u32) -> Self {
        self.fragment_with_reserved(0, offset, more, identification)
    }

    /// The same with a value in the reserved byte, where other headers have their length.
    pub fn fragment_with_reserved(
        self,
        reserved: u8,
        offset: u16,
        more: bool,
        identification: u32,
    ) -> Self {
        let mut header = vec![0, reserved];
        header.extend((offset << 3 | u16::from(more)).to_be_bytes());
        header.extend(identification.to_be_bytes());
        self.header(FRAGMENT, &header)
    }

    /// An authentication header of `len` bytes, a multiple of 4 from 8 on.
    pub fn authentication(self, len: usize) -> Self {
        let mut header = vec![0; len];
        header[1] = u8::try_from(len / 4 - 2).expect("an authentication header is short");
        self.header(AUTHENTICATION, &header)
    }

    /// Sends it to another address first; the checksum still covers the final destination.
    pub fn by_way_of(self, next_stop: Ipv6Addr) -> Self {
        Self { next_stop, ..self }
    }

    /// Appends a SYN.
    pub fn syn(self, source_port: u16, port: u16) -> Self {
        let bytes = syn(self.from(), self.to(), source_port, port);
        self.payload(TCP, &bytes)
    }

    /// Appends a datagram.
    pub fn datagram(self, source_port: u16, port: u16, data: &[u8]) -> Self {
        let bytes = datagram(self.from(), self.to(), source_port, port, data);
        self.payload(UDP, &bytes)
    }

    /// Appends a payload with any number.
    pub fn payload(self, number: u8, bytes: &[u8]) -> Self {
        self.announces(number).bytes(bytes)
    }

    /// Truncates the bytes after the fixed header to this length, before any length is computed.
    pub fn cut(mut self, len: usize) -> Self {
        self.chain.truncate(len);
        self
    }

    /// Sets a wrong payload length.
    pub fn payload_len(self, len: u16) -> Self {
        Self {
            payload_len: Some(len),
            ..self
        }
    }

    /// Length of the bytes after the fixed header.
    pub fn chain_len(&self) -> usize {
        self.chain.len()
    }

    /// A fragment with the bytes `range` after the fixed header; its fragment header directly
    /// follows the fixed header.
    pub fn piece(&self, range: std::ops::Range<usize>, identification: u32) -> Self {
        let more = range.end < self.chain.len();
        let offset = u16::try_from(range.start / 8).expect("a payload fits a packet");
        let piece = Self::new(self.source, self.destination)
            .by_way_of(self.next_stop)
            .fragment(offset, more, identification);
        piece.announces(self.first).bytes(&self.chain[range])
    }

    /// The packet.
    pub fn packet(&self) -> Vec<u8> {
        // A packet longer than the length field can say is a jumbogram, whose length is zero.
        let len = self
            .payload_len
            .unwrap_or(u16::try_from(self.chain.len()).unwrap_or(0));
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([self.first, 64]);
        packet.extend(self.source.octets());
        packet.extend(self.next_stop.octets());
        packet.extend(&self.chain);
        packet
    }

    /// The packet in a frame.
    pub fn frame(&self) -> Vec<u8> {
        super::frame(&self.packet())
    }

    fn from(&self) -> IpAddr {
        self.source.into()
    }

    fn to(&self) -> IpAddr {
        self.destination.into()
    }
}

/// An options header of `len` bytes.
///
/// It holds an unknown option that every host skips: Linux accepts at most seven bytes of padding.
fn options(len: usize) -> Vec<u8> {
    const EXPERIMENT: u8 = 0x1e;
    let units = u8::try_from(len / 8 - 1).expect("an options header has at most 2,048 bytes");
    let mut header = vec![0, units];
    while header.len() < len {
        let left = len - header.len();
        if left == 1 {
            header.push(0);
        } else {
            let data = (left - 2).min(255);
            header.extend([EXPERIMENT, u8::try_from(data).expect("at most 255")]);
            header.resize(header.len() + data, 0);
        }
    }
    header
}
