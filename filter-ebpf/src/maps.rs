//! The BPF maps, and the active policy as read from them. Only this file, `packet.rs` and
//! `report.rs` have `unsafe` code.

use core::{
    arch::asm,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray, PerCpuHashMap, lpm_trie::Key},
    helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use filter_common::{
    COUNTERS_PER_INTERFACE, Encapsulation, Mode, Policy,
    layout::{
        Counter, GROUPS, InterfaceRows, MAX_PREFIXES, MAX_USAGE, PROVISIONAL, PolicyHeader,
        PolicyRecord, PrefixValue, SLOTS, Usage, is_default_port, source_map,
    },
    prefilter::{self, Block, HEADER_LINES, Key as TableKey, Line, Lines},
};

type TrieV4 = LpmTrie<[u8; 4], [u32; 4], { MAX_PREFIXES as usize }>;
type TrieV6 = LpmTrie<[u8; 16], [u32; 4], { MAX_PREFIXES as usize }>;
// Of any length: the length of the template does not count.
type FurtherLines = Array<Line, 1, { BPF_F_INNER_MAP as usize }>;
type Blocks = Array<Block, 1, { BPF_F_INNER_MAP as usize }>;

#[btf_map]
static SELECTOR: Array<u32, 1> = Array::new();
#[btf_map]
static POLICY: Array<PolicyRecord, { SLOTS as usize }> = Array::new();
#[btf_map]
static POLICY_HEADERS: Array<PolicyHeader, { SLOTS as usize }> = Array::new();
#[btf_map]
static SOURCES_V4: ArrayOfMaps<TrieV4, { (SLOTS * GROUPS) as usize }> = ArrayOfMaps::new();
#[btf_map]
static SOURCES_V6: ArrayOfMaps<TrieV6, { (SLOTS * GROUPS) as usize }> = ArrayOfMaps::new();
#[btf_map]
static PREFILTER: ArrayOfMaps<FurtherLines, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static BITMAPS_V4: ArrayOfMaps<Blocks, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static BITMAPS_V6: ArrayOfMaps<Blocks, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static DESTINATIONS_V4: ArrayOfMaps<TrieV4, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static DESTINATIONS_V6: ArrayOfMaps<TrieV6, { SLOTS as usize }> = ArrayOfMaps::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { (InterfaceRows::ROWS * COUNTERS_PER_INTERFACE) as usize }> =
    PerCpuArray::new();
#[btf_map]
static INTERFACES: Array<InterfaceRows, 1> = Array::new();

#[btf_map]
static USAGE: PerCpuHashMap<u32, Usage, { MAX_USAGE as usize }, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();

/// The active generation for the current packet.
///
/// With `SHARED` its lookups of sources are functions of their own. Code that has them inline in
/// eight places runs out of registers and of stack.
pub(crate) struct InForce<const SHARED: bool = false> {
    slot: u32,
    header: Option<&'static PolicyHeader>,
}

impl InForce {
    /// Reads the selector, once: the packet is judged by one generation, whatever user space does
    /// meanwhile.
    #[inline(always)]
    pub(crate) fn select() -> Self {
        let word = match SELECTOR.get(0) {
            // SAFETY: the map's value is a live, aligned `u32`. User space may write it meanwhile:
            // a volatile read is made once, and the word is whole before and after.
            Some(word) => unsafe { core::ptr::read_volatile(word) },
            None => 0,
        };
        // After the mask any number is a slot.
        let mut slot = word & (SLOTS - 1);
        // An unconfirmed change after its deadline: the other slot still holds the complete
        // generation before it.
        if word & PROVISIONAL != 0
            && POLICY
                .get(slot)
                .is_none_or(|record| boot_clock() >= record.fallback_at)
        {
            slot ^= 1;
        }
        let header = POLICY_HEADERS.get(slot);
        Self { slot, header }
    }

    /// The same generation, for code with many lookups.
    #[inline(always)]
    pub(crate) fn with_shared_code(self) -> InForce<true> {
        let Self { slot, header } = self;
        InForce { slot, header }
    }
}

/// The present time on the boot clock, in nanoseconds.
#[inline(always)]
fn boot_clock() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

impl<const SHARED: bool> Policy for InForce<SHARED> {
    #[inline(always)]
    fn mode(&self) -> Mode {
        self.header.map_or(Mode::Enforce, PolicyHeader::mode)
    }

    #[inline(always)]
    fn protects(&self, port: u16) -> bool {
        match self.header {
            Some(header) => header.protects(port),
            None => is_default_port(port),
        }
    }

    #[inline(always)]
    fn decapsulates(&self, how: Encapsulation) -> bool {
        self.header.is_none_or(|header| header.decapsulates(how))
    }

