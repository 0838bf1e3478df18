//! The table in front of the tries: whether an address is in any range at all.
//!
//! A tree over the bits of the address, eight at a step, made of lines of one size. It is exact to the last bit: an address that
//! it does not find is in no range, and one that it finds is in one, of which the trie tells the rest. What a lookup costs does not
//! follow the list: where few ranges are, a line names them all, and where there are many they are a few steps apart.
//!
//! Before the tree stands a bitmap, a bit for each value that the first bits of an address may have, so many of them that most stand for
//! no range; of a long list of narrow ranges it is a Bloom filter of what they begin with. There most lookups end, with one load from memory that is
//! small enough for a cache.
//!
//! An IPv4 address is looked up as the first 32 bits of a [`Key`].

use core::net::{Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// A part of the table, 72 bytes. As a *node* it tells for each value of the next eight bits what follows; as a *leaf* it names up to
/// [`INTERVALS_PER_LEAF`] intervals of addresses, by the next 64 bits.
///
/// | word | node | leaf |
/// |---|---|---|
/// | 0 to 3 | bit `n`: all addresses with the value `n` are in a range | the first address of each interval |
/// | 4 to 7 | bit `n`: a line follows for the value `n` | how many addresses behind it the interval goes on |
/// | 8, bits 0 to 7 | zero | 1, and the number of intervals that a line follows for: the first of them |
/// | bits 8 to 31 | how many lines follow for the words before 5, 6 and 7, a byte each | zero |
/// | bits 32 to 63 | index of the first line that follows | the same |
///
/// An array of numbers and no structure, for the reason that [`PrefixValue`](crate::layout::PrefixValue) is one.
pub type Line = [u64; 9];

/// The word of a line with the index of those that follow.
pub const HEAD: usize = 8;
/// Where in the head the index begins.
pub const INDEX_SHIFT: u32 = 32;
/// How many intervals a leaf has room for. It has at least one, and repeats it in the room that it does not need.
pub const INTERVALS_PER_LEAF: usize = 4;
/// How many roots there are in a family: one for each value of the eight bits that choose it, and eight for the few IPv6 addresses that do not
/// begin with [`GLOBAL`], by their first three bits.
pub const ROOTS: usize = 256 + 8;

/// How many lines behind the roots are in the header: all those of a list of up to some 200 ranges.
pub const HEADER_LINES: u32 = 256;
/// The most lines that are not in the header. What has no room among them is left to the tries.
pub const MAX_FURTHER_LINES: u32 = 1 << 22;
/// The index of the first line for which there is no room.
pub const NO_LINE: u32 = HEADER_LINES + MAX_FURTHER_LINES;

/// How many bits of an address the bitmap tells apart that is in the header: of every list but long ones.
pub const BITMAP_BITS: u32 = 18;
/// A part of a bitmap that is not in the header, as long as a line of the cache. It has a bit for each value of the next [`BLOCK_BITS`] bits behind
/// those that choose it. Or, where most ranges are narrower than such a value, what they begin with is hashed over all blocks by [`hashed`], so that
/// they fill none more than another, however they lie together.
pub type Block = [u64; 8];
/// How many bits choose a bit in a block.
pub const BLOCK_BITS: u32 = 9;
/// How many bits of a block are set for what is hashed (a blocked Bloom filter: Putze, Sanders, Singler, *Cache-, Hash- and Space-Efficient Bloom
/// Filters*, 2007). A fourth, and a second multiplication for it, took more time in a flood than the strangers that it kept out.
pub const BLOOM_PROBES: usize = 3;

/// What an address begins with, hashed over 64 bits: the highest ones choose a block. Multiplicative hashing (Knuth, *The Art of Computer
/// Programming*, volume 3, section 6.4).
#[inline(always)]
pub const fn hash_prefix(bits: u64) -> u64 {
    bits.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bits of a block that are chosen by what of the 64 bits is behind those that choose it.
#[inline(always)]
pub const fn probes(rest: u64) -> [u64; BLOOM_PROBES] {
    const BITS: u64 = (1 << BLOCK_BITS) - 1;
    [
        rest >> (64 - BLOCK_BITS),
        rest >> (64 - 2 * BLOCK_BITS) & BITS,
        rest >> (64 - 3 * BLOCK_BITS) & BITS,
    ]
}

/// The part of the table that is in the header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PrefilterHead {
    /// Of IPv4, and of IPv6.
    pub roots: [FamilyRoots; 2],
    /// The first lines behind them, of both.
    pub lines: [Line; HEADER_LINES as usize],
}

/// Where the table of a family begins.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FamilyRoots {
    /// The binary logarithm of the number of blocks; 0 if the bitmap is here. Of IPv6 addresses it knows those that begin with [`GLOBAL`], by what is
    /// behind that; the others are not in it.
    pub block_bits: u64,
    /// How many first bits of an address are hashed over the blocks; 0 if none are, and the first of them choose the block.
    pub hashed_bits: u64,
    /// The bitmap of [`BITMAP_BITS`]. A bit is 1 if any address with that value is in a range.
    pub bitmap: [u64; 1 << (BITMAP_BITS - 6)],
    /// Where the tree begins: see [`ROOTS`].
    pub lines: [Line; ROOTS],
}

