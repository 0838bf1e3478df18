//! The prefilter in front of the tries: a table that tells whether an address is in any range.
//!
//! A tree over the bits of the address, eight per step, made of lines of one size. It is exact to
//! the last bit: it finds an address if, and only if, that is in a range. The trie then supplies
//! the range. The cost of a lookup hardly depends on the list: where ranges are rare, one line
//! holds them all, and where they are dense they are a few steps apart.
//!
//! A bitmap comes before the tree, with a bit for each value of the first bits of an address: so
//! many bits that most of them match no range. For a long list of narrow ranges it is a Bloom
//! filter of their prefixes. Most lookups end there, with one load from memory that is small enough
//! for a cache.
//!
//! An IPv4 address is looked up as the first 32 bits of a [`Key`].

use core::net::{Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// A part of the table, 72 bytes. A *node* has two bits for each value of the next eight bits. A
/// *leaf* has up to [`INTERVALS_PER_LEAF`] intervals of addresses, by the next 64 bits.
///
/// | word | node | leaf |
/// |---|---|---|
/// | 0 to 3 | bit `n`: value `n` is wholly in a range | first address of each interval |
/// | 4 to 7 | bit `n`: value `n` has a line below | last minus first address of each |
/// | 8, bits 0 to 7 | 0 | 1 plus the number of intervals with a line below, which come first |
/// | bits 8 to 31 | the lines below for the words before 5, 6 and 7, a byte each | 0 |
/// | bits 32 to 63 | index of the first line below | the same |
///
/// An array of numbers instead of a struct, for the same reason as
/// [`PrefixValue`](crate::layout::PrefixValue).
pub type Line = [u64; 9];

/// The word of a line with the index of the lines below it.
pub const HEAD: usize = 8;
/// Position of the index in the head.
pub const INDEX_SHIFT: u32 = 32;
/// The number of intervals in a leaf. A leaf with fewer, at least one, repeats its last one.
pub const INTERVALS_PER_LEAF: usize = 4;
/// The number of roots of a family: one for each value of the eight bits that select it, and eight
/// for the few IPv6 addresses that do not begin with [`GLOBAL`], by their first three bits.
pub const ROOTS: usize = 256 + 8;

/// The number of lines in the header after the roots: enough for a list of some 200 ranges.
pub const HEADER_LINES: u32 = 256;
/// The maximum number of lines outside the header. The tries answer for ranges without a line.
pub const MAX_FURTHER_LINES: u32 = 1 << 22;
/// The first index beyond the maximum.
pub const NO_LINE: u32 = HEADER_LINES + MAX_FURTHER_LINES;

/// The number of address bits that index the bitmap in the header, which serves all but long lists.
pub const BITMAP_BITS: u32 = 18;
/// A part of a bitmap outside the header, one cache line long. It has a bit for each value of the
/// next [`BLOCK_BITS`] bits after those that select it. If most ranges are narrower than such a
/// value, [`hash_prefix`] instead spreads their prefixes over all blocks, so that they fill evenly,
/// even if the ranges are close together.
pub type Block = [u64; 8];
/// The number of bits that select a bit in a block.
pub const BLOCK_BITS: u32 = 9;
/// The number of bits in a block for a hashed prefix (a blocked Bloom filter: Putze, Sanders,
/// Singler, *Cache-, Hash- and Space-Efficient Bloom Filters*, 2007). A fourth probe, with a second
/// multiplication, cost more time in a flood than the lookups that it saved.
pub const BLOOM_PROBES: usize = 3;

/// The hash of a prefix, 64 bits long; the highest bits select a block. Multiplicative hashing
/// (Knuth, *The Art of Computer Programming*, volume 3, section 6.4).
#[inline(always)]
pub const fn hash_prefix(bits: u64) -> u64 {
    bits.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bits of a block for a hash, selected by the hash bits after those that select the block.
#[inline(always)]
pub const fn probes(rest: u64) -> [u64; BLOOM_PROBES] {
    const BITS: u64 = (1 << BLOCK_BITS) - 1;
    [
        rest >> (64 - BLOCK_BITS),
        rest >> (64 - 2 * BLOCK_BITS) & BITS,
        rest >> (64 - 3 * BLOCK_BITS) & BITS,
    ]
}

/// The part of the prefilter in the policy header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PrefilterHead {
    /// The roots of IPv4, and of IPv6.
    pub roots: [FamilyRoots; 2],
    /// The first lines after the roots, of both families.
    pub lines: [Line; HEADER_LINES as usize],
}

/// The start of a family's table.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FamilyRoots {
    /// The binary logarithm of the number of blocks; 0 if the bitmap is in the header. It covers
    /// IPv6 addresses that begin with [`GLOBAL`], by the bits after it, and no others.
    pub block_bits: u64,
    /// The length of the hashed prefixes in bits. 0 without hashing: the first bits then select the
    /// block.
    pub hashed_bits: u64,
    /// The bitmap over [`BITMAP_BITS`] bits. A bit is 1 if any address with that value is in a
    /// range.
    pub bitmap: [u64; 1 << (BITMAP_BITS - 6)],
    /// The roots of the tree, see [`ROOTS`].
    pub lines: [Line; ROOTS],
}