    #[inline(always)]
    fn guards_every_destination(&self) -> bool {
        self.header
            .is_none_or(|header| header.has_destinations == 0)
    }

    #[inline(always)]
    fn guards(&self, destination: IpAddr) -> bool {
        match destination {
            IpAddr::V4(destination) => guards_v4(self.slot, u32::from(destination)) != 0,
            IpAddr::V6(destination) => {
                let key = TableKey::from(destination);
                guards_v6(self.slot, key.high, key.low) != 0
            }
        }
    }

    #[inline(always)]
    fn authorizes(&self, source: IpAddr, port: Option<u16>) -> bool {
        match source {
            IpAddr::V4(source) if SHARED => {
                authorizes_v4(self.slot, u32::from(source), to_number(port)) != 0
            }
            IpAddr::V4(source) => {
                prefilter_holds_v4(self.slot, self.header, source.into())
                    && in_trie_v4(
                        flagged(self.slot, self.header),
                        u32::from(source),
                        to_number(port),
                    ) != 0
            }
            IpAddr::V6(source) => {
                let key = TableKey::from(source);
                if SHARED {
                    authorizes_v6(self.slot, key.high, key.low, to_number(port)) != 0
                } else {
                    prefilter_holds_v6(self.slot, self.header, key)
                        && in_trie_v6(
                            flagged(self.slot, self.header),
                            key.high,
                            key.low,
                            to_number(port),
                        ) != 0
                }
            }
        }
    }
}

/// The slot, with [`HAS_GROUPS`] if the sources depend on the port. Without a branch: the verifier
/// would walk the rest of the fast path once more for each.
#[inline(always)]
fn flagged(slot: u32, header: Option<&PolicyHeader>) -> u32 {
    slot | header.map_or(0, |header| u32::from(header.has_groups) << 1)
}

/// Bit of a flagged slot.
const HAS_GROUPS: u32 = 1 << 1;

const _: () = assert!(SLOTS <= HAS_GROUPS, "a slot does not have that bit");

/// The index of the tries in a flagged slot with the sources for `port`.
#[inline(always)]
fn map_of(flagged: u32, port: Option<u16>) -> u32 {
    if flagged & HAS_GROUPS == 0 {
        return flagged;
    }
    let slot = flagged & (SLOTS - 1);
    match POLICY_HEADERS.get(slot) {
        Some(header) => source_map(slot, header.group(port.map(masked))),
        None => slot,
    }
}

