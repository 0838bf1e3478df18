//! What netfilter tells over its own netlink: messages of nested attributes, read by hand, for no
//! crate knows all of them.

use std::io;

use anyhow::{Context as _, Result};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const FAMILY: usize = 4;

/// Asks for all objects of a kind, of every family; `kind` is the subsystem times 256 and the
/// message of it (`linux/netfilter/nfnetlink.h`). Calls `each` with the family and the attributes
/// of one.
///
/// # Errors
/// If the kernel does not have the subsystem, or refuses.
pub(crate) fn dump(kind: u16, each: impl FnMut(u8, &[u8])) -> Result<()> {
    dump_of(kind, 0, &[], each)
}

/// The same for those of one `family`, 0 standing for all, that the attributes `of` tell, each a string.
///
/// # Errors
/// As [`dump`].
pub(crate) fn dump_of(
    kind: u16,
    family: u8,
    of: &[(u16, &str)],
    mut each: impl FnMut(u8, &[u8]),
) -> Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    let mut told = Vec::new();
    for (attribute, text) in of {
        // Its own header and the zero at the end.
        let len = 4 + text.len() + 1;
        told.extend(u16::try_from(len)?.to_ne_bytes());
        told.extend(attribute.to_ne_bytes());
        told.extend(text.bytes());
        told.resize(told.len() + 1 + len.next_multiple_of(4) - len, 0);
    }
    let mut request = Vec::new();
    request.extend(u32::try_from(HEADER + FAMILY + told.len())?.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence number and port.
    request.extend([0; 8]);
    // Version 0, no resource.
    request.extend([family, 0, 0, 0]);
    request.extend(told);
    socket.send(&request, 0)?;
    loop {
        let (datagram, _) = match socket.recv_from_full() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let (kind, message, behind) = message(rest).context("read the kernel's answer")?;
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = message
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()).into());
                }
                _ => {
                    if let (Some(family), Some(attributes)) =
                        (message.first(), message.get(FAMILY..))
                    {
                        each(*family, attributes);
                    }
                }
            }
            rest = behind;
        }
    }
}

/// The type and the content of the first message in `bytes`, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let content = bytes.get(HEADER..len)?;
    Some((
        kind,
        content,
        bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// The attributes in `bytes`, in their order, each with its kind.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let content = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// The content of the attribute that `path` leads to, each step into the one before.
pub(crate) fn attribute<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        attributes(bytes).find_map(|(kind, content)| (kind == *wanted).then_some(content))
    })
}

/// A number in the order of the network, as netfilter writes all of them.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A string, with or without the zero at its end.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}
