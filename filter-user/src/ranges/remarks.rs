//! Remarks on a valid list.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Entry;

/// The maximum number of remarks in full.
const MAX_REMARKS: usize = 10;

/// Warnings and notes about a valid list: the first ones, and the number of the others. Nested
/// ranges are reported if they are `new`; the others were reported when they were added.
pub fn remarks(entries: &[Entry], new: impl Fn(&IpNet) -> bool) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut more = 0_usize;
    let mut remark = |text: &dyn Fn() -> String| {
        if remarks.len() < MAX_REMARKS {
            remarks.push(text());
        } else {
            more += 1;
        }
    };
    let mut ranges: Vec<IpNet> = entries.iter().map(|entry| entry.range).collect();
    ranges.sort_unstable();
    for range in ranges.iter().filter(|range| range.prefix_len() == 0) {
        remark(&|| format!("warning: `{range}` allows every {} source", family(range)));
    }
    for text in coverage_remarks(&ranges) {
        remark(&|| text.clone());
    }
    // Sorted, a range follows those that hold it: the innermost of these is on top of the stack.
    let mut open: Vec<IpNet> = Vec::new();
    for same in ranges.chunk_by(|one, other| one == other) {
        let range = same[0];
        while open.last().is_some_and(|outer| !outer.contains(&range)) {
            open.pop();
        }
        let told = new(&range) || open.last().is_some_and(&new);
        if let Some(outer) = open.last().filter(|_| told) {
            remark(&|| format!("note: `{range}` is inside `{outer}`"));
        }
        match same.len() {
            _ if !told => {}
            1 => {}
            2 => remark(&|| format!("note: `{range}` is listed twice")),
            times => remark(&|| format!("note: `{range}` is listed {times} times")),
        }
        open.push(range);
    }
    if more > 0 {
        remarks.push(format!("note: and {more} more like these"));
    }
    remarks
}

