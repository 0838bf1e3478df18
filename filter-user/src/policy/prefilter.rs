//! Compiles the prefixes of a generation to the prefilter.

use bytemuck::zeroed_box;
use filter_common::prefilter::{
    BITMAP_BITS, BLOCK_BITS, BLOOM_PROBES, Block, FamilyRoots, GLOBAL, HEAD, HEADER_LINES,
    INDEX_SHIFT, INTERVALS_PER_LEAF, Line, NO_LINE, PrefilterHead, ROOT_BITS_GLOBAL,
    ROOT_BITS_OTHER, ROOT_BITS_V4, hash_prefix, probes,
};
use ipnet::IpNet;

use super::compile::Prefixes;

/// A compiled table: exactly the addresses in some prefix, whatever its expiry. Beyond the maximum
/// number of lines it also matches addresses outside.
#[derive(Clone, Debug)]
pub struct Table {
    /// The part in the header.
    pub start: Box<PrefilterHead>,
    /// The lines outside the header; the first has the index [`HEADER_LINES`].
    pub lines: Vec<Line>,
    /// The bitmaps of IPv4 and of IPv6 outside the header; empty where the header has them.
    pub bitmaps: [Vec<Block>; 2],
}

impl Table {
    /// Compiles `prefixes`.
    pub fn new(prefixes: &Prefixes) -> Self {
        Self::with_room(prefixes, NO_LINE)
    }

    /// Like [`new`](Self::new), with a limit on the lines.
    fn with_room(prefixes: &Prefixes, room: u32) -> Self {
        let mut lines = Lines {
            lines: Vec::new(),
            room: room as usize,
        };
        let [v4, v6] = intervals(prefixes);
        let mut root = |intervals: &[Interval], bounds: Interval, depth| {
            lines.line(bounds.overlapping(intervals), bounds, depth)
        };
        let mut start: Box<PrefilterHead> = zeroed_box();
        let roots = &mut start.roots;
        for octet in 0..256 {
            let bounds = Interval::sharing(octet << 120, ROOT_BITS_V4);
            roots[0].lines[octet as usize] = root(&v4, bounds, ROOT_BITS_V4);
            let bounds =
                Interval::sharing(u128::from(GLOBAL) << 125 | octet << 117, ROOT_BITS_GLOBAL);
            roots[1].lines[octet as usize] = root(&v6, bounds, ROOT_BITS_GLOBAL);
        }
        for first in (0..8).filter(|first| *first != GLOBAL) {
            let bounds = Interval::sharing(u128::from(first) << 125, ROOT_BITS_OTHER);
            roots[1].lines[256 + first as usize] = root(&v6, bounds, ROOT_BITS_OTHER);
        }
        let bitmaps = [
            bitmap(&v4, 0, 0, &mut roots[0]),
            bitmap(&v6, u128::from(GLOBAL) << 125, 3, &mut roots[1]),
        ];
        let mut lines = lines.lines;
        let in_header = lines.len().min(HEADER_LINES as usize);
        start.lines[..in_header].copy_from_slice(&lines[..in_header]);
        lines.drain(..in_header);
        Self {
            start,
            lines,
            bitmaps,
        }
    }
}

/// The minimum size of a bitmap, in bytes per range; the maximum is twice that. It is large enough
/// that most addresses match no bit, and small enough to leave cache for the lines.
const BYTES_PER_RANGE: usize = 2;
/// The maximum number of blocks of a bitmap, as a power of two: 4 MiB.
const MAX_BLOCK_BITS: u32 = 16;
/// The maximum length of a hashed prefix, in bits. The program has 61 left after the three that
/// choose the bitmap.
const MAX_HASHED_BITS: u32 = 61;

