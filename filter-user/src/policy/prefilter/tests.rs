//! Tables compared with a scan of all ranges.

use std::{cell::Cell, net::IpAddr};

use filter_common::prefilter::{holds_v4, holds_v6};
use ipnet::{Ipv4Net, Ipv6Net};

use super::*;
use crate::policy::compile::Prefix;

struct Family<'a>(&'a Table, usize);

impl filter_common::prefilter::Lines for Family<'_> {
    fn line(&self, index: u32) -> Option<&Line> {
        self.0.lines.get((index - HEADER_LINES) as usize)
    }

    fn block(&self, index: u32) -> Option<&Block> {
        Some(&self.0.bitmaps[self.1][index as usize])
    }
}

fn compile(ranges: impl IntoIterator<Item = IpNet>) -> Prefixes {
    let prefix = |range: IpNet| Prefix {
        range: range.trunc(),
        origins: 1,
        expires: None,
    };
    ranges.into_iter().map(prefix).collect()
}

/// The program's answer.
fn has(table: &Table, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => holds_v4(&Family(table, 0), &table.start, address.into()),
        IpAddr::V6(address) => holds_v6(&Family(table, 1), &table.start, address.into()),
    }
}

/// The first and last address of each range, their neighbours, and some in between; of the other
/// family as well.
fn probe_addresses(prefixes: &Prefixes, rng: &mut Rng) -> Vec<IpAddr> {
    let v4 = |bits: u128| IpAddr::from((bits as u32).to_be_bytes());
    let v6 = |bits: u128| IpAddr::from(bits.to_be_bytes());
    let mut addresses = Vec::new();
    for prefix in prefixes.iter() {
        let (first, last, bits, address): (u128, u128, u64, &dyn Fn(u128) -> IpAddr) =
            match prefix.range {
                IpNet::V4(range) => (
                    u32::from(range.network()).into(),
                    u32::from(range.broadcast()).into(),
                    31,
                    &v4,
                ),
                IpNet::V6(range) => (range.network().into(), range.broadcast().into(), 127, &v6),
            };
        let other = rng.wide() >> 2 & ((1 << (rng.next() % bits)) - 1);
        let beside = [first.wrapping_sub(1), last.wrapping_add(1)];
        addresses.extend([first, last, first ^ other].map(address));
        addresses.extend(beside.map(address));
    }
    for _ in 0..64 {
        addresses.push(v4(rng.next().into()));
        addresses.push(v6(rng.wide()));
    }
    for edge in [0, u128::MAX] {
        addresses.extend([v4(edge), v6(edge)]);
    }
    addresses
}

/// For each address the table gives the same answer as a scan of all ranges.
fn same_as_a_scan(ranges: impl IntoIterator<Item = IpNet>, rng: &mut Rng) {
    let prefixes = compile(ranges);
    let table = Table::new(&prefixes);
    for address in probe_addresses(&prefixes, rng) {
        let scan = prefixes
            .iter()
            .any(|prefix| prefix.range.contains(&address));
        assert_eq!(has(&table, address), scan, "{address} in {prefixes:?}");
    }
}

/// Pseudorandom numbers, the same in each run (xorshift64*).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 65 | u128::from(self.next()) << 2
    }

    /// A range anywhere, or close to the others if `bits` is small.
    fn range(&mut self, bits: u32) -> IpNet {
        if self.next() & 8 == 0 {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            let address = 0xc633_6400 ^ (self.next() as u32 & !mask);
            let len = self.next() % 33;
            Ipv4Net::new_assert(address.into(), len as u8).into()
        } else {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let address = 0x2001_0db8_00aa << 80 ^ (self.wide() & !mask);
            let len = self.next() % 129;
            Ipv6Net::new_assert(address.into(), len as u8).into()
        }
    }
}

#[test]
fn each_length_alone_is_exact() {
    let mut rng = Rng(1);
    for address in [0_u32, u32::MAX, 0xc000_0281] {
        for len in 0..=32 {
            let range = Ipv4Net::new_assert(address.into(), len);
            same_as_a_scan([range.into()], &mut rng);
        }
    }
    for address in [0_u128, u128::MAX, 0x2001_0db8 << 96 | 0x8000_0000_0000_0001] {
        for len in 0..=128 {
            let range = Ipv6Net::new_assert(address.into(), len);
            same_as_a_scan([range.into()], &mut rng);
        }
    }
    same_as_a_scan([], &mut rng);
}

