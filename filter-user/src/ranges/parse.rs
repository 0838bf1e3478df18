//! Parses one range.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::NO_SOURCE;

/// The reason for a refusal of input, and the correct form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The cause, which names the range.
    pub cause: String,
    /// The next step.
    pub hint: String,
}

impl InputError {
    pub(super) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// The range in `text`, if it is valid and not refused.
pub(super) fn read_range(text: &str) -> Option<IpNet> {
    as_written(text).filter(|range| refuse(text, *range).is_ok())
}

/// The prefix length of an IPv4 network mask; `None` below 8 bits, where it may be an address.
pub(super) fn mask_len(text: &str) -> Option<u32> {
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    (mask.leading_ones() + mask.trailing_zeros() == 32 && mask.leading_ones() >= 8)
        .then_some(mask.leading_ones())
}

/// Refuses a range that its author cannot have meant.
pub(super) fn refuse(text: &str, range: IpNet) -> Result<(), InputError> {
    let (address, len) = (range.addr(), range.prefix_len());
    if range.network() != address {
        let max = range.max_prefix_len();
        return Err(InputError::new(
            format!("range `{text}` has bits set after the first {len}"),
            format!("`{}`, or `{address}/{max}` for one host", range.trunc()),
        ));
    }
    if !text.contains('/') && mask_len(text).is_some() {
        return Err(InputError::new(
            format!("range `{text}` is a network mask"),
            "write the network with its prefix length, like `198.51.100.0/24`",
        ));
    }
    refuse_impossible(text, range)
}

/// An address, with or without a prefix length.
pub(super) fn as_written(text: &str) -> Option<IpNet> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => max,
        // `parse` accepts a sign and leading zeros; a prefix length has neither.
        Some(digits) if digits != "0" && digits.starts_with(['+', '0']) => return None,
        Some(digits) => digits.parse().ok().filter(|len| *len <= max)?,
    };
    Some(IpNet::new_assert(address, len))
}

/// Refuses ranges that cannot be the source of a packet to the API server.
fn refuse_impossible(text: &str, range: IpNet) -> Result<(), InputError> {
    let never =
        |kind: &str, hint: &str| Err(InputError::new(format!("range `{text}` is {kind}"), hint));
    match range {
        IpNet::V4(range) => {
            let inside = |a, b, c, d, len| {
                Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len).contains(&range)
            };
            if inside(0, 0, 0, 0, 8) {
                never(
                    "unspecified, which is never a source",
                    "`0.0.0.0/32` alone allows only the implicit sources; `0.0.0.0/0` allows every IPv4 source",
                )
            } else if inside(127, 0, 0, 0, 8) {
                never(
                    "loopback",
                    "leave it out: loopback traffic never passes the filter",
                )
            } else if inside(224, 0, 0, 0, 4) {
                never("multicast, which is never a source", "leave it out")
            } else {
                Ok(())
            }
        }
        IpNet::V6(range) => {
            let inside =
                |address: Ipv6Addr, len| Ipv6Net::new_assert(address, len).contains(&range);
            if inside(Ipv6Addr::UNSPECIFIED, 128) {
                never(
                    "unspecified, which is never a source",
                    "`0.0.0.0/32` alone allows only the implicit sources; `::/0` allows every IPv6 source",
                )
            } else if inside(Ipv6Addr::LOCALHOST, 128) {
                never(
                    "loopback",
                    "leave it out: loopback traffic never passes the filter",
                )
            } else if inside(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8) {
                never("multicast, which is never a source", "leave it out")
            } else if inside(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96) {
                let [.., a, b, c, d] = range.network().octets();
                let mapped =
                    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), range.prefix_len() - 96);
                never(
                    "IPv4-mapped, which packets do not carry",
                    &format!("write its IPv4 form, `{mapped}`"),
                )
            } else {
                Ok(())
            }
        }
    }
}

/// The refusal of `0.0.0.0/32` next to other ranges.
pub(super) fn only_implicit_with_others() -> InputError {
    InputError::new(
        format!("range `{NO_SOURCE}` allows no source, but the list has other ranges"),
        format!("remove `{NO_SOURCE}`, or the other ranges"),
    )
}

