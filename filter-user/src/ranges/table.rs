//! From the prefixes of a generation to the table that the program asks first.

use bytemuck::zeroed_box;
use filter_common::table::{
    BITMAP_BITS, BLOCK_BITS, Block, GLOBAL, HEAD, INDEX_SHIFT, Line, MOST_BITMAP_BITS,
    ROOT_BITS_GLOBAL, ROOT_BITS_OTHER, ROOT_BITS_V4, Roots, SPANS,
};
use ipnet::IpNet;

use super::Prefixes;

/// A compiled table: exactly the addresses that are in some prefix, whatever its expiry.
#[derive(Clone, Debug)]
pub struct Table {
    /// The roots of IPv4, and those of IPv6.
    pub roots: Box<[Roots; 2]>,
    /// The lines of both families behind them.
    pub lines: Vec<Line>,
    /// The bitmaps of IPv4 and of IPv6 that are too long for the roots; empty where they are there.
    pub bitmaps: [Vec<Block>; 2],
}

impl Table {
    /// The table of `prefixes`.
    pub fn new(prefixes: &Prefixes) -> Self {
        let mut lines = Lines::default();
        let [v4, v6] = spans(prefixes);
        let mut root =
            |spans: &[Span], bounds: Span, depth| lines.line(bounds.touched(spans), bounds, depth);
        let mut roots: Box<[Roots; 2]> = zeroed_box();
        for octet in 0..256 {
            let bounds = Span::sharing(octet << 120, ROOT_BITS_V4);
            roots[0].lines[octet as usize] = root(&v4, bounds, ROOT_BITS_V4);
            let bounds = Span::sharing(u128::from(GLOBAL) << 125 | octet << 117, ROOT_BITS_GLOBAL);
            roots[1].lines[octet as usize] = root(&v6, bounds, ROOT_BITS_GLOBAL);
        }
        for first in (0..8).filter(|first| *first != GLOBAL) {
            let bounds = Span::sharing(u128::from(first) << 125, ROOT_BITS_OTHER);
            roots[1].lines[256 + first as usize] = root(&v6, bounds, ROOT_BITS_OTHER);
        }
        let bitmaps = [
            bitmap(&v4, Span::sharing(0, 0), 0, &mut roots[0]),
            bitmap(
                &v6,
                Span::sharing(u128::from(GLOBAL) << 125, 3),
                3,
                &mut roots[1],
            ),
        ];
        Self {
            roots,
            lines: lines.0,
            bitmaps,
        }
    }
}

/// How many values a bitmap should have for each range, so that most of them stand for none.
const SPACE: usize = 16;

/// Puts the bitmap of the addresses in `bounds`, which are all that share their first `depth` bits, into `roots`, or returns it if it is too long.
fn bitmap(spans: &[Span], bounds: Span, depth: u32, roots: &mut Roots) -> Vec<Block> {
    let spans = bounds.touched(spans);
    let len = (SPACE * spans.len().max(1))
        .next_power_of_two()
        .ilog2()
        .clamp(BITMAP_BITS, MOST_BITMAP_BITS);
    roots.bitmap_bits = u64::from(len);
    let mut blocks = vec![[0; 8]; 1 << (len - BLOCK_BITS)];
    let value = |address: u128| (address << depth >> (128 - len)) as usize;
    for span in spans {
        let Span { first, last } = span.within(bounds);
        for value in value(first)..=value(last) {
            blocks[value >> BLOCK_BITS][value >> 6 & 7] |= 1 << (value & 63);
        }
    }
    if len == BITMAP_BITS {
        roots.bitmap.copy_from_slice(blocks.as_flattened());
        return Vec::new();
    }
    blocks
}

/// Addresses one after the other, as numbers of 128 bits, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u128,
    last: u128,
}

impl Span {
    /// All that share their first `bits` bits with `first`, the first of them.
    const fn sharing(first: u128, bits: u32) -> Self {
        Self {
            first,
            last: first | (u128::MAX >> bits),
        }
    }

