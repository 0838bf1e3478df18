//! The maps that the XDP program and user space share: names, capacities, keys and values.
//!
//! A *generation* is one compiled policy: what [`PolicyRecord`] holds, the tries of both families for sources and
//! destinations, and the [`table`](crate::prefilter) of all sources. There are two slots for them, the current and the previous one; the one word in
//! `SELECTOR` says which is in force, and whether only for the time being.
//!
//! Points in time that the program compares are nanoseconds of the boot clock (`CLOCK_BOOTTIME`,
//! `bpf_ktime_get_boot_ns`, Linux 5.8, commit 71d19214776e61b33da48f7c1b46e522c7f78221): it cannot be set, and goes on in
//! suspend.

mod counters;
mod monitor;
mod policy;
mod policy_header;
mod prefix;
mod report;
mod usage;

pub use counters::{Counter, InterfaceRows, MAX_INTERFACES};
pub use monitor::{MonitoredSource, MonitoredSourceKey};
pub use policy::{Basis, PolicyRecord, Trial};
pub use policy_header::{DEFAULT_PORTS, PolicyHeader, PortSet, is_default_port};
pub use prefix::{Origin, PrefixValue};
pub use report::{Report, ReportHead};
pub use usage::Usage;

/// The version of everything in this folder and in `prefilter.rs`, and of the numbers in `verdict.rs`.
///
/// Pins carry it in their path. Raise it with any change: a binary that reads maps of another layout would read a
/// policy that nobody wrote. 9: one array of lines per slot, and a shorter record.
pub const LAYOUT_VERSION: u32 = 9;

/// Array of one `u32`: the slot of the generation in force, 0 or 1, and [`PROVISIONAL`].
///
/// Written in one step, read once per packet. Only its lowest byte ever changes, so that no copy of it can tear.
pub const SELECTOR: &str = "SELECTOR";
/// Bit of the selector: the slot that it names is in force only until its [`fallback_at`](PolicyRecord::fallback_at). From then on
/// the other one is, though nobody writes the selector: a change that nobody confirmed takes itself back.
pub const PROVISIONAL: u32 = 1 << 1;
/// Array of one [`PolicyRecord`] per slot.
pub const POLICY: &str = "POLICY";
/// Array of one [`PolicyHeader`] per slot.
pub const POLICY_HEADERS: &str = "POLICY_HEADERS";
/// Array of [`SETTINGS_LEN`] bytes per slot: the settings the policy was compiled from, as JSON padded with zeros. Only user
/// space reads it.
pub const SETTINGS: &str = "SETTINGS";
/// Array of LPM tries, one per slot: authorized IPv4 sources.
pub const SOURCES_V4: &str = "SOURCES_V4";
/// Array of LPM tries, one per slot: authorized IPv6 sources.
pub const SOURCES_V6: &str = "SOURCES_V6";
/// Array of arrays, one per slot: the lines of the [`table`](crate::prefilter) that are not in the header.
/// The program leaves to the tries what it does not find there. Each array is as long as its list
/// needs (`BPF_F_INNER_MAP`, Linux 5.10, commit 4a8f87e60f6db40e640f1db555d063b2c4dea5f1).
pub const PREFILTER: &str = "PREFILTER";
/// The same for the bitmap of IPv4 sources, if it is not in the header.
pub const BITMAPS_V4: &str = "BITMAPS_V4";
/// The same for the bitmap of IPv6 sources.
pub const BITMAPS_V6: &str = "BITMAPS_V6";
/// Array of LPM tries, one per slot: guarded IPv4 destinations; empty where all are.
pub const DESTINATIONS_V4: &str = "DESTINATIONS_V4";
/// Array of LPM tries, one per slot: guarded IPv6 destinations.
pub const DESTINATIONS_V6: &str = "DESTINATIONS_V6";
/// Per-CPU array of [`Counter`]: [`COUNTERS_PER_INTERFACE`](crate::COUNTERS_PER_INTERFACE) for each row of [`INTERFACES`], and one row more for all
/// interfaces that have none; inside a row by [`Verdict::index`](crate::Verdict::index).
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`InterfaceRows`]: which row of the counters belongs to which interface. One program serves all interfaces, so
/// it is verified once however many there are.
pub const INTERFACES: &str = "INTERFACES";
/// Per-CPU hash of [`Usage`] by [`PrefixValue::id`]: what each authorized range was used for. The program puts a range in with the
/// first packet that it lets in, so that those nobody uses take neither room nor time.
pub const USAGE: &str = "USAGE";
/// Per-CPU array of [`REPORTS_PER_CPU`] [`Report`]s: what was dropped last, or would have been. Each CPU overwrites its oldest.
pub const REPORTS: &str = "REPORTS";
/// Per-CPU array of one [`ReportHead`].
pub const REPORT_HEADS: &str = "REPORT_HEADS";
/// Hash of [`MonitoredSource`] by [`MonitoredSourceKey`] that forgets who was not seen for longest: whom monitor mode let pass. Nothing is
/// written there in any other mode.
pub const MONITORED_SOURCES: &str = "MONITORED_SOURCES";

/// How many generations the kernel holds: the current and the previous.
pub const SLOTS: u32 = 2;

const _: () = assert!(SLOTS.is_power_of_two(), "the program masks the selector");
/// Most prefixes in one trie.
pub const MAX_PREFIXES: u32 = 1_100_000;
/// Most ranges whose usage is counted. The kernel allocates 16 bytes for each at once, and the rest with their first packet.
pub const MAX_USAGE: u32 = 32_768;
/// Room for the settings of one generation, in bytes.
pub const SETTINGS_LEN: usize = 32 * 1024;
/// How many reports a CPU keeps: at its budget, those of about four seconds.
pub const REPORTS_PER_CPU: u32 = 1024;
/// How many reports a CPU writes in a window at most; what comes beyond is only counted.
pub const REPORT_BUDGET: u64 = 32;
/// The length of a window: 2^27 ns, about 134 ms. So at most 239 reports a second and CPU.
pub const REPORT_WINDOW_SHIFT: u32 = 27;
/// How many sources monitor mode remembers. The kernel allocates all of it at once, whatever the mode: half a MiB.
pub const MAX_MONITORED_SOURCES: u32 = 4_096;

const _: () = assert!(
    REPORTS_PER_CPU.is_power_of_two(),
    "the program masks the index"
);