#[cfg(test)]
mod tests {
    use crate::ranges::meant::parse_range;

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
    fn ranges_that_are_never_a_source_are_refused() {
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

    /// Input, a word of the cause, and the hint.
    const MEANT: &[(&str, &str, &str)] = &[
        (
            "198.51.100.0/255.255.255.0",
            "network mask",
            "`198.51.100.0/24`",
        ),
        (
            "198.51.100.7/255.255.255.0",
            "network mask",
            "`198.51.100.0/24`, or `198.51.100.7/32` for one host",
        ),
        (
            "198.51.100.7/255.255.255.255",
            "network mask",
            "`198.51.100.7/32`",
        ),
        (
            "198.51.100.7/0.0.0.0",
            "ambiguous mask",
            "`198.51.100.7/32` for one host",
        ),
        ("0.0.0.0/0.0.0.0", "network mask", "`0.0.0.0/0`"),
        (
            "0.0.0.0/255.255.255.255",
            "ambiguous mask",
            "write the prefix length: `0.0.0.0/32` for no source, `0.0.0.0/0` for every source",
        ),
        (
            "198.51.100.0/0.0.0.255",
            "wildcard mask",
            "`198.51.100.0/24`",
        ),
        (
            "198.51.100.0/255.0.255.0",
            "mask with gaps",
            "write CIDRs, one for each part",
        ),
        ("2001:db8::/ffff:ffff::", "network mask", "`2001:db8::/32`"),
        ("198.51.100.0/024", "unusual form", "`198.51.100.0/24`"),
        ("10.0.0.0/+8", "unusual form", "`10.0.0.0/8`"),
        ("0.0.0.0/00", "unusual form", "`0.0.0.0/0`"),
        ("198.51.100.0/24,", "punctuation", "`198.51.100.0/24`"),
        ("198.51.100.0/24;", "punctuation", "`198.51.100.0/24`"),
        ("\"198.51.100.0/24\"", "punctuation", "`198.51.100.0/24`"),
        ("['198.51.100.0/24',", "punctuation", "`198.51.100.0/24`"),
        ("[2001:db8::1]", "punctuation", "`2001:db8::1`"),
        ("(198.51.100.7)", "punctuation", "`198.51.100.7`"),
        (
            "198.51.100.0/33",
            "prefix length",
            "`/24` as in `198.51.100.0/24`",
        ),
        (
            "198.51.100.7/",
            "prefix length",
            "`198.51.100.7/32` for one host",
        ),
        (
            "2001:db8::/129",
            "prefix length",
            "`/48` as in `2001:db8:aa::/48`",
        ),
        (
            "192.0.2.1-192.0.2.4",
            "from one address",
            "as CIDRs: `192.0.2.1/32,192.0.2.2/31,192.0.2.4/32`",
        ),
        (
            "192.0.2.4-7",
            "from one address",
            "as a CIDR: `192.0.2.4/30`",
        ),
        (
            "192.0.2.4\u{2013}192.0.2.7",
            "from one address",
            "as a CIDR: `192.0.2.4/30`",
        ),
        (
            "2001:db8::-2001:db8::ff",
            "from one address",
            "as a CIDR: `2001:db8::/120`",
        ),
        (
            "192.0.2.9-192.0.2.4",
            "ends before",
            "write the lower address first, or CIDRs",
        ),
        (
            "198.51.100.7:443",
            "port",
            "write `198.51.100.7`: a range has no port; `--port` sets the protected ports",
        ),
        (
            "[2001:db8::1]:443",
            "port",
            "write `2001:db8::1`: a range has no port; `--port` sets the protected ports",
        ),
        (
            "198.51.100.0/24:443",
            "port",
            "write `198.51.100.0/24`: a range has no port; `--port` sets the protected ports",
        ),
        ("fe80::1%eth0", "interface", "`fe80::1`"),
        ("fe80::%eth0/64", "interface", "`fe80::/64`"),
        (
            "010.0.0.1",
            "leading zeros",
            "`10.0.0.1`, or `8.0.0.1` if the numbers are octal",
        ),
        ("10.0.0.09", "leading zeros", "`10.0.0.9`"),
        ("10.0.0/8", "3 of the four", "`10.0.0.0/8`"),
        ("10/8", "1 of the four", "`10.0.0.0/8`"),
        (
            "0/0",
            "1 of the four",
            "write `0.0.0.0/0` to allow every IPv4 source",
        ),
        (
            "10.1",
            "2 of the four",
            "write all four and a prefix length, like `198.51.100.0/24`",
        ),
        ("198.51.100.*", "wildcard", "`198.51.100.0/24`"),
        (
            "255.255.255.0",
            "network mask",
            "write the network with its prefix length, like `198.51.100.0/24`",
        ),
        (
            "127.0.0.1,",
            "punctuation",
            "leave it out: loopback traffic never passes the filter",
        ),
        ("10.0.0.0\u{200b}/8", "U+200B", "write `10.0.0.0/8`"),
    ];

    /// Input without a probable range, and a word of the cause.
    const NOT_RANGES: &[(&str, &str)] = &[
        ("vpn.example.com", "is a name"),
        ("vpn.example.com/32", "is a name"),
        ("AzureCloud", "provider"),
        ("AzureCloud.westeurope", "provider"),
        ("AWS", "provider"),
        ("sg-0123abcd", "provider"),
        ("@nodes", "is a preset"),
        ("https://vpn.example.com/x", "URL"),
        ("00:1a:2b:3c:4d:5e", "MAC"),
        ("001a.2b3c.4d5e", "MAC"),
        ("*", "every source"),
        ("any", "every source"),
        ("ALL", "every source"),
        ("localhost", "loopback"),
        ("disabled", "off switch"),
        ("256.1.1.1", "the number 256"),
        ("3232235777", "is a number"),
        ("192.0.2.1-2001:db8::1", "IPv4 and IPv6"),
        ("2001:db8:1:2:3:4:5:6:7", "not an IPv6 address"),
    ];

    #[test]
    fn the_probable_meaning_is_named() {
        for (text, word, hint) in MEANT {
            let (cause, have) = refused(text);
            assert!(cause.contains(word), "{text}: {cause}");
            assert_eq!(have, *hint, "{text}: {cause}");
        }
        for (text, word) in NOT_RANGES {
            let (cause, _) = refused(text);
            assert!(cause.contains(word), "{text}: {cause}");
        }
    }

    #[test]
    fn no_hint_for_a_network_is_its_first_address_alone() {
        for len in [
            "24,",
            "24;",
            "24\"",
            "024",
            "+24",
            "33",
            "",
            "x",
            "255.255.255.0",
            "0.0.0.255",
        ] {
            let (_, hint) = refused(&format!("198.51.100.0/{len}"));
            assert!(!hint.contains("/32"), "{len}: {hint}");
        }
    }
}