    /// The addresses of this span, all of those that share its first `depth` bits, whose next octet is `octet`. The last octet of an
    /// address may go on beyond it, with zeros.
    const fn octet(self, octet: usize, depth: u32) -> Option<Self> {
        let (octet, beyond) = (octet as u128, depth.saturating_sub(120));
        if octet & ((1 << beyond) - 1) != 0 {
            return None;
        }
        if beyond > 0 {
            let first = self.first | octet >> beyond;
            return Some(Self { first, last: first });
        }
        Some(Self::sharing(
            self.first | octet << (120 - depth),
            depth + 8,
        ))
    }

    const fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The part that is in `bounds`, which it touches.
    fn within(self, bounds: Self) -> Self {
        Self {
            first: self.first.max(bounds.first),
            last: self.last.min(bounds.last),
        }
    }

    /// Those of `spans`, which are in order, with addresses of this one.
    fn touched(self, spans: &[Self]) -> &[Self] {
        let start = spans.partition_point(|span| span.last < self.first);
        let end = spans.partition_point(|span| span.first <= self.last);
        &spans[start..end]
    }
}

/// The addresses of each family that are in some prefix: in order, and something between any two of them. Those of IPv4 are in the
/// upper 32 bits.
fn spans(prefixes: &Prefixes) -> [Vec<Span>; 2] {
    let mut families = [Vec::new(), Vec::new()];
    for prefix in prefixes.iter() {
        let (family, first) = match prefix.range {
            IpNet::V4(range) => (0, u128::from(u32::from(range.network())) << 96),
            IpNet::V6(range) => (1, u128::from(range.network())),
        };
        let host_bits = u128::MAX.checked_shr(u32::from(prefix.range.prefix_len()));
        let last = first | host_bits.unwrap_or(0);
        let spans: &mut Vec<Span> = &mut families[family];
        match spans.last_mut() {
            Some(before) if first <= before.last.saturating_add(1) => {
                before.last = before.last.max(last);
            }
            _ => spans.push(Span { first, last }),
        }
    }
    families
}

/// What a bunch holds: addresses of which the bits that the bunch sees are one after the other.
struct Part {
    first: u64,
    last: u64,
    /// For one whose bits that the bunch does not see matter as well: the addresses that share those it does see.
    further: Option<Span>,
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    /// The line for the addresses in `bounds`, which are all that share their first `depth` bits; `spans` are those that touch them.
    /// What follows it is put in.
    fn line(&mut self, spans: &[Span], bounds: Span, depth: u32) -> Line {
        match parts(spans, bounds, depth) {
            // A node without a bit: nothing.
            Some(parts) if parts.is_empty() => [0; 9],
            Some(parts) => self.bunch(parts, spans, depth),
            None => self.node(spans, bounds, depth),
        }
    }

    fn bunch(&mut self, mut parts: Vec<Part>, spans: &[Span], depth: u32) -> Line {
        parts.sort_by_key(|part| part.further.is_none());
        let further: Vec<Span> = parts.iter().filter_map(|part| part.further).collect();
        let mut line = [0; 9];
        for place in 0..SPANS {
            let part = parts.get(place).unwrap_or(&parts[parts.len() - 1]);
            line[place] = part.first;
            line[SPANS + place] = part.last - part.first;
        }
        let next = self.follow(&further, spans, depth + 64);
        line[HEAD] = u64::from(next) << INDEX_SHIFT | (1 + further.len() as u64);
        line
    }