const _: () = assert!(size_of::<FamilyRoots>() == 16 + (1 << (BITMAP_BITS - 3)) + 72 * ROOTS);

/// The number of bits that select the root of an IPv4 address.
pub const ROOT_BITS_V4: u32 = 8;
/// The first three bits of nearly all IPv6 addresses: global unicast, 2000::/3 (RFC 4291 section
/// 2.4). The next eight bits tell them apart.
pub const GLOBAL: u64 = 0b001;
/// The number of bits that select the root of an IPv6 address that begins with [`GLOBAL`].
pub const ROOT_BITS_GLOBAL: u32 = 3 + 8;
/// The number of bits that select the root of any other IPv6 address.
pub const ROOT_BITS_OTHER: u32 = 3;

/// The index of the root for an IPv4 address, and the bits after those that selected it.
#[inline(always)]
const fn root_v4(key: Key) -> (usize, Key) {
    ((key.high >> 56) as usize, key.skip(ROOT_BITS_V4))
}

/// Like [`root_v4`], for an IPv6 address.
#[inline(always)]
const fn root_v6(key: Key) -> (usize, Key) {
    let first = key.high >> 61;
    if first == GLOBAL {
        ((key.high >> 53) as usize & 0xff, key.skip(ROOT_BITS_GLOBAL))
    } else {
        (256 + first as usize, key.skip(ROOT_BITS_OTHER))
    }
}

/// The maximum number of steps of a lookup: one for each eight bits after the minimum that selects
/// a root.
const MAX_STEPS: usize = 16;

/// The remaining bits of an address, from the highest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The next 64 bits.
    pub high: u64,
    /// The bits after those.
    pub low: u64,
}

impl Key {
    /// The value of the next eight bits.
    #[inline(always)]
    const fn octet(self) -> u32 {
        (self.high >> 56) as u32
    }

    /// The key after the next `bits` bits, fewer than 64.
    #[inline(always)]
    const fn skip(self, bits: u32) -> Self {
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

/// Access to the table outside the header. Implemented over BPF maps in `filter-ebpf`, and over
/// vectors in user space.
pub trait Lines {
    /// The line with this index, from [`HEADER_LINES`] on.
    fn line(&self, index: u32) -> Option<&Line>;
    /// The block of the family's bitmap with this index, if it is not in the header.
    fn block(&self, index: u32) -> Option<&Block>;
}

/// The result of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The address is in no range.
    Nothing,
    /// The address is in a range.
    Range,
    /// The line with this index decides, from the key.
    Next(u32, Key),
}

/// Whether an IPv4 address is in a range.
///
/// If a line is missing, the answer is yes: the trie decides.
#[inline(always)]
pub fn holds_v4<L: Lines>(lines: &L, start: &PrefilterHead, key: Key) -> bool {
    let roots = &start.roots[0];
    if !bitmap_has(lines, roots, key.high) {
        return false;
    }
    let (root, key) = root_v4(key);
    holds(lines, start, &roots.lines[root], key)
}

/// Whether an IPv6 address is in a range; see [`holds_v4`].
#[inline(always)]
pub fn holds_v6<L: Lines>(lines: &L, start: &PrefilterHead, key: Key) -> bool {
    let roots = &start.roots[1];
    if key.high >> 61 == GLOBAL && !bitmap_has(lines, roots, key.high << 3) {
        return false;
    }
    let (root, key) = root_v6(key);
    holds(lines, start, &roots.lines[root], key)
}

/// Whether the bitmap allows an address with these `bits` to be in a range.
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
    // Without branches between them: those would be mispredicted too often.
    let [one, two, three] = probes(place << block_bits);
    has(block, one) & has(block, two) & has(block, three) & 1 == 1
}

/// Whether the address is in a range, from the line `root` on; `key` is the bits after those that
/// selected it.
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

/// The result of `line` for `key`.
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
    Found::Next(index, key.skip(8))
}

#[inline(always)]
fn search_leaf(line: &Line, head: u64, key: Key) -> Found {
    let next = head as u8 - 1;
    // Unrolled: the verifier walks each iteration of a loop.
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

/// The number of bits that are one in `word`. BPF has no instruction for it.
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
