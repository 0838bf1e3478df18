//! The maps that the XDP program and user space share: names, capacities, keys and values.
//!
//! A *generation* is one compiled policy: its [`PolicyRecord`], the tries of both families for
//! sources and destinations, and the [`prefilter`](crate::prefilter) of all sources. There are two
//! slots for generations, the current and the previous one. The one word in `SELECTOR` says which
//! is active, and whether it is provisional.
//!
//! Times that the program compares are nanoseconds of the boot clock (`CLOCK_BOOTTIME`,
//! `bpf_ktime_get_boot_ns`, Linux 5.8, commit 71d19214776e61b33da48f7c1b46e522c7f78221). It cannot
//! be set, and runs during suspend.

mod counters;
mod monitor;
mod policy;
mod policy_header;
mod prefix;
mod report;
mod usage;

pub use counters::{Counter, InterfaceRow, InterfaceRows, MAX_INTERFACES};
pub use monitor::{MonitoredSource, MonitoredSourceKey};
pub use policy::{Basis, PolicyRecord, Trial};
pub use policy_header::{
    ALL_SOURCES, COMMON_SOURCES, DEFAULT_PORTS, FIRST_GUARD, GROUPS, MAX_GUARDS, PolicyHeader,
    PortGroups, PortSet, is_default_port, source_map,
};
pub use prefix::{Origin, PrefixValue};
pub use report::{Report, ReportHead};
pub use usage::Usage;

/// The version of all types in this folder and in `prefilter.rs`, and of the numbers in
/// `verdict.rs`.
///
/// The path of the pins contains it. Raise it with any change: a binary that reads maps of another
/// layout would apply a policy that no operator wrote. Version 12 has sources for each group of
/// ports.
pub const LAYOUT_VERSION: u32 = 12;

/// Array of one `u32`: the slot of the active generation, 0 or 1, and [`PROVISIONAL`].
///
/// Written in one step, read once per packet. Only its lowest byte ever changes, so that no copy of
/// it can tear.
pub const SELECTOR: &str = "SELECTOR";
/// Bit of the selector: its slot is active only until the generation's
/// [`fallback_at`](PolicyRecord::fallback_at). From then on the other slot is active, without a
/// write to the selector: an unconfirmed change rolls back by itself.
pub const PROVISIONAL: u32 = 1 << 1;
/// Array of one [`PolicyRecord`] per slot.
pub const POLICY: &str = "POLICY";
/// Array of one [`PolicyHeader`] per slot.
pub const POLICY_HEADERS: &str = "POLICY_HEADERS";
/// Array of [`SETTINGS_LEN`] bytes per slot: the settings that the policy was compiled from, as
/// JSON padded with zeros. Only user space reads it.
pub const SETTINGS: &str = "SETTINGS";
/// Array of LPM tries by [`source_map`], one for each slot and group: authorized IPv4 sources.
pub const SOURCES_V4: &str = "SOURCES_V4";
/// Array of LPM tries by [`source_map`], one for each slot and group: authorized IPv6 sources.
pub const SOURCES_V6: &str = "SOURCES_V6";
/// Array of arrays, one per slot: the lines of the [`prefilter`](crate::prefilter) outside the
/// header. The program asks the tries about an address whose line is missing. Each array is as long
/// as its list needs (`BPF_F_INNER_MAP`, Linux 5.10, commit
/// 4a8f87e60f6db40e640f1db555d063b2c4dea5f1).
pub const PREFILTER: &str = "PREFILTER";
/// Array of arrays, one per slot: the bitmap of IPv4 sources, if it is not in the header.
pub const BITMAPS_V4: &str = "BITMAPS_V4";
/// Array of arrays, one per slot: the bitmap of IPv6 sources, if it is not in the header.
pub const BITMAPS_V6: &str = "BITMAPS_V6";
/// Array of LPM tries, one per slot: guarded IPv4 destinations; empty where all are.
pub const DESTINATIONS_V4: &str = "DESTINATIONS_V4";
/// Array of LPM tries, one per slot: guarded IPv6 destinations.
pub const DESTINATIONS_V6: &str = "DESTINATIONS_V6";
/// Per-CPU array of [`Counter`]: [`COUNTERS_PER_INTERFACE`](crate::COUNTERS_PER_INTERFACE) for each
/// row of [`INTERFACES`], and one more row for all interfaces without one. Inside a row by
/// [`Verdict::index`](crate::Verdict::index).
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`InterfaceRows`]: the interface of each row of the counters. One program serves
/// all interfaces, so the verifier runs once whatever their number.
pub const INTERFACES: &str = "INTERFACES";
/// Per-CPU hash of [`Usage`] by [`PrefixValue::id`]: the usage of each authorized range. The
/// program adds a range with the first packet that it authorizes, so that unused ranges take no
/// room.
pub const USAGE: &str = "USAGE";
/// Per-CPU array of [`REPORTS_PER_CPU`] [`Report`]s: the last frames that were dropped, or would be
/// in enforce mode. Each CPU overwrites its oldest.
pub const REPORTS: &str = "REPORTS";
/// Per-CPU array of one [`ReportHead`].
pub const REPORT_HEADS: &str = "REPORT_HEADS";
/// LRU hash of [`MonitoredSource`] by [`MonitoredSourceKey`]: unlisted sources that monitor mode
/// let pass. No other mode writes it.
pub const MONITORED_SOURCES: &str = "MONITORED_SOURCES";

/// The number of generations in the kernel: the current and the previous one.
pub const SLOTS: u32 = 2;

const _: () = assert!(SLOTS.is_power_of_two(), "the program masks the selector");
/// The maximum number of prefixes in one trie.
pub const MAX_PREFIXES: u32 = 1_100_000;
/// The maximum number of ranges with usage counters. The kernel allocates 16 bytes for each in
/// advance, and the rest with their first packet.
pub const MAX_USAGE: u32 = 32_768;
/// Room for the settings of one generation, in bytes.
pub const SETTINGS_LEN: usize = 32 * 1024;
/// Reports that a CPU keeps: about four seconds at its budget.
pub const REPORTS_PER_CPU: u32 = 1024;
/// The maximum number of reports of a CPU in one window; further frames are only counted.
pub const REPORT_BUDGET: u64 = 32;
/// The length of a window: 2^27 ns, about 134 ms. So at most 239 reports a second per CPU.
pub const REPORT_WINDOW_SHIFT: u32 = 27;
/// Sources that monitor mode remembers. The kernel allocates all of it in advance, in every mode:
/// half a MiB.
pub const MAX_MONITORED_SOURCES: u32 = 4_096;

const _: () = assert!(
    REPORTS_PER_CPU.is_power_of_two(),
    "the program masks the index"
);