    fn node(&mut self, spans: &[Span], bounds: Span, depth: u32) -> Line {
        let mut line = [0; 9];
        let mut further = Vec::new();
        let mut before = 0_u64;
        let mut rest = spans;
        for octet in 0..256 {
            if octet % 64 == 0 {
                before |= (further.len() as u64) << (octet / 64 * 8);
            }
            let Some(bounds) = bounds.octet(octet, depth) else {
                continue;
            };
            while rest.first().is_some_and(|span| span.last < bounds.first) {
                rest = &rest[1..];
            }
            match rest.first() {
                Some(span) if span.holds(bounds) => line[octet / 64] |= 1 << (octet % 64),
                Some(span) if span.first <= bounds.last => {
                    line[4 + octet / 64] |= 1 << (octet % 64);
                    further.push(bounds);
                }
                _ => {}
            }
        }
        let next = self.follow(&further, spans, depth + 8);
        line[HEAD] = u64::from(next) << INDEX_SHIFT | before;
        line
    }

    /// Puts in the lines for each of `bounds`, one after the other, and returns the index of the first.
    fn follow(&mut self, bounds: &[Span], spans: &[Span], depth: u32) -> u32 {
        let next = self.0.len();
        self.0.resize(next + bounds.len(), [0; 9]);
        for (place, bounds) in bounds.iter().enumerate() {
            self.0[next + place] = self.line(bounds.touched(spans), *bounds, depth);
        }
        u32::try_from(next).expect("a million ranges make fewer lines")
    }
}