/// The port as a number that the verifier knows to have 16 bits. The compiler knows it already, and
/// would leave the mask out.
#[inline(always)]
fn masked(port: u16) -> u64 {
    let mut number = u64::from(port);
    // SAFETY: one instruction, which changes this register alone.
    unsafe { asm!("{0} &= 0xffff", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// Stands for the port of a packet whose port cannot be read.
const UNKNOWN_PORT: u32 = 1 << 16;

/// A port as an argument of a global function.
#[inline(always)]
fn to_number(port: Option<u16>) -> u32 {
    port.map_or(UNKNOWN_PORT, u32::from)
}

/// The port that was given to [`to_number`].
#[inline(always)]
const fn to_port(number: u32) -> Option<u16> {
    if number == UNKNOWN_PORT {
        None
    } else {
        Some(number as u16)
    }
}

// Global functions: the verifier checks each of them once, for any arguments, and not at each of
// the many calls (Linux 5.6, commit 51c39bb1d5d105a02e29aa7960f0a395086e6342). Their arguments and
// results are numbers.

/// Most policies guard any destination, and do not call this.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guards_v4(slot: u32, destination: u32) -> u32 {
    let destination = Ipv4Addr::from(destination).into();
    find(&DESTINATIONS_V4, &DESTINATIONS_V6, slot, destination)
        .is_some()
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guards_v6(slot: u32, high: u64, low: u64) -> u32 {
    let destination = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into();
    find(&DESTINATIONS_V4, &DESTINATIONS_V6, slot, destination)
        .is_some()
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn authorizes_v4(slot: u32, source: u32, port: u32) -> u32 {
    let (header, key) = (POLICY_HEADERS.get(slot), Ipv4Addr::from(source).into());
    (prefilter_holds_v4(slot, header, key) && in_trie_v4(flagged(slot, header), source, port) != 0)
        .into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn authorizes_v6(slot: u32, high: u64, low: u64, port: u32) -> u32 {
    let (header, key) = (POLICY_HEADERS.get(slot), TableKey { high, low });
    (prefilter_holds_v6(slot, header, key)
        && in_trie_v6(flagged(slot, header), high, low, port) != 0)
        .into()
}

/// Whether the prefilter has an address in a range of `slot`, live or expired. A flood is answered
/// here, before the trie.
#[inline(always)]
fn prefilter_holds_v4(slot: u32, header: Option<&PolicyHeader>, key: TableKey) -> bool {
    match header {
        Some(header) => prefilter::holds_v4(&OverflowLines::<0>(slot), &header.prefilter, key),
        None => true,
    }
}

#[inline(always)]
fn prefilter_holds_v6(slot: u32, header: Option<&PolicyHeader>, key: TableKey) -> bool {
    match header {
        Some(header) => prefilter::holds_v6(&OverflowLines::<1>(slot), &header.prefilter, key),
        None => true,
    }
}

/// A flood does not reach this function. `flagged` is a slot with its flag, `port` a
/// [`to_number`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn in_trie_v4(flagged: u32, source: u32, port: u32) -> u32 {
    in_trie(flagged, Ipv4Addr::from(source).into(), port).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn in_trie_v6(flagged: u32, high: u64, low: u64, port: u32) -> u32 {
    let source = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
    in_trie(flagged, source.into(), port).into()
}

/// Whether the trie of `port` has an address in a live range; counts the packet there.
#[inline(always)]
fn in_trie(flagged: u32, source: IpAddr, port: u32) -> bool {
    let map = map_of(flagged, to_port(port));
    let Some(prefix) = find(&SOURCES_V4, &SOURCES_V6, map, source) else {
        return false;
    };
    if prefix.expires_at().is_some_and(|at| boot_clock() >= at) {
        return false;
    }
    count_usage(prefix.id());
    true
}

/// The part of a slot's prefilter outside the header, for one family.
struct OverflowLines<const FAMILY: u32>(u32);

impl<const FAMILY: u32> Lines for OverflowLines<FAMILY> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        PREFILTER.get(self.0)?.get(index - HEADER_LINES)
    }

    #[inline(always)]
    fn block(&self, index: u32) -> Option<&Block> {
        let bitmaps = if FAMILY == 0 {
            &BITMAPS_V4
        } else {
            &BITMAPS_V6
        };
        bitmaps.get(self.0)?.get(index)
    }
}

/// The value of the longest prefix around the address in its family's trie at `index`.
#[inline(always)]
fn find<const N: usize>(
    v4: &'static ArrayOfMaps<TrieV4, N>,
    v6: &'static ArrayOfMaps<TrieV6, N>,
    index: u32,
    address: IpAddr,
) -> Option<PrefixValue> {
    let words = match address {
        IpAddr::V4(address) => v4.get(index)?.get(&Key::new(32, address.octets()))?,
        IpAddr::V6(address) => v6.get(index)?.get(&Key::new(128, address.octets()))?,
    };
    Some(PrefixValue { words: *words })
}

/// The group of sources of a port in the active generation, for reports: the packet itself may have
/// been judged by the one before.
#[inline(always)]
pub(crate) fn group_of(port: Option<u16>) -> u32 {
    let InForce { slot, header } = InForce::<false>::select();
    map_of(flagged(slot, header), port) / SLOTS
}

/// Counts one packet that a range authorized.
#[inline(always)]
fn count_usage(id: u32) {
    let usage = USAGE.get_ptr_mut(id).or_else(|| {
        // The range's first packet. An error is harmless: another CPU was faster, or the map is
        // full and the range is not counted.
        let _ = USAGE.insert(id, Usage::default(), u64::from(BPF_NOEXIST));
        USAGE.get_ptr_mut(id)
    });
    if let Some(usage) = usage {
        // SAFETY: the value is this CPU's own; an XDP program is not interrupted by another one on
        // its CPU. User space never writes it.
        unsafe {
            (*usage).packets += 1;
            // A clock with a precision of some milliseconds, for a fifth of the cost of an exact
            // one.
            (*usage).last_seen = bpf_ktime_get_coarse_ns();
        }
    }
}

/// The row of an interface whose home entry belongs to another one. Global, so that the verifier
/// walks its loop once, and not at each call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn distant_row(ifindex: u32) -> u32 {
    INTERFACES
        .get(0)
        .map_or(InterfaceRows::NO_ROW, |rows| rows.row(ifindex))
}

/// Counts one frame of `bytes`, which arrived on the interface `ifindex`, under its verdict.
#[inline(always)]
pub(crate) fn count(ifindex: u32, slot: u32, bytes: usize) {
    let home = InterfaceRows::home(ifindex);
    let row = match INTERFACES.get(0) {
        Some(rows) if rows.entries[home as usize].ifindex == ifindex => rows.row_of(home),
        _ => distant_row(ifindex),
    };
    if let Some(counter) = COUNTERS.get_ptr_mut(InterfaceRows::index(row, slot)) {
        // SAFETY: the counter is this CPU's own; an XDP program is not interrupted by another one
        // on its CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}