#[test]
fn lists_of_all_shapes_are_exact() {
    let mut rng = Rng(2);
    for round in 0..600_u32 {
        let count = rng.next() % 80;
        // From widely scattered to adjacent ranges; short prefixes would hide the ranges inside
        // them.
        let bits = round % 129;
        let shortest = (round % 7) as u8 * 4;
        let ranges: Vec<IpNet> = (0..count)
            .map(|_| rng.range(bits))
            .filter(|range| range.prefix_len() >= shortest)
            .collect();
        same_as_a_scan(ranges, &mut rng);
    }
}

#[test]
fn neighbours_are_distinguished_to_the_last_bit() {
    let mut rng = Rng(3);
    // Every other host: the maximum number of lines.
    let hosts = (0..512_u32)
        .map(|host| Ipv4Net::from(std::net::Ipv4Addr::from(0x0a00_0000 + 2 * host)).into());
    same_as_a_scan(hosts, &mut rng);
    // Addresses with common first bits, and others.
    for start in [0x2001, 0x3fff, 0, 0x5000, 0xfd00] {
        for shift in [0, 40, 63, 64, 65, 100] {
            let hosts = (0..300_u128).map(|host| {
                Ipv6Net::from(std::net::Ipv6Addr::from(start << 112 | (2 * host) << shift)).into()
            });
            same_as_a_scan(hosts, &mut rng);
        }
    }
}

/// Lists so long that the bitmaps are not in the header. A bitmap is hashed if few ranges are as
/// wide as the values of its bits: here those of IPv6, or those of both families.
/// those of IPv6, or those of both.
#[test]
fn long_lists_are_exact() {
    for (shortest, hashed) in [(16, [false, true]), (26, [true, true])] {
        long_list_is_exact(shortest, hashed);
    }
}

/// The first and last addresses of the prefixes of each family, sorted by the first one; each with
/// the highest last address so far.
fn covered(prefixes: &Prefixes) -> [Vec<(u128, u128)>; 2] {
    let mut covered = [Vec::new(), Vec::new()];
    for prefix in prefixes.iter() {
        let (family, first, last) = match prefix.range {
            IpNet::V4(range) => (
                0,
                u32::from(range.network()).into(),
                u32::from(range.broadcast()).into(),
            ),
            IpNet::V6(range) => (
                1,
                u128::from(range.network()),
                u128::from(range.broadcast()),
            ),
        };
        covered[family].push((first, last));
    }
    for family in &mut covered {
        family.sort_unstable();
        let mut highest = 0;
        for (_, last) in family {
            highest = highest.max(*last);
            *last = highest;
        }
    }
    covered
}

/// A long list whose IPv4 ranges are at least that long.
fn long_list_is_exact(shortest: u64, hashed: [bool; 2]) {
    let mut rng = Rng(5);
    let mut ranges: Vec<IpNet> = (0..60_000)
        .map(|_| {
            if rng.next() & 8 == 0 {
                let len = shortest + rng.next() % (33 - shortest);
                Ipv4Net::new_assert((rng.next() as u32).into(), len as u8).into()
            } else {
                let len = 32 + rng.next() % 97;
                let address = 0b001 << 125 | rng.wide() >> 3;
                Ipv6Net::new_assert(address.into(), len as u8).into()
            }
        })
        .collect();
    // Ranges outside the bitmap, and ranges over many of its blocks.
    for wide in [
        "fd00::/8",
        "2600::/13",
        "3c80::/11",
        "10.0.0.0/13",
        "96.0.0.0/17",
    ] {
        ranges.push(wide.parse().expect("a range"));
    }
    let prefixes = compile(ranges);
    let table = Table::new(&prefixes);
    assert!(table.bitmaps.iter().all(|blocks| !blocks.is_empty()));
    assert_eq!(
        table
            .start
            .roots
            .each_ref()
            .map(|roots| roots.hashed_bits > 0),
        hashed
    );
    let covered = covered(&prefixes);
    for address in probe_addresses(&prefixes, &mut rng) {
        let (family, bits) = match address {
            IpAddr::V4(address) => (0, u32::from(address).into()),
            IpAddr::V6(address) => (1, u128::from(address)),
        };
        let before = covered[family].partition_point(|(first, _)| *first <= bits);
        let scan = before > 0 && covered[family][before - 1].1 >= bits;
        assert_eq!(has(&table, address), scan, "{address}");
    }
}