/// What a bunch behind the first `depth` bits would hold of `spans`; `None` if it has no room for that.
fn parts(spans: &[Span], bounds: Span, depth: u32) -> Option<Vec<Part>> {
    let unseen = (1_u128 << 64_u32.saturating_sub(depth)) - 1;
    let seen = |address: u128| (address << depth >> 64) as u64;
    let mut parts: Vec<Part> = Vec::new();
    for span in spans {
        let Span { first, last } = span.within(bounds);
        let (cut_first, cut_last) = (first & unseen != 0, last & unseen != unseen);
        // An end in the midst of addresses that look the same; so may be that of the span before.
        let cut = |parts: &mut Vec<Part>, address: u128| {
            let further = Some(Span {
                first: address & !unseen,
                last: address | unseen,
            });
            if parts.last().is_none_or(|part| part.further != further) {
                parts.push(Part {
                    first: seen(address),
                    last: seen(address),
                    further,
                });
            }
        };
        if cut_first {
            cut(&mut parts, first);
        }
        let whole = u128::from(seen(first)) + u128::from(cut_first)
            ..u128::from(seen(last)) + 1 - u128::from(cut_last);
        if !whole.is_empty() {
            parts.push(Part {
                first: whole.start as u64,
                last: (whole.end - 1) as u64,
                further: None,
            });
        }
        if cut_last {
            cut(&mut parts, last);
        }
        if parts.len() > SPANS {
            return None;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use filter_common::table::{holds_v4, holds_v6};
    use ipnet::{Ipv4Net, Ipv6Net};

    use super::*;
    use crate::ranges::Prefix;

    struct Family<'a>(&'a Table, usize);

    impl filter_common::table::Lines for Family<'_> {
        fn line(&self, index: u32) -> Option<&Line> {
            Some(&self.0.lines[index as usize])
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

    /// What the program would say.
    fn asked(table: &Table, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => holds_v4(&Family(table, 0), &table.roots[0], address.into()),
            IpAddr::V6(address) => holds_v6(&Family(table, 1), &table.roots[1], address.into()),
        }
    }

    /// The first and last address of each range, those beside them, and some in between; of the other family as well.
    fn worth_asking(prefixes: &Prefixes, rng: &mut Rng) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for prefix in prefixes.iter() {
            match prefix.range {
                IpNet::V4(range) => {
                    let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
                    let other = rng.next() as u32 & ((1 << (rng.next() % 31)) - 1);
                    for address in [
                        first,
                        last,
                        first.wrapping_sub(1),
                        last.wrapping_add(1),
                        first ^ other,
                    ] {
                        addresses.push(IpAddr::from(address.to_be_bytes()));
                    }
                }
                IpNet::V6(range) => {
                    let (first, last) =
                        (u128::from(range.network()), u128::from(range.broadcast()));
                    let other = rng.wide() & ((1 << (rng.next() % 127)) - 1);
                    for address in [
                        first,
                        last,
                        first.wrapping_sub(1),
                        last.wrapping_add(1),
                        first ^ other,
                    ] {
                        addresses.push(IpAddr::from(address.to_be_bytes()));
                    }
                }
            }
        }
        for _ in 0..64 {
            addresses.push(IpAddr::from((rng.next() as u32).to_be_bytes()));
            addresses.push(IpAddr::from(rng.wide().to_be_bytes()));
        }
        for edge in [0, u128::MAX] {
            addresses.push(IpAddr::from(edge.to_be_bytes()));
            addresses.push(IpAddr::from((edge as u32).to_be_bytes()));
        }
        addresses
    }

    /// The table says of each of them what a scan of all ranges says.
    fn same_as_a_scan(ranges: impl IntoIterator<Item = IpNet>, rng: &mut Rng) {
        let prefixes = compile(ranges);
        let table = Table::new(&prefixes);
        for address in worth_asking(&prefixes, rng) {
            let scan = prefixes
                .iter()
                .any(|prefix| prefix.range.contains(&address));
            assert_eq!(asked(&table, address), scan, "{address} in {prefixes:?}");
        }
    }

    /// Numbers that look random, the same each time (xorshift64*).
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

        /// A range anywhere, or close to the others where `bits` are few.
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
            // From all over the place to side by side; short prefixes would hide what is inside them.
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
    fn neighbours_are_told_apart_to_the_last_bit() {
        let mut rng = Rng(3);
        // Every other host: the most lines there can be.
        let hosts = (0..512_u32)
            .map(|host| Ipv4Net::from(std::net::Ipv4Addr::from(0x0a00_0000 + 2 * host)).into());
        same_as_a_scan(hosts, &mut rng);
        // Of those that begin as most do, and others.
        for start in [0x2001, 0x3fff, 0, 0x5000, 0xfd00] {
            for shift in [0, 40, 63, 64, 65, 100] {
                let hosts = (0..300_u128).map(|host| {
                    Ipv6Net::from(std::net::Ipv6Addr::from(start << 112 | (2 * host) << shift))
                        .into()
                });
                same_as_a_scan(hosts, &mut rng);
            }
        }
    }

    /// Of so many ranges that the bitmap is not in the record.
    #[test]
    fn long_lists_are_exact() {
        let mut rng = Rng(5);
        let mut ranges: Vec<IpNet> = (0..30_000)
            .map(|_| {
                if rng.next() & 8 == 0 {
                    let len = 16 + rng.next() % 17;
                    Ipv4Net::new_assert((rng.next() as u32).into(), len as u8).into()
                } else {
                    let len = 32 + rng.next() % 97;
                    let address = 0b001 << 125 | rng.wide() >> 3;
                    Ipv6Net::new_assert(address.into(), len as u8).into()
                }
            })
            .collect();
        ranges.push("fd00::/8".parse().expect("a range"));
        let prefixes = compile(ranges);
        let table = Table::new(&prefixes);
        assert!(table.bitmaps.iter().all(|blocks| !blocks.is_empty()));
        let spans = spans(&prefixes);
        for address in worth_asking(&prefixes, &mut rng) {
            let (family, bits) = match address {
                IpAddr::V4(address) => (0, u128::from(u32::from(address)) << 96),
                IpAddr::V6(address) => (1, u128::from(address)),
            };
            let one = Span {
                first: bits,
                last: bits,
            };
            let scan = !one.touched(&spans[family]).is_empty();
            assert_eq!(asked(&table, address), scan, "{address}");
        }
    }

    #[test]
    fn what_it_takes_follows_the_list() {
        let mut rng = Rng(4);
        let empty = Table::new(&compile([]));
        assert_eq!(empty.lines.len(), 0);
        let hosts = (0..3_500).map(|_| Ipv6Net::from(std::net::Ipv6Addr::from(rng.wide())).into());
        let table = Table::new(&compile(hosts));
        assert!(table.lines.len() < 4 * 3_500, "{}", table.lines.len());
    }
}