const _: () = assert!(size_of::<FamilyRoots>() == 16 + (1 << (BITMAP_BITS - 3)) + 72 * ROOTS);

/// How many bits choose the root of an IPv4 address.
pub const ROOT_BITS_V4: u32 = 8;
/// What nearly all IPv6 addresses begin with, in three bits: global unicast, 2000::/3 (RFC 4291 section 2.4). Eight bits that tell
/// them apart are those behind.
pub const GLOBAL: u64 = 0b001;
/// How many bits choose the root of an IPv6 address that begins with [`GLOBAL`].
pub const ROOT_BITS_GLOBAL: u32 = 3 + 8;
/// How many bits choose the root of any other.
pub const ROOT_BITS_OTHER: u32 = 3;

/// The index of the root for an IPv4 address, and what is behind the bits that chose it.
#[inline(always)]
const fn root_v4(key: Key) -> (usize, Key) {
    ((key.high >> 56) as usize, key.behind(ROOT_BITS_V4))
}

/// The same for an IPv6 address.
#[inline(always)]
const fn root_v6(key: Key) -> (usize, Key) {
    let first = key.high >> 61;
    if first == GLOBAL {
        (
            (key.high >> 53) as usize & 0xff,
            key.behind(ROOT_BITS_GLOBAL),
        )
    } else {
        (256 + first as usize, key.behind(ROOT_BITS_OTHER))
    }
}

/// The most steps a lookup takes: one for each eight bits behind the fewest that choose a root.
const MAX_STEPS: usize = 16;

/// Which bits of an address are still to be looked at, from the highest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The next 64 bits.
    pub high: u64,
    /// Those behind them.
    pub low: u64,
}

impl Key {
    /// The value of the next eight bits.
    #[inline(always)]
    const fn octet(self) -> u32 {
        (self.high >> 56) as u32
    }

    /// Behind so many bits, fewer than 64.
    #[inline(always)]
    const fn behind(self, bits: u32) -> Self {
        Self {
            high: self.high << bits | self.low >> (64 - bits),
            low: self.low << bits,
        }
    }
}

impl From<Ipv4Addr> for Key {
    #[inline(always)]
    fn from(address: Ipv4Addr) -> Self {
        Self {
            high: u64::from(u32::from_be_bytes(address.octets())) << 32,
            low: 0,
        }
    }
}

impl From<Ipv6Addr> for Key {
    #[inline(always)]
    fn from(address: Ipv6Addr) -> Self {
        let bits = u128::from_be_bytes(address.octets());
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }
}

/// What of a table is not in the header. Implemented over BPF maps in `filter-ebpf`, and over vectors in user space.
pub trait Lines {
    /// The line with this index, from [`HEADER_LINES`] on.
    fn line(&self, index: u32) -> Option<&Line>;
    /// The block of the family's bitmap with this index, if it is not in the header.
    fn block(&self, index: u32) -> Option<&Block>;
}

/// What comes of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The address is in no range.
    Nothing,
    /// It is in one.
    Range,
    /// The line with this index knows, from the key.
    Next(u32, Key),
}

/// Whether an IPv4 address is in a range.
///
/// A line that is not there leaves it to the trie: the answer is then yes.
#[inline(always)]
pub fn holds_v4<L: Lines>(lines: &L, start: &PrefilterHead, key: Key) -> bool {
    let roots = &start.roots[0];
    if !bitmap_has(lines, roots, key.high) {
        return false;
    }
    let (root, key) = root_v4(key);
    holds(lines, start, &roots.lines[root], key)
}

