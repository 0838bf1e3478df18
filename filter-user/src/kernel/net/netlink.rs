//! Netlink requests to the kernel (RFC 3549), each on a socket of its own.

use std::{io, iter};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};
use netlink_sys::Socket;

/// `NLMSG_ERROR` and `NLMSG_DONE`, and the first type that the kernel does not reserve
/// (`NLMSG_MIN_TYPE`).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const MIN_TYPE: u16 = 16;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Dumps all objects of a kind: `kind` and `body` are the request. Calls `each` with the kind and
/// the body of every answer.
///
/// # Errors
/// If the kernel refuses, or `each` does.
pub(crate) fn dump(
    protocol: isize,
    kind: u16,
    body: &[u8],
    each: impl FnMut(u16, &[u8]) -> Result<()>,
) -> Result<()> {
    transact(protocol, kind, NLM_F_REQUEST | NLM_F_DUMP, body, each)
}

/// Like [`dump`], for requests and answers that `netlink-packet-*` knows. `each` also gets the
/// answers that cannot be parsed.
///
/// # Errors
/// As [`dump`].
pub(crate) fn dump_messages<M: NetlinkSerializable + NetlinkDeserializable>(
    protocol: isize,
    request: &M,
    each: impl FnMut(Result<M>) -> Result<()>,
) -> Result<()> {
    exchange_messages(protocol, NLM_F_REQUEST | NLM_F_DUMP, request, each)
}

/// Like [`dump_messages`], for one object.
///
/// # Errors
/// As [`dump`].
pub(crate) fn get_message<M: NetlinkSerializable + NetlinkDeserializable>(
    protocol: isize,
    request: &M,
    each: impl FnMut(Result<M>) -> Result<()>,
) -> Result<()> {
    exchange_messages(protocol, NLM_F_REQUEST | NLM_F_ACK, request, each)
}

fn exchange_messages<M: NetlinkSerializable + NetlinkDeserializable>(
    protocol: isize,
    flags: u16,
    request: &M,
    mut each: impl FnMut(Result<M>) -> Result<()>,
) -> Result<()> {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    transact(
        protocol,
        request.message_type(),
        flags,
        &body,
        |kind, body| each(parse(kind, body)),
    )
}

fn transact(
    protocol: isize,
    kind: u16,
    flags: u16,
    body: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> Result<()>,
) -> Result<()> {
    let socket = Socket::new(protocol)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(u32::try_from(HEADER + body.len())?.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and port.
    request.extend([0; 8]);
    request.extend(body);
    socket.send(&request, 0)?;
    loop {
        let (datagram, _) = match socket.recv_from_full() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        for message in messages(&datagram) {
            match message? {
                (DONE, _) => return Ok(()),
                (ERROR, body) => {
                    let code = body.first_chunk();
                    return match code.map_or(0, |code| i32::from_ne_bytes(*code)) {
                        // An acknowledgement.
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code.saturating_neg()).into()),
                    };
                }
                (..MIN_TYPE, _) => {}
                (kind, body) => each(kind, body)?,
            }
        }
    }
}

/// The messages in a datagram: kind and body of each.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8])>> {
    let mut rest = datagram;
    iter::from_fn(move || {
        let header: &[u8; HEADER] = rest.first_chunk()?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = rest.get(HEADER..len);
        // Messages are aligned to 4 bytes (`NLMSG_ALIGN`).
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let body = body.context("read answer of the kernel: wrong length of a message");
        Some(body.map(|body| (kind, body)))
    })
}

/// Parses a message that `netlink-packet-*` knows.
///
/// # Errors
/// If it is malformed.
pub(crate) fn parse<M: NetlinkDeserializable>(kind: u16, body: &[u8]) -> Result<M> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    M::deserialize(&header, body).context("read answer of the kernel")
}
