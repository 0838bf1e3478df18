//! The fast path: frames with an Ethernet header or none, then one IP header without options or
//! extension headers, not fragmented.
//!
//! Nearly all frames are of this form, and those of a flood too. A few words at fixed offsets are
//! enough to judge them. The slow path gives the same verdict but takes longer. It judges every
//! frame that is not certainly of this form.

use core::net::IpAddr;

use crate::{
    packet::{Head as _, PacketBytes},
    policy::{Judgement, Mode, Policy, evaluate_segment},
    reported::PacketLocation,
    verdict::{DropReason, PassReason},
    wire::{ethernet, ipv4, ipv6, protocol, tcp},
};

/// Offset of the TCP header from an IPv4 header without options, in bytes.
const TCP_V4: usize = ipv4::HEADER_LEN;
/// Offset of the TCP header from an IPv6 header without extension headers, in bytes.
const TCP_V6: usize = ipv6::HEADER_LEN;

/// First byte of such an IPv4 header: version 4, length five words.
const FIRST_BYTE_V4: u8 = 0x45;
/// High four bits of the first byte of an IPv6 header: version 6. The low four belong to the
/// traffic class.
const FIRST_BYTE_V6: u8 = 0x60;

/// The verdict of [`judge`](fn@crate::judge), if the frame has the form of the fast path and the
/// mode is enforce; otherwise `None`.
///
/// `finish` gets the judgement and the offset of the end of the IP packet, from its length field.
#[inline(always)]
pub fn judge_fast<P: PacketBytes, Y: Policy, R>(
    packet: &P,
    policy: &Y,
    finish: impl Fn(Judgement, usize) -> R,
) -> Option<R> {
    if policy.mode() != Mode::Enforce {
        return None;
    }
    let ip = packet.link_header().header_len();
    let head = packet.head::<{ TCP_V4 + tcp::PORTS_LEN }>()?;
    match head.ether_type() {
        ethernet::TYPE_IPV4 => {
            let fragment = head.u16::<{ ipv4::FRAGMENT }>();
            if head.u8::<0>() != FIRST_BYTE_V4
                || fragment & (ipv4::FRAGMENT_OFFSET_MASK | ipv4::MORE_FRAGMENTS) != 0
            {
                return None;
            }
            let end = ip + usize::from(head.u16::<{ ipv4::TOTAL_LEN }>());
            let result = match head.u8::<{ ipv4::PROTOCOL }>() {
                protocol::TCP if end >= ip + TCP_V4 + tcp::PORTS_LEN => {
                    let address = |word: u32| IpAddr::V4(word.into());
                    let is_unguarded = || {
                        !policy.guards_every_destination()
                            && !policy.guards(address(head.u32::<{ ipv4::DESTINATION }>()))
                    };
                    let port = head.u16::<{ TCP_V4 + tcp::DESTINATION_PORT }>();
                    let source = || address(head.u32::<{ ipv4::SOURCE }>());
                    match evaluate_segment(policy, port, source, is_unguarded) {
                        Some(reason) => finish(Judgement::pass(reason), end),
                        None => finish(
                            unauthorized(PacketLocation::v4(ip).with_tcp_header(ip + TCP_V4)),
                            end,
                        ),
                    }
                }
                protocol::TCP | protocol::AUTHENTICATION => return None,
                _ => finish(Judgement::pass(PassReason::NotTcp), end),
            };
            Some(result)
        }
        ethernet::TYPE_IPV6 => {
            let head = packet.head::<{ TCP_V6 + tcp::PORTS_LEN }>()?;
            if head.u8::<0>() & 0xf0 != FIRST_BYTE_V6 {
                return None;
            }
            let end = ip + TCP_V6 + usize::from(head.u16::<{ ipv6::PAYLOAD_LEN }>());
            let result = match head.u8::<{ ipv6::NEXT_HEADER }>() {
                protocol::TCP if end >= ip + TCP_V6 + tcp::PORTS_LEN => {
                    let address = |high: u64, low: u64| {
                        IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())
                    };
                    let is_unguarded = || {
                        !policy.guards_every_destination()
                            && !policy.guards(address(
                                head.u64::<{ ipv6::DESTINATION }>(),
                                head.u64::<{ ipv6::DESTINATION + 8 }>(),
                            ))
                    };
                    let port = head.u16::<{ TCP_V6 + tcp::DESTINATION_PORT }>();
                    let source = || {
                        address(
                            head.u64::<{ ipv6::SOURCE }>(),
                            head.u64::<{ ipv6::SOURCE + 8 }>(),
                        )
                    };
                    match evaluate_segment(policy, port, source, is_unguarded) {
                        Some(reason) => finish(Judgement::pass(reason), end),
                        None => finish(
                            unauthorized(PacketLocation::v6(ip).with_tcp_header(ip + TCP_V6)),
                            end,
                        ),
                    }
                }
                protocol::UDP | protocol::ICMPV6 => {
                    finish(Judgement::pass(PassReason::NotTcp), end)
                }
                _ => return None,
            };
            Some(result)
        }
        _ => None,
    }
}

#[inline(always)]
const fn unauthorized(location: PacketLocation) -> Judgement {
    Judgement::drop(DropReason::Unauthorized, location, Mode::Enforce)
}