/// The name of a range's family.
const fn family(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

/// The number of distinct ranges.
pub fn distinct(entries: &[Entry]) -> usize {
    let mut ranges: Vec<IpNet> = entries.iter().map(|entry| entry.range).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges.len()
}

/// The first and the last address of a range, as a number of 128 bits.
type Interval = (u128, u128);

/// IPv4 addresses that are not public: private, shared, loopback, link-local, multicast, reserved.
const NOT_PUBLIC: [(u32, u32); 9] = [
    (0x0000_0000, 0x00ff_ffff),
    (0x0a00_0000, 0x0aff_ffff),
    (0x6440_0000, 0x647f_ffff),
    (0x7f00_0000, 0x7fff_ffff),
    (0xa9fe_0000, 0xa9fe_ffff),
    (0xac10_0000, 0xac1f_ffff),
    (0xc0a8_0000, 0xc0a8_ffff),
    (0xc612_0000, 0xc613_ffff),
    (0xe000_0000, 0xffff_ffff),
];

/// IPv4 addresses that can be a source, other than loopback.
const SOURCES_V4: [Interval; 2] = [(0x0100_0000, 0x7eff_ffff), (0x8000_0000, 0xdfff_ffff)];

/// 2000::/3, the public addresses of IPv6.
const PUBLIC_V6: Interval = (0x2 << 124, (0x4 << 124) - 1);

/// A list with so many public IPv4 addresses gets a remark: more than the networks of an office and
/// its provider.
const MANY_V4: u128 = 1 << 20;
/// The same limit for IPv6, in networks of /32.
const MANY_V6: u128 = 1 << 8;

fn covers(have: &[Interval], want: &Interval) -> bool {
    have.iter()
        .any(|(first, last)| *first <= want.0 && want.1 <= *last)
}

fn is_every_v4(have: &[Interval]) -> bool {
    SOURCES_V4.iter().all(|want| covers(have, want))
}

/// The families of which sorted ranges hold every source, however that is written, each as one
/// range.
pub fn let_everyone_in(ranges: &[IpNet]) -> Vec<IpNet> {
    let (v4, v6) = ranges.split_at(ranges.partition_point(|range| matches!(range, IpNet::V4(_))));
    let v4 = is_every_v4(&merge(v4)).then(|| IpNet::V4(Ipv4Net::default()));
    let v6 = covers(&merge(v6), &PUBLIC_V6).then(|| IpNet::V6(Ipv6Net::default()));
    v4.into_iter().chain(v6).collect()
}

/// A remark if sorted ranges together hold every source, or many.
fn coverage_remarks(ranges: &[IpNet]) -> Vec<String> {
    let mut reach = Vec::new();
    let (v4, v6) = ranges.split_at(ranges.partition_point(|range| matches!(range, IpNet::V4(_))));
    let v4 = if holds_all(v4) { Vec::new() } else { merge(v4) };
    let v6 = if holds_all(v6) { Vec::new() } else { merge(v6) };
    let all = u128::from(u32::MAX) + 1;
    let special: u128 = NOT_PUBLIC
        .iter()
        .map(|(first, last)| u128::from(last - first) + 1)
        .sum();
    let public = NOT_PUBLIC.map(|(first, last)| (u128::from(first), u128::from(last)));
    let count = size(&v4) - public.iter().map(|block| common(&v4, *block)).sum::<u128>();
    if is_every_v4(&v4) {
        reach.push(
            "warning: together these ranges allow every IPv4 source, as `0.0.0.0/0` does"
                .to_owned(),
        );
    } else if count > MANY_V4 {
        let percent = count as f64 * 100.0 / (all - special) as f64;
        reach.push(format!(
            "{}: the list allows {} public IPv4 addresses, {percent:.1} % of all",
            if percent >= 50.0 { "warning" } else { "note" },
            rounded(count)
        ));
    }
    let networks = common(&v6, PUBLIC_V6) >> 96;
    if covers(&v6, &PUBLIC_V6) {
        reach.push(
            "warning: together these ranges allow every IPv6 source, as `::/0` does".to_owned(),
        );
    } else if networks > MANY_V6 {
        reach.push(format!(
            "note: the list allows as many public IPv6 addresses as {networks} networks of /32, the size of a provider"
        ));
    }
    reach
}

/// Whether the first of sorted ranges holds its whole family: it has its own remark.
fn holds_all(ranges: &[IpNet]) -> bool {
    ranges.first().is_some_and(|range| range.prefix_len() == 0)
}

/// Sorted ranges as intervals with a gap between any two.
fn merge(ranges: &[IpNet]) -> Vec<Interval> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let mut merged: Vec<Interval> = Vec::new();
    for range in ranges {
        let (first, last) = (number(range.network()), number(range.broadcast()));
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn size(intervals: &[Interval]) -> u128 {
    intervals.iter().map(|(first, last)| last - first + 1).sum()
}

/// The number of addresses that are also in `block`.
fn common(intervals: &[Interval], block: Interval) -> u128 {
    let common = intervals.iter().map(|(first, last)| {
        let (first, last) = (*first.max(&block.0), *last.min(&block.1));
        if first <= last { last - first + 1 } else { 0 }
    });
    common.sum()
}

fn rounded(count: u128) -> String {
    let count = count as f64;
    match count {
        billions if billions >= 1e9 => format!("{:.1} billion", billions / 1e9),
        millions if millions >= 1e7 => format!("{:.0} million", millions / 1e6),
        millions => format!("{:.1} million", millions / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_nested_ranges_are_remarked() {
        let entries: Vec<Entry> = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.0.0/16",
            "10.1.0.0/16",
            "192.0.2.1/32",
        ]
        .map(|text| Entry {
            range: text.parse().expect("a range"),
            expires: None,
            comment: None,
        })
        .to_vec();
        assert_eq!(
            remarks(&entries, |_| true),
            [
                "note: `10.1.0.0/16` is inside `10.0.0.0/8`",
                "note: `10.1.0.0/16` is listed 3 times"
            ]
        );
    }

    #[test]
    fn many_remarks_are_counted() {
        let mut entries: Vec<Entry> = (0..200)
            .map(|host| Entry {
                range: format!("10.0.0.{host}/32").parse().expect("a range"),
                expires: None,
                comment: None,
            })
            .collect();
        assert_eq!(remarks(&entries, |_| true), [""; 0]);
        entries.push(Entry {
            range: "10.0.0.0/24".parse().expect("a range"),
            expires: None,
            comment: None,
        });
        let remarks = remarks(&entries, |_| true);
        assert_eq!(remarks.len(), 11);
        assert_eq!(remarks[9], "note: `10.0.0.9/32` is inside `10.0.0.0/24`");
        assert_eq!(remarks[10], "note: and 190 more like these");
    }

    fn reach_of(ranges: &[&str]) -> Vec<String> {
        let entries = ranges.iter().map(|text| Entry {
            range: text.parse().expect("a range"),
            expires: None,
            comment: None,
        });
        let mut remarks = remarks(&entries.collect::<Vec<_>>(), |_| true);
        remarks.retain(|remark| !remark.contains("is inside"));
        remarks
    }

    #[test]
    fn a_list_that_lets_everyone_in_says_so_however_it_is_written() {
        let v4 = "warning: together these ranges allow every IPv4 source, as `0.0.0.0/0` does";
        let v6 = "warning: together these ranges allow every IPv6 source, as `::/0` does";
        for (ranges, want) in [
            (&["0.0.0.0/1", "128.0.0.0/1"][..], v4),
            (&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"], v4),
            (
                &[
                    "128.0.0.0/2",
                    "0.0.0.0/2",
                    "64.0.0.0/2",
                    "192.0.0.0/3",
                    "10.0.0.0/8",
                ],
                v4,
            ),
            (&["::/1", "8000::/1"], v6),
            (&["2000::/3"], v6),
            (&["2000::/4", "3000::/4"], v6),
        ] {
            assert_eq!(reach_of(ranges), [want], "{ranges:?}");
        }
        assert_eq!(
            reach_of(&["0.0.0.0/0"]),
            ["warning: `0.0.0.0/0` allows every IPv4 source"]
        );
        assert_eq!(
            reach_of(&["::/0"]),
            ["warning: `::/0` allows every IPv6 source"]
        );
    }

    #[test]
    fn a_list_that_lets_many_in_says_how_many() {
        for quiet in [
            &["198.51.100.0/24", "2001:db8:aa::/48"][..],
            &["203.0.0.0/16", "52.10.0.0/16", "2600::/32"],
            &[
                "10.0.0.0/8",
                "100.64.0.0/10",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "fc00::/7",
                "fe80::/10",
            ],
        ] {
            assert_eq!(reach_of(quiet), [""; 0], "{quiet:?}");
        }
        for (ranges, want) in [
            (
                &["13.0.0.0/8", "52.0.0.0/9"][..],
                "note: the list allows 25 million public IPv4 addresses, 0.7 % of all",
            ),
            (
                &["13.0.0.0/8", "13.1.0.0/16"],
                "note: the list allows 17 million public IPv4 addresses, 0.5 % of all",
            ),
            (
                &["13.0.0.0/11"],
                "note: the list allows 2.1 million public IPv4 addresses, 0.1 % of all",
            ),
            (
                &["0.0.0.0/1"],
                "warning: the list allows 2.1 billion public IPv4 addresses, 56.5 % of all",
            ),
            (
                &["2600::/20"],
                "note: the list allows as many public IPv6 addresses as 4096 networks of /32, the size of a provider",
            ),
        ] {
            assert_eq!(reach_of(ranges), [want], "{ranges:?}");
        }
    }
}
