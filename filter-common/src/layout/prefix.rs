//! The value of a prefix in a trie, and the origins of a range.

use bytemuck::{Pod, Zeroable};

/// The value of a prefix in a trie.
///
/// 16 bytes are the maximum that keeps a node of a trie with IPv6 keys, and the allocator's own
/// word, within 64 bytes: one cache line for each step of a lookup (`struct lpm_trie_node`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct PrefixValue {
    /// The first two are one 64-bit number, lower half first: [`expires_at`](Self::expires_at) with
    /// its low 16 bits replaced by the origins (their upper 8 bits) and the prefix length. Then
    /// [`id`](Self::id), and [`since`](Self::since).
    ///
    /// Words of 32 bits, since after an IPv4 key the kernel aligns a value to 4 bytes. Numbers
    /// instead of fields: up to Linux 6.1 a trie that user space creates without BTF does not fit
    /// into a map of maps whose own type information has a struct as the value. The kernel notes
    /// "no timer in it" in two ways and compares them (`bpf_map_meta_equal`, `btf_find_timer`).
    pub words: [u32; 4],
}

/// The low bits of the first number, which are not part of the expiry.
const NO_TIME: u64 = 0xffff;

impl PrefixValue {
    /// The value of a prefix of `prefix_len` bits with `origins` (a set of [`Origin`] bits). It
    /// matches until `expires_at` on the boot clock; `None` is for ever.
    ///
    /// A lookup finds only the longest prefix. So `expires_at` must be the latest of its own expiry
    /// and those of all prefixes around it: otherwise an expired entry would block a source that a
    /// wider one authorizes.
    pub const fn new(
        prefix_len: u8,
        origins: u8,
        expires_at: Option<u64>,
        id: u32,
        since: u32,
    ) -> Self {
        let time = match expires_at {
            Some(at) => at & !NO_TIME,
            None => !NO_TIME,
        };
        let first = time | (origins as u64) << 8 | prefix_len as u64;
        Self {
            words: [first as u32, (first >> 32) as u32, id, since],
        }
    }

    /// The expiry: nanoseconds on the boot clock, in steps of 65,536; `None` is never.
    #[inline(always)]
    pub const fn expires_at(self) -> Option<u64> {
        match ((self.words[1] as u64) << 32 | self.words[0] as u64) & !NO_TIME {
            time if time == !NO_TIME => None,
            time => Some(time),
        }
    }

    /// The range's key in [`USAGE`]: unique in a generation, and kept from one to the next as long
    /// as the range stays.
    #[inline(always)]
    pub const fn id(self) -> u32 {
        self.words[2]
    }

    /// Time when the range was added, in seconds on the boot clock: the start of its packet count.
    pub const fn since(self) -> u32 {
        self.words[3]
    }

    /// The prefix's own length in bits. A lookup returns only the value, and this identifies the
    /// range.
    pub const fn prefix_len(self) -> u8 {
        self.words[0] as u8
    }

    /// Origins of the range: a set of [`Origin`] bits.
    pub const fn origins(self) -> u8 {
        (self.words[0] >> 8) as u8
    }
}

const _: () = assert!(size_of::<PrefixValue>() == 16);

/// The origin of an authorized range, as a bit of [`PrefixValue::origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// The user's list.
    List = 1,
    /// The node's own addresses.
    Node = 2,
    /// The cluster's egress addresses: outbound IPs and prefixes.
    Outbound = 4,
    /// The cluster's CIDRs: other nodes, pods, probes.
    Cluster = 8,
}

impl Origin {
    /// All origins.
    pub const ALL: [Self; 4] = [Self::List, Self::Node, Self::Outbound, Self::Cluster];

    /// The name that users see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Node => "node",
            Self::Outbound => "outbound",
            Self::Cluster => "cluster",
        }
    }
}
