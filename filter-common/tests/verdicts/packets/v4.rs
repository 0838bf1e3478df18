//! IPv4 packets.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options};

use super::{TCP, UDP, datagram, frame, syn};

/// An IPv4 packet under construction.
#[derive(Clone, Debug)]
pub struct V4 {
    source: Ipv4Addr,
    /// The final destination, which the checksum covers: the last hop of a source route.
    destination: Ipv4Addr,
    /// The destination in the header.
    next_stop: Ipv4Addr,
    options: Vec<u8>,
    protocol: u8,
    payload: Vec<u8>,
    /// Offset in units of 8 bytes, and the more-fragments flag.
    fragment: (u16, bool),
    dont_fragment: bool,
    total_len: Option<u16>,
    version_ihl: Option<u8>,
    identification: u16,
}

impl V4 {
    /// A packet without payload.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            next_stop: destination,
            options: Vec::new(),
            protocol: 59,
            payload: Vec::new(),
            fragment: (0, false),
            dont_fragment: false,
            total_len: None,
            version_ihl: None,
            identification: 1,
        }
    }

    /// Options: a multiple of four bytes, at most forty.
    pub fn options(self, options: &[u8]) -> Self {
        Self {
            options: options.to_vec(),
            ..self
        }
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

    /// Sets a payload with any protocol number.
    pub fn payload(self, protocol: u8, payload: &[u8]) -> Self {
        Self {
            protocol,
            payload: payload.to_vec(),
            ..self
        }
    }

    /// Puts an authentication header of twelve bytes and `words` of four in front of the payload.
    pub fn authentication(mut self, words: u8) -> Self {
        let mut header = vec![self.protocol, words + 1];
        header.resize(12 + 4 * usize::from(words), 0);
        header.extend(&self.payload);
        self.protocol = 51;
        self.payload = header;
        self
    }

    /// Makes it a fragment: offset in units of 8 bytes, and the more-fragments flag.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        Self {
            fragment: (offset, more),
            ..self
        }
    }

    /// A fragment with the bytes `range` of the payload.
    pub fn piece(&self, range: std::ops::Range<usize>) -> Self {
        let more = range.end < self.payload.len();
        let offset = u16::try_from(range.start / 8).expect("a payload fits a packet");
        Self {
            payload: self.payload[range].to_vec(),
            fragment: (offset, more),
            ..self.clone()
        }
    }

    /// Sets the don't-fragment flag.
    pub fn dont_fragment(self) -> Self {
        Self {
            dont_fragment: true,
            ..self
        }
    }

    /// Sets the identification.
    pub fn identification(self, identification: u16) -> Self {
        Self {
            identification,
            ..self
        }
    }

    /// Truncates the payload before any length is computed.
    pub fn cut(mut self, len: usize) -> Self {
        self.payload.truncate(len);
        self
    }

    /// Sends it to another address first; the checksum of the segment still covers the final
    /// destination.
    pub fn by_way_of(self, next_stop: Ipv4Addr) -> Self {
        Self { next_stop, ..self }
    }

    /// Sets a wrong total length.
    pub fn total_len(self, len: u16) -> Self {
        Self {
            total_len: Some(len),
            ..self
        }
    }

    /// Sets a wrong version and header length.
    pub fn version_ihl(self, byte: u8) -> Self {
        Self {
            version_ihl: Some(byte),
            ..self
        }
    }

    /// The packet, with a correct checksum.
    pub fn packet(&self) -> Vec<u8> {
        let len = 20 + self.options.len() + self.payload.len();
        let mut header = Ipv4Header {
            total_len: self
                .total_len
                .unwrap_or(u16::try_from(len).expect("it fits a packet")),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            more_fragments: self.fragment.1,
            fragment_offset: IpFragOffset::try_new(self.fragment.0).expect("an offset has 13 bits"),
            time_to_live: 64,
            protocol: IpNumber(self.protocol),
            source: self.source.octets(),
            destination: self.next_stop.octets(),
            options: Ipv4Options::try_from(&self.options[..]).expect("options are whole words"),
            ..Ipv4Header::default()
        };
        header.header_checksum = header.calc_header_checksum();
        let mut packet = header.to_bytes().to_vec();
        if let Some(byte) = self.version_ihl {
            packet[0] = byte;
        }
        packet.extend(&self.payload);
        packet
    }

    /// The packet in a frame.
    pub fn frame(&self) -> Vec<u8> {
        // A wrong version does not change the EtherType.
        match self.version_ihl {
            Some(_) => super::typed(super::ethernet::IPV4, &self.packet()),
            None => frame(&self.packet()),
        }
    }

    fn from(&self) -> IpAddr {
        self.source.into()
    }

    fn to(&self) -> IpAddr {
        self.destination.into()
    }
}
