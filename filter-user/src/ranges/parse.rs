//! One range, or a comma-separated list of them, from text.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Entry, List, NOBODY};

/// Why a range is not taken, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The complaint, which names the range.
    pub cause: String,
    /// What to do about it.
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// How much of what cannot be understood is shown.
const SHOWN: usize = 60;

/// What was written, as a terminal can show it: characters that cannot be seen by their code, and no more than the beginning of much.
fn shown(text: &str) -> String {
    let visible =
        |letter: char| matches!(letter, '\'' | '"' | '\\') || letter.escape_debug().len() == 1;
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|letter| match letter {
            letter if visible(letter) => letter.to_string(),
            letter => letter.escape_unicode().to_string(),
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Parses one range: an address, or a CIDR without host bits, that a packet can come from.
///
/// # Errors
/// Anything else, with the form that would be taken. Nothing is rounded: a range that is not what its author meant
/// lets a stranger in or locks the operator out.
pub fn parse_range(text: &str) -> Result<IpNet, Refusal> {
    let shown = shown(text);
    if text.is_empty() {
        return Err(Refusal::new(
            "a range is empty",
            "is a variable unset, or a comma too many? write a range like `198.51.100.0/24` or `2001:db8:aa::/48`",
        ));
    }
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(Refusal::new(
            format!("range `{shown}` is no IP address or CIDR"),
            "write it like `198.51.100.0/24`, `2001:db8:aa::/48` or `198.51.100.7`",
        ));
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => max,
        Some(digits) => match digits.parse::<u8>() {
            // `parse` takes a sign and leading zeros; a prefix length has neither.
            Ok(len) if len <= max && (digits == "0" || !digits.starts_with(['+', '0'])) => len,
            _ => {
                return Err(Refusal::new(
                    format!("range `{shown}` has no prefix length from 0 to {max}"),
                    format!("`{address}/{max}` for one host"),
                ));
            }
        },
    };
    let range = IpNet::new_assert(address, len);
    if range.network() != address {
        return Err(Refusal::new(
            format!("range `{shown}` has bits set after the first {len}"),
            format!("`{}`, or `{address}/{max}` for one host", range.trunc()),
        ));
    }
    refuse_impossible(text, range)?;
    Ok(range)
}

/// Refuses ranges that no packet to the API server comes from.
fn refuse_impossible(text: &str, range: IpNet) -> Result<(), Refusal> {
    let never =
        |kind: &str, hint: &str| Err(Refusal::new(format!("range `{text}` is {kind}"), hint));
    match range {
        IpNet::V4(range) => {
            let inside = |a, b, c, d, len| {
                Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len).contains(&range)
            };
            if inside(0, 0, 0, 0, 8) {
                never(
                    "unspecified, no source of packets",
                    "`0.0.0.0/32` alone lets nobody in but the implicit sources; `0.0.0.0/0` is everyone",
                )
            } else if inside(127, 0, 0, 0, 8) {
                never(
                    "loopback",
                    "leave it out: loopback traffic never passes the filter",
                )
            } else if inside(224, 0, 0, 0, 4) {
                never("multicast, no source of packets", "leave it out")
            } else {
                Ok(())
            }
        }
        IpNet::V6(range) => {
            let inside =
                |address: Ipv6Addr, len| Ipv6Net::new_assert(address, len).contains(&range);
            if inside(Ipv6Addr::UNSPECIFIED, 128) {
                never(
                    "unspecified, no source of packets",
                    "`0.0.0.0/32` alone lets nobody in but the implicit sources; `::/0` is everyone",
                )
            } else if inside(Ipv6Addr::LOCALHOST, 128) {
                never(
                    "loopback",
                    "leave it out: loopback traffic never passes the filter",
                )
            } else if inside(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8) {
                never("multicast, no source of packets", "leave it out")
            } else if inside(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96) {
                let [.., a, b, c, d] = range.network().octets();
                let mapped =
                    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), range.prefix_len() - 96);
                never(
                    "IPv4-mapped, which no packet carries",
                    &format!("write its IPv4 form, `{mapped}`"),
                )
            } else {
                Ok(())
            }
        }
    }
}