/// Counts the lookups that reach a line outside the header.
struct Counting<'a>(Family<'a>, Cell<usize>);

impl filter_common::prefilter::Lines for Counting<'_> {
    fn line(&self, index: u32) -> Option<&Line> {
        self.1.set(self.1.get() + 1);
        self.0.line(index)
    }

    fn block(&self, index: u32) -> Option<&Block> {
        self.0.block(index)
    }
}

/// A bitmap that matches every address would be exact as well.
#[test]
fn few_unlisted_sources_get_past_the_bitmap() {
    const UNLISTED: usize = 10_000;
    let mut rng = Rng(6);
    // In the header; hashed; and not hashed, since many ranges are wide.
    for (count, len_v4, hashed, fewer) in [
        (3_000, 28, false, 3),
        (60_000, 28, true, 100),
        (60_000, 19, false, 100),
    ] {
        let ranges: Vec<IpNet> = (0..count)
            .flat_map(|_| {
                let v4 = Ipv4Net::new_assert((rng.next() as u32).into(), len_v4);
                let address = 0b001 << 125 | rng.wide() >> 3;
                [v4.into(), Ipv6Net::new_assert(address.into(), 56).into()]
            })
            .collect();
        let mut table = Table::new(&compile(ranges));
        assert_eq!(table.start.roots[0].hashed_bits > 0, hashed);
        let mut get_far = |table: &Table, family: usize| {
            let lines = Counting(Family(table, family), Cell::new(0));
            let far = (0..UNLISTED).filter(|_| {
                let before = lines.1.get();
                let held = if family == 0 {
                    let address = std::net::Ipv4Addr::from(rng.next() as u32);
                    holds_v4(&lines, &table.start, address.into())
                } else {
                    let address = std::net::Ipv6Addr::from(0b001 << 125 | rng.wide() >> 3);
                    holds_v6(&lines, &table.start, address.into())
                };
                !held && lines.1.get() > before
            });
            far.count()
        };
        let with = [0, 1].map(|family| get_far(&table, family));
        for roots in table.start.roots.iter_mut() {
            roots.block_bits = 0;
            roots.bitmap.fill(u64::MAX);
        }
        let without = [0, 1].map(|family| get_far(&table, family));
        for (with, without) in with.into_iter().zip(without) {
            assert!(
                fewer * with < without,
                "{count}, /{len_v4}: {with}, {without}"
            );
        }
    }
}

/// A missing line leaves the answer to the tries: listed sources are found, and unlisted ones may
/// be.
#[test]
fn a_full_table_still_finds_every_listed_source() {
    let mut rng = Rng(7);
    let ranges: Vec<IpNet> = (0..20_000).map(|_| rng.range(8)).collect();
    let prefixes = compile(ranges.into_iter().filter(|range| range.prefix_len() >= 20));
    let whole = Table::new(&prefixes);
    let all = HEADER_LINES as usize + whole.lines.len();
    let addresses = probe_addresses(&prefixes, &mut rng);
    for room in [0, 1, HEADER_LINES as usize, all / 2, all - 1, all] {
        let table = Table::with_room(&prefixes, room as u32);
        assert!(table.lines.len() + HEADER_LINES as usize <= room.max(HEADER_LINES as usize));
        let unlisted = addresses.iter().filter(|address| {
            let (found, is_listed) = (has(&table, **address), has(&whole, **address));
            assert!(found || !is_listed, "{address} with room for {room}");
            found && !is_listed
        });
        assert_eq!(unlisted.count() == 0, room == all, "{room} of {all}");
    }
}

#[test]
fn the_size_follows_the_list() {
    let mut rng = Rng(4);
    let empty = Table::new(&compile([]));
    assert_eq!(empty.lines.len(), 0);
    let hosts = (0..3_500).map(|_| Ipv6Net::from(std::net::Ipv6Addr::from(rng.wide())).into());
    let table = Table::new(&compile(hosts));
    assert!(table.lines.len() < 4 * 3_500, "{}", table.lines.len());
}