/// Fills the bitmap of those of `intervals` that share the first `depth` bits of `start`. Puts it
/// into `roots`, or returns it if it is too long.
fn bitmap(intervals: &[Interval], start: u128, depth: u32, roots: &mut FamilyRoots) -> Vec<Block> {
    let bounds = Interval::sharing(start, depth);
    let intervals = bounds.overlapping(intervals);
    let space = (BYTES_PER_RANGE * intervals.len())
        .div_ceil(size_of::<Block>())
        .max(1);
    let block_bits = space.next_power_of_two().ilog2().min(MAX_BLOCK_BITS);
    // The first and the last value of each, in the next `bits` bits after the shared ones.
    let values = |bits: u32| {
        let value = move |address: u128| (address << depth >> (128 - bits)) as u64;
        intervals.iter().map(move |interval| {
            let Interval { first, last } = interval.within(bounds);
            (value(first), value(last))
        })
    };
    if block_bits + BLOCK_BITS <= BITMAP_BITS {
        for (first, last) in values(BITMAP_BITS) {
            for value in first..=last {
                set(&mut roots.bitmap, value as usize);
            }
        }
        return Vec::new();
    }
    let index_bits = block_bits + BLOCK_BITS;
    let mut blocks: Vec<Block> = vec![[0; 8]; 1 << block_bits];
    roots.block_bits = block_bits.into();
    let widths = intervals.iter().map(|interval| {
        let Interval { first, last } = interval.within(bounds);
        (last - first) << depth
    });
    if let Some(hashed_bits) = hashed_bits(widths, index_bits) {
        roots.hashed_bits = hashed_bits.into();
        for (first, last) in values(hashed_bits) {
            for value in first..=last {
                let place = hash_prefix(value);
                let block = &mut blocks[(place >> (64 - block_bits)) as usize];
                for bit in probes(place << block_bits) {
                    set(block, bit as usize);
                }
            }
        }
        return blocks;
    }
    let in_block = (1 << BLOCK_BITS) - 1;
    for (first, last) in values(index_bits) {
        let overlapping = (first >> BLOCK_BITS) as usize..=(last >> BLOCK_BITS) as usize;
        for (index, block) in overlapping.clone().zip(&mut blocks[overlapping]) {
            let start = (index as u64) << BLOCK_BITS;
            let (first, last) = (first.max(start), last.min(start | in_block));
            if (first, last) == (start, start | in_block) {
                *block = [u64::MAX; 8];
                continue;
            }
            for value in first..=last {
                set(block, (value & in_block) as usize);
            }
        }
    }
    blocks
}

/// The length of the prefixes to hash over a bitmap of 2^`index_bits` bits, so that the fewest
/// unlisted sources match. `None` if that is not less than half of the matches without hashing.
/// `widths` are the distances from the first to the last address of each interval.
///
/// An unlisted source matches if it shares a prefix with an interval, or by chance. A longer prefix
/// makes the former rarer and the latter more frequent, since intervals that are wider than a value
/// then take twice as many.
fn hashed_bits(widths: impl Iterator<Item = u128>, index_bits: u32) -> Option<u32> {
    let mut widths_by_bits = [0_u32; 129];
    for width in widths {
        widths_by_bits[(128 - width.leading_zeros()) as usize] += 1;
    }
    let two_to = |exponent: u32| f64::from(exponent).exp2();
    let values = |bits: u32| -> f64 {
        (0..)
            .zip(widths_by_bits)
            .map(|(width, intervals)| {
                f64::from(intervals) * two_to((width + bits).saturating_sub(128))
            })
            .sum()
    };
    let share = |bits: u32| values(bits) / two_to(bits);
    let hashed_share = |bits: u32| {
        let set = 1.0 - (-(BLOOM_PROBES as f64) * values(bits) / two_to(index_bits)).exp();
        share(bits) + set.powi(BLOOM_PROBES as i32)
    };
    (index_bits..=MAX_HASHED_BITS)
        .min_by(|one, other| hashed_share(*one).total_cmp(&hashed_share(*other)))
        .filter(|bits| 2.0 * hashed_share(*bits) < share(index_bits))
}

fn set(words: &mut [u64], bit: usize) {
    words[bit >> 6] |= 1 << (bit & 63);
}

/// An interval of addresses as 128-bit numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u128,
    last: u128,
}

impl Interval {
    /// All addresses that share the first `bits` bits of `first`, which is the lowest of them.
    fn sharing(first: u128, bits: u32) -> Self {
        Self {
            first,
            last: first | u128::MAX.checked_shr(bits).unwrap_or(0),
        }
    }

    /// The part of this interval whose next octet is `octet`. The interval holds all addresses that
    /// share its first `depth` bits. The last octet may reach beyond the address, padded with
    /// zeros.
    fn octet(self, octet: u128, depth: u32) -> Option<Self> {
        let beyond = depth.saturating_sub(120);
        if octet & ((1 << beyond) - 1) != 0 {
            return None;
        }
        let first = self.first | octet >> beyond << 120_u32.saturating_sub(depth);
        Some(Self::sharing(first, depth + 8))
    }

    const fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The part inside `bounds`, which it touches.
    fn within(self, bounds: Self) -> Self {
        Self {
            first: self.first.max(bounds.first),
            last: self.last.min(bounds.last),
        }
    }

    /// Those of the sorted `intervals` that touch this one.
    fn overlapping(self, intervals: &[Self]) -> &[Self] {
        let start = intervals.partition_point(|interval| interval.last < self.first);
        let end = intervals.partition_point(|interval| interval.first <= self.last);
        &intervals[start..end]
    }
}

/// The addresses of each family that are in some prefix: sorted, with a gap between any two. IPv4
/// addresses are in the upper 32 bits.
fn intervals(prefixes: &Prefixes) -> [Vec<Interval>; 2] {
    let mut families = [Vec::new(), Vec::new()];
    for prefix in prefixes.iter() {
        let (family, first) = match prefix.range {
            IpNet::V4(range) => (0, u128::from(u32::from(range.network())) << 96),
            IpNet::V6(range) => (1, u128::from(range.network())),
        };
        let host_bits = u128::MAX.checked_shr(u32::from(prefix.range.prefix_len()));
        let last = first | host_bits.unwrap_or(0);
        let intervals: &mut Vec<Interval> = &mut families[family];
        match intervals.last_mut() {
            Some(before) if first <= before.last.saturating_add(1) => {
                before.last = before.last.max(last);
            }
            _ => intervals.push(Interval { first, last }),
        }
    }
    families
}