/// The same for an IPv6 address.
#[inline(always)]
pub fn holds_v6<L: Lines>(lines: &L, start: &PrefilterHead, key: Key) -> bool {
    let roots = &start.roots[1];
    if key.high >> 61 == GLOBAL && !bitmap_has(lines, roots, key.high << 3) {
        return false;
    }
    let (root, key) = root_v6(key);
    holds(lines, start, &roots.lines[root], key)
}

/// Whether any address that begins like this one, whose bits are `bits`, may be in a range.
#[inline(always)]
fn bitmap_has<L: Lines>(lines: &L, roots: &FamilyRoots, bits: u64) -> bool {
    let has = |words: &[u64], place: u64| words[(place >> 6) as usize] >> (place & 63);
    let block_bits = roots.block_bits as u32;
    if block_bits == 0 {
        return has(&roots.bitmap, bits >> (64 - BITMAP_BITS)) & 1 == 1;
    }
    let hashed_bits = roots.hashed_bits as u32;
    if hashed_bits == 0 {
        return match lines.block((bits >> (64 - block_bits)) as u32) {
            Some(block) => has(block, bits << block_bits >> (64 - BLOCK_BITS)) & 1 == 1,
            None => true,
        };
    }
    let place = hash_prefix(bits >> (64 - hashed_bits));
    let Some(block) = lines.block((place >> (64 - block_bits)) as u32) else {
        return true;
    };
    // All at once: a branch after each would be foretold wrong too often.
    let [one, two, three] = probes(place << block_bits);
    has(block, one) & has(block, two) & has(block, three) & 1 == 1
}

/// Whether the address is in a range, by the lines from `root` on; `key` is what is behind the bits that chose it.
#[inline(always)]
fn holds<L: Lines>(lines: &L, start: &PrefilterHead, root: &Line, key: Key) -> bool {
    let (mut index, mut key) = match search_line(root, key) {
        Found::Nothing => return false,
        Found::Range => return true,
        Found::Next(index, key) => (index, key),
    };
    for _ in 0..MAX_STEPS {
        let line = match start.lines.get(index as usize) {
            Some(line) => line,
            None => match lines.line(index) {
                Some(line) => line,
                None => return true,
            },
        };
        match search_line(line, key) {
            Found::Nothing => return false,
            Found::Range => return true,
            Found::Next(next, rest) => (index, key) = (next, rest),
        }
    }
    true
}

/// What `line` says.
#[inline(always)]
fn search_line(line: &Line, key: Key) -> Found {
    let head = line[HEAD];
    if head as u8 != 0 {
        return search_leaf(line, head, key);
    }
    let word = (key.octet() >> 6) as usize;
    let bit = 1 << (key.octet() & 63);
    let (ranges, follow) = (line[word], line[4 + word]);
    if (ranges | follow) & bit == 0 {
        return Found::Nothing;
    }
    if ranges & bit != 0 {
        return Found::Range;
    }
    let before = (head >> (8 * word)) as u8;
    let index = (head >> INDEX_SHIFT) as u32 + u32::from(before) + ones(follow & (bit - 1));
    Found::Next(index, key.behind(8))
}

#[inline(always)]
fn search_leaf(line: &Line, head: u64, key: Key) -> Found {
    let next = head as u8 - 1;
    // Written out: the verifier follows a loop step by step.
    let interval = if key.high.wrapping_sub(line[0]) <= line[4] {
        0
    } else if key.high.wrapping_sub(line[1]) <= line[5] {
        1
    } else if key.high.wrapping_sub(line[2]) <= line[6] {
        2
    } else if key.high.wrapping_sub(line[3]) <= line[7] {
        3
    } else {
        return Found::Nothing;
    };
    if interval >= next {
        return Found::Range;
    }
    Found::Next(
        (head >> INDEX_SHIFT) as u32 + u32::from(interval),
        Key {
            high: key.low,
            low: 0,
        },
    )
}

/// How many bits of `word` are one. BPF has no instruction for it.
#[inline(always)]
const fn ones(word: u64) -> u32 {
    let pairs = word - (word >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted() {
        for shift in 0..64 {
            for word in [
                u64::MAX >> shift,
                u64::MAX << shift,
                0x9e37_79b9_7f4a_7c15 >> shift,
                1 << shift,
                0,
            ] {
                assert_eq!(ones(word), word.count_ones(), "{word:x}");
            }
        }
    }
}
