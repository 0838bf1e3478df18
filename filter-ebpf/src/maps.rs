//! The BPF maps, and the policy in force as read from them. With `packet.rs` the only place with `unsafe` in it.

use core::net::IpAddr;

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use filter_common::{
    Mode, Policy, REASON_SLOTS, Verdict,
    map::{Counter, MAX_PREFIXES, PolicyRecord, PrefixValue, SLOTS},
};

/// A [`PrefixValue`], whose fields this side does not read, as bytes.
///
/// Up to Linux 6.1 a trie that user space makes without BTF is not taken into a map of maps whose own type information has a
/// struct for a value: the kernel notes "no timer in it" in two ways and compares them (`bpf_map_meta_equal`,
/// `btf_find_timer`).
type Value = [u8; size_of::<PrefixValue>()];

type TrieV4 = LpmTrie<[u8; 4], Value, { MAX_PREFIXES as usize }>;
type TrieV6 = LpmTrie<[u8; 16], Value, { MAX_PREFIXES as usize }>;

#[btf_map]
static SELECTOR: Array<u32, 1> = Array::new();
#[btf_map]
static POLICY: Array<PolicyRecord, { SLOTS as usize }> = Array::new();
#[btf_map]
static SOURCES_V4: ArrayOfMaps<TrieV4, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static SOURCES_V6: ArrayOfMaps<TrieV6, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static DESTINATIONS_V4: ArrayOfMaps<TrieV4, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static DESTINATIONS_V6: ArrayOfMaps<TrieV6, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { REASON_SLOTS as usize }> = PerCpuArray::new();

/// The generation in force for the packet at hand.
pub(crate) struct InForce {
    slot: u32,
    record: Option<&'static PolicyRecord>,
}

impl InForce {
    /// Reads the selector, once: whatever user space does meanwhile, the packet is judged by one generation.
    #[inline(always)]
    pub(crate) fn select() -> Self {
        let slot = match SELECTOR.get(0) {
            // SAFETY: the map's value is a live, aligned `u32`. User space may write it meanwhile: a volatile read
            // is made once, and the value is 0 or 1 before and after. Masked, any number names a slot.
            Some(slot) => unsafe { core::ptr::read_volatile(slot) & (SLOTS - 1) },
            None => 0,
        };
        Self {
            slot,
            record: POLICY.get(slot),
        }
    }
}

impl Policy for InForce {
    #[inline(always)]
    fn mode(&self) -> Mode {
        // Anything unknown is the strict mode.
        match self.record.map(|record| record.mode) {
            Some(1) => Mode::Monitor,
            Some(2) => Mode::Off,
            _ => Mode::Enforce,
        }
    }

    #[inline(always)]
    fn protects(&self, port: u16) -> bool {
        self.record
            .is_some_and(|record| record.ports.contains(port))
    }

    #[inline(always)]
    fn guards_any_destination(&self) -> bool {
        self.record
            .is_none_or(|record| record.has_destinations == 0)
    }

    #[inline(always)]
    fn guards(&self, destination: IpAddr) -> bool {
        holds(&DESTINATIONS_V4, &DESTINATIONS_V6, self.slot, destination)
    }

    #[inline(always)]
    fn authorizes(&self, source: IpAddr) -> bool {
        holds(&SOURCES_V4, &SOURCES_V6, self.slot, source)
    }
}

/// Whether the trie of the address's family in `slot` has a prefix that holds it.
#[inline(always)]
fn holds(
    v4: &'static ArrayOfMaps<TrieV4, { SLOTS as usize }>,
    v6: &'static ArrayOfMaps<TrieV6, { SLOTS as usize }>,
    slot: u32,
    address: IpAddr,
) -> bool {
    match address {
        IpAddr::V4(address) => v4
            .get(slot)
            .is_some_and(|trie| trie.get(&Key::new(32, address.octets())).is_some()),
        IpAddr::V6(address) => v6
            .get(slot)
            .is_some_and(|trie| trie.get(&Key::new(128, address.octets())).is_some()),
    }
}

/// Counts one frame of `bytes` under its verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict, bytes: usize) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.slot()) {
        // SAFETY: the counter is this CPU's own; an XDP program is not interrupted by another one on its CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}