/// An entry of a leaf: an interval in the bits that the leaf compares.
struct Part {
    first: u64,
    last: u64,
    /// If the remaining bits matter as well: all addresses that share the compared bits.
    subtree: Option<Interval>,
}

struct Lines {
    lines: Vec<Line>,
    /// The maximum number of lines.
    room: usize,
}

impl Lines {
    /// The line for the addresses in `bounds`, which share their first `depth` bits. `intervals`
    /// are those that touch them. Also adds the lines that it refers to.
    fn line(&mut self, intervals: &[Interval], bounds: Interval, depth: u32) -> Line {
        match parts(intervals, bounds, depth) {
            // A node without a bit set: no range.
            Some(parts) if parts.is_empty() => [0; 9],
            Some(parts) => self.leaf(parts, intervals, depth),
            None => self.node(intervals, bounds, depth),
        }
    }

    fn leaf(&mut self, mut parts: Vec<Part>, intervals: &[Interval], depth: u32) -> Line {
        parts.sort_by_key(|part| part.subtree.is_none());
        let subtrees: Vec<Interval> = parts.iter().filter_map(|part| part.subtree).collect();
        let mut line = [0; 9];
        for place in 0..INTERVALS_PER_LEAF {
            let part = parts.get(place).unwrap_or(&parts[parts.len() - 1]);
            line[place] = part.first;
            line[INTERVALS_PER_LEAF + place] = part.last - part.first;
        }
        let next = self.follow(&subtrees, intervals, depth + 64);
        line[HEAD] = u64::from(next) << INDEX_SHIFT | (1 + subtrees.len() as u64);
        line
    }

    fn node(&mut self, intervals: &[Interval], bounds: Interval, depth: u32) -> Line {
        let mut line = [0; 9];
        let mut subtrees = Vec::new();
        let mut before = 0_u64;
        let mut rest = intervals;
        for octet in 0..256 {
            if octet % 64 == 0 {
                before |= (subtrees.len() as u64) << (octet / 64 * 8);
            }
            let Some(bounds) = bounds.octet(octet as u128, depth) else {
                continue;
            };
            while rest
                .first()
                .is_some_and(|interval| interval.last < bounds.first)
            {
                rest = &rest[1..];
            }
            match rest.first() {
                Some(interval) if interval.holds(bounds) => line[octet / 64] |= 1 << (octet % 64),
                Some(interval) if interval.first <= bounds.last => {
                    line[4 + octet / 64] |= 1 << (octet % 64);
                    subtrees.push(bounds);
                }
                _ => {}
            }
        }
        let next = self.follow(&subtrees, intervals, depth + 8);
        line[HEAD] = u64::from(next) << INDEX_SHIFT | before;
        line
    }

    /// Adds consecutive lines for each of `bounds`, and returns the index of the first; `NO_LINE`
    /// if there is no room.
    fn follow(&mut self, bounds: &[Interval], intervals: &[Interval], depth: u32) -> u32 {
        let next = self.lines.len();
        if next + bounds.len() > self.room {
            return NO_LINE;
        }
        self.lines.resize(next + bounds.len(), [0; 9]);
        for (place, bounds) in bounds.iter().enumerate() {
            self.lines[next + place] = self.line(bounds.overlapping(intervals), *bounds, depth);
        }
        next as u32
    }
}

/// The entries of a leaf after the first `depth` bits for `intervals`; `None` if there are too
/// many.
fn parts(intervals: &[Interval], bounds: Interval, depth: u32) -> Option<Vec<Part>> {
    let unseen = (1_u128 << 64_u32.saturating_sub(depth)) - 1;
    let seen = |address: u128| (address << depth >> 64) as u64;
    let mut parts: Vec<Part> = Vec::new();
    for interval in intervals {
        let Interval { first, last } = interval.within(bounds);
        let (cut_first, cut_last) = (first & unseen != 0, last & unseen != unseen);
        // An interval ends between addresses that share the compared bits; the previous interval
        // may end there, too.
        let cut = |parts: &mut Vec<Part>, address: u128| {
            let subtree = Some(Interval {
                first: address & !unseen,
                last: address | unseen,
            });
            if parts.last().is_none_or(|part| part.subtree != subtree) {
                parts.push(Part {
                    first: seen(address),
                    last: seen(address),
                    subtree,
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
                subtree: None,
            });
        }
        if cut_last {
            cut(&mut parts, last);
        }
        if parts.len() > INTERVALS_PER_LEAF {
            return None;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests;
