//! Netfilter's netlink messages: nested attributes, parsed by hand because no crate knows all of
//! them.

use anyhow::Result;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink;

/// Length of `struct nfgenmsg`.
const FAMILY: usize = 4;

/// Dumps all objects of a kind, of every family. `kind` is the subsystem times 256 plus the message
/// (`linux/netfilter/nfnetlink.h`). Calls `each` with the family and the attributes of every
/// object.
///
/// # Errors
/// If the kernel does not have the subsystem, or refuses.
pub(crate) fn dump(kind: u16, each: impl FnMut(u8, &[u8])) -> Result<()> {
    dump_of(kind, 0, &[], each)
}

/// Like [`dump`], for the objects of one `family` (0: all) that match the string attributes `of`.
///
/// # Errors
/// As [`dump`].
pub(crate) fn dump_of(
    kind: u16,
    family: u8,
    of: &[(u16, &str)],
    mut each: impl FnMut(u8, &[u8]),
) -> Result<()> {
    // Version 0, resource id 0.
    let mut request = vec![family, 0, 0, 0];
    for (attribute, text) in of {
        // The attribute's header and the zero byte at the end.
        let len = 4 + text.len() + 1;
        request.extend(u16::try_from(len)?.to_ne_bytes());
        request.extend(attribute.to_ne_bytes());
        request.extend(text.bytes());
        request.resize(request.len() + 1 + len.next_multiple_of(4) - len, 0);
    }
    netlink::dump(NETLINK_NETFILTER, kind, &request, |_, body| {
        if let (Some(family), Some(attributes)) = (body.first(), body.get(FAMILY..)) {
            each(*family, attributes);
        }
        Ok(())
    })
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

/// The content of a nested attribute; each step of `path` leads into the one before.
pub(crate) fn attribute<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        attributes(bytes).find_map(|(kind, content)| (kind == *wanted).then_some(content))
    })
}

/// A number in network order, as netfilter writes all of them.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A string, with or without a zero byte at its end.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}
