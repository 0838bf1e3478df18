//! Why a driver refuses a program: its own message, and known obstacles.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use crate::ui::error::errno;

/// Attributes of a link, of `linux/if_link.h`.
const IFLA_MTU: u16 = 4;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Linux 5.7.
const XDP_FLAGS_REPLACE: u32 = 1 << 4;
/// The attribute of an answer that holds the kernel's message (`linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Lengths of a netlink header, of an `ifinfomsg`, and of an attribute's header.
const HEADER: usize = 16;
const LINK: usize = 16;
const ATTRIBUTE: usize = 4;

/// The kernel's message where a driver has no XDP support (`dev_xdp_attach` in `net/core/dev.c`).
const NO_NATIVE: &str = "driver does not support XDP in native mode";

/// The MTU at which every driver accepts native XDP.
const PLAIN_MTU: u32 = 1500;

/// Text that says that the driver of an interface refused `program` with `error`, and the known
/// cause.
pub fn refusal(ifindex: u32, program: BorrowedFd<'_>, error: &io::Error) -> String {
    let mut text = format!("its driver refused native XDP: {}", errno(error));
    let words = driver_message(ifindex, program).unwrap_or_default();
    if words.contains(NO_NATIVE) {
        return "its driver has no native XDP".to_owned();
    }
    if !words.is_empty() {
        text = format!("{text}: \"{words}\"");
    }
    if let Some(mtu) = mtu(ifindex).filter(|mtu| *mtu > PLAIN_MTU) {
        text = format!("{text}; its MTU is {mtu}");
    }
    text
}

/// The hint for a `refusal`.
pub fn hint(name: &str, refusal: &str) -> String {
    if refusal.contains("has no native XDP") {
        return "use `--xdp-mode auto`, or `generic`, which is slower".to_owned();
    }
    format!(
        "use `--xdp-mode auto`; usual reasons are a large MTU (`ip link set dev {name} mtu 1500`), LRO or hardware GRO (`ethtool -K {name} lro off rx-gro-hw off`), or too few queues"
    )
}

/// The driver's message (extended ack).
///
/// A bpf_link does not return it, so the program is offered by netlink as well. If the driver
/// accepts it there, although it refused a moment ago, it is detached again at once, since it could
/// not be pinned.
fn driver_message(ifindex: u32, program: BorrowedFd<'_>) -> Option<String> {
    let descriptor = program.as_raw_fd();
    let offer = XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST;
    match set_xdp(ifindex, descriptor, offer, None) {
        Ok(Answer { errno: 0, .. }) => {
            let take_off = XDP_FLAGS_DRV_MODE | XDP_FLAGS_REPLACE;
            // An error means that it is off already.
            let _ = set_xdp(ifindex, -1, take_off, Some(descriptor));
            None
        }
        Ok(Answer { words, .. }) => words,
        Err(_) => None,
    }
}

fn set_xdp(ifindex: u32, descriptor: i32, flags: u32, expected: Option<i32>) -> io::Result<Answer> {
    let mut nested = attribute(IFLA_XDP_FD, &descriptor.to_ne_bytes());
    nested.extend(attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes()));
    if let Some(expected) = expected {
        nested.extend(attribute(IFLA_XDP_EXPECTED_FD, &expected.to_ne_bytes()));
    }
    let nested = attribute(IFLA_XDP | libc::NLA_F_NESTED as u16, &nested);
    let acknowledged = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let answer = transact(libc::RTM_SETLINK, acknowledged as u16, ifindex, &nested)?;
    Answer::parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn mtu(ifindex: u32) -> Option<u32> {
    let answer = transact(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, ifindex, &[]).ok()?;
    let value = find(answer.get(HEADER + LINK..)?, IFLA_MTU)?;
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// Sends a request about a link; returns the answer.
fn transact(kind: u16, flags: u16, ifindex: u32, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    let mut message = Vec::new();
    let length = HEADER + LINK + attributes.len();
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // `struct ifinfomsg`: the ifindex is its second word.
    message.extend([0; 4]);
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(attributes);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(answer)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.get(..ATTRIBUTE)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = attributes.get(ATTRIBUTE..length)?;
        if kind & libc::NLA_TYPE_MASK as u16 == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// `NLMSG_ERROR`, which also serves as an acknowledgement.
struct Answer {
    errno: i32,
    words: Option<String>,
}

impl Answer {
    fn parse(message: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        if i32::from(kind) != libc::NLMSG_ERROR {
            return None;
        }
        let errno = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
        // Only the header of the request follows the error number: the socket asked for that
        // (`NETLINK_CAP_ACK`).
        let words = message
            .get(HEADER + 4 + HEADER..)
            .and_then(|attributes| find(attributes, NLMSGERR_ATTR_MSG))
            .map(|words| {
                String::from_utf8_lossy(words)
                    .trim_end_matches('\0')
                    .to_owned()
            })
            .filter(|words| !words.is_empty());
        Some(Self { errno, words })
    }
}