/// Parses a comma-separated list as `ranges set` and `--authorized-ip-ranges` take it: empty for the off switch.
///
/// # Errors
/// All refusals of the list, not the first alone.
pub fn parse_list(text: &str) -> Result<List, Vec<Refusal>> {
    if text.trim().is_empty() {
        return Ok(List::Off);
    }
    let mut entries = Vec::new();
    let mut refusals = Vec::new();
    let mut nobody = false;
    for item in text.split(',').map(str::trim) {
        if item == NOBODY {
            nobody = true;
            continue;
        }
        match parse_range(item) {
            Ok(range) => entries.push(Entry {
                range,
                expires: None,
                comment: None,
            }),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if nobody && !entries.is_empty() {
        refusals.push(nobody_beside_others());
    }
    if refusals.is_empty() {
        Ok(List::Ranges(entries))
    } else {
        Err(refusals)
    }
}

/// The refusal of `0.0.0.0/32` in company.
pub(super) fn nobody_beside_others() -> Refusal {
    Refusal::new(
        format!("range `{NOBODY}` means nobody, and stands beside other ranges"),
        format!("leave `{NOBODY}` out, or let it stand alone"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, String) {
        let refusal = parse_range(text).expect_err(text);
        (refusal.cause, refusal.hint)
    }

    #[test]
    fn addresses_and_networks_are_taken_as_written() {
        for (text, want) in [
            ("198.51.100.7", "198.51.100.7/32"),
            ("198.51.100.0/24", "198.51.100.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:DB8:AA::/48", "2001:db8:aa::/48"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fe80::/10", "fe80::/10"),
        ] {
            assert_eq!(
                parse_range(text).map(|range| range.to_string()),
                Ok(want.to_owned())
            );
        }
    }

    #[test]
    fn host_bits_name_both_fixes() {
        assert_eq!(
            refused("137.117.106.90/29"),
            (
                "range `137.117.106.90/29` has bits set after the first 29".to_owned(),
                "`137.117.106.88/29`, or `137.117.106.90/32` for one host".to_owned(),
            )
        );
    }

    #[test]
    fn what_no_packet_comes_from_is_refused() {
        for (text, word) in [
            ("224.0.0.0/4", "multicast"),
            ("239.1.2.3", "multicast"),
            ("ff02::/16", "multicast"),
            ("127.0.0.1", "loopback"),
            ("127.0.0.0/8", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.0.0/16", "unspecified"),
            ("::", "unspecified"),
        ] {
            assert!(refused(text).0.contains(word), "{text}");
        }
    }

    #[test]
    fn a_mapped_range_names_its_ipv4_form() {
        assert_eq!(
            refused("::ffff:10.0.0.0/104").1,
            "write its IPv4 form, `10.0.0.0/8`"
        );
        assert_eq!(
            refused("::ffff:192.0.2.1").1,
            "write its IPv4 form, `192.0.2.1/32`"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "x",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "2001:db8::/129",
            "10.0.0/8",
            "fe80::1%eth0",
            "010.0.0.1",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            "0x0a000000/8",
        ] {
            refused(text);
        }
    }

    #[test]
    fn a_list_reports_all_its_faults() {
        let refusals = parse_list("10.0.0.1/8, 192.0.2.0/24,ff02::1,").expect_err("three faults");
        assert_eq!(refusals.len(), 3);
    }

    #[test]
    fn nobody_stands_alone() {
        assert_eq!(parse_list("0.0.0.0/32"), Ok(List::Ranges(Vec::new())));
        assert_eq!(
            parse_list("0.0.0.0/32,10.0.0.0/8"),
            Err(vec![nobody_beside_others()])
        );
    }

    #[test]
    fn the_empty_list_is_the_off_switch() {
        assert_eq!(parse_list(""), Ok(List::Off));
        assert_eq!(parse_list("  "), Ok(List::Off));
        assert!(parse_list(",").is_err());
    }
}
