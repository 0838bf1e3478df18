//! The maps that the XDP program and user space share: names, capacities, keys and values.
//!
//! A *generation* is one compiled policy: what [`PolicyRecord`] holds, the tries of both families for sources and
//! destinations, and the [`table`](crate::table) of all sources. There are two slots for them, the current and the previous one; the one word in
//! `SELECTOR` says which is in force, and whether only for the time being.
//!
//! Points in time that the program compares are nanoseconds of the boot clock (`CLOCK_BOOTTIME`,
//! `bpf_ktime_get_boot_ns`, Linux 5.8, commit 71d19214776e61b33da48f7c1b46e522c7f78221): it cannot be set, and goes on in
//! suspend.

mod counters;
mod gate;

use bytemuck::{Pod, Zeroable};

pub use counters::{Counter, InterfaceRows, MAX_INTERFACES};
pub use gate::{DEFAULT_PORTS, Gate, PortSet, is_default_port};

use crate::reported::FlowInfo;

/// The version of everything in this file, in `map/` and in `table.rs`, and of the numbers in `verdict.rs`.
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
/// Array of one [`Gate`] per slot.
pub const GATES: &str = "GATES";
/// Array of [`SETTINGS_LEN`] bytes per slot: the settings the policy was compiled from, as JSON padded with zeros. Only user
/// space reads it.
pub const SETTINGS: &str = "SETTINGS";
/// Array of LPM tries, one per slot: authorized IPv4 sources.
pub const SOURCES_V4: &str = "SOURCES_V4";
/// Array of LPM tries, one per slot: authorized IPv6 sources.
pub const SOURCES_V6: &str = "SOURCES_V6";
/// Array of arrays, one per slot: the lines of the [`table`](crate::table) that are not in the gate.
/// The program leaves to the tries what it does not find there. Each array is as long as its list
/// needs (`BPF_F_INNER_MAP`, Linux 5.10, commit 4a8f87e60f6db40e640f1db555d063b2c4dea5f1).
pub const TABLE: &str = "TABLE";
/// The same for the bitmap of IPv4 sources, if it is not in the gate.
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
/// Hash of [`Stranger`] by [`StrangerKey`] that forgets who was not seen for longest: whom monitor mode let pass. Nothing is
/// written there in any other mode.
pub const STRANGERS: &str = "STRANGERS";

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
pub const MAX_STRANGERS: u32 = 4_096;

const _: () = assert!(
    REPORTS_PER_CPU.is_power_of_two(),
    "the program masks the index"
);

/// What one generation says besides its prefixes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyRecord {
    /// Counts the policies staged since the pins were made; 0 in a slot that never held one. No
    /// number is given twice: a slot keeps its own until the next policy lies in it.
    pub generation: u64,
    /// When the list and the settings were put in force, in nanoseconds since 1970-01-01 UTC. A policy that differs from the one
    /// before in its implicit sources alone keeps that one's time.
    pub applied_at: u64,
    /// When the other generation is in force again, on the boot clock; only with [`PROVISIONAL`] in the selector.
    pub fallback_at: u64,
    /// SHA-256 of the list, as user space computes it: whether a ranges file says the same.
    pub list: [u8; 32],
    /// The next free [`PrefixValue::id`]. After 2^32 ranges they begin anew, and two ranges may share a count; it decides nothing.
    pub next_id: u32,
    /// A [`Mode`](crate::Mode) as a number, as in the [`Gate`].
    pub mode: u8,
    /// 1 if its list is put into the ranges file with it, or because somebody confirmed it: only then does a file that says the same
    /// tell that a writer got so far.
    pub commits: u8,
    /// A [`Basis`] as a number: what user space made it from.
    pub basis: u8,
    /// As in the [`Gate`].
    pub decapsulates: u8,
    /// A [`Trial`] as a number: what became of a generation that was on trial.
    pub trial: u8,
    /// Always zero.
    pub unused: [u8; 7],
}

const _: () = assert!(size_of::<PolicyRecord>() == 72, "no padding");

/// What becomes of a generation that is to be confirmed. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trial {
    /// Not on trial; or on trial with its list in a file of its own, while the ranges file holds the list of before.
    #[default]
    None = 0,
    /// It waits, and the ranges file says its list: the file was edited, and `run` put it on trial.
    Edited = 1,
    /// Nobody confirmed it in time: it took itself back, and no change came after it.
    Lapsed = 2,
    /// It waits, and brings other settings alone: no file is to be written for it.
    Settings = 3,
}

impl Trial {
    /// The one with this number; an unknown number is taken for none.
    pub const fn of(number: u8) -> Self {
        match number {
            1 => Self::Edited,
            2 => Self::Lapsed,
            3 => Self::Settings,
            _ => Self::None,
        }
    }
}

/// What a policy was made from. Only user space reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Basis {
    /// The ranges file, or a command, and the settings: as it should be.
    #[default]
    Files = 0,
    /// The policy last in force: at a start the files could not be used.
    LastInForce = 1,
    /// The implicit sources alone: at a start there was no usable list, on a node that has enforced one before.
    ImplicitSources = 2,
    /// Nothing: a fresh installation without a list, in monitor mode.
    Fresh = 3,
    /// The list, under settings that are the default where the files say nothing: at a start the ones last in force could not be read.
    DefaultSettings = 4,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Files,
        Self::LastInForce,
        Self::ImplicitSources,
        Self::Fresh,
        Self::DefaultSettings,
    ];

    /// The one with this number; an unknown number is taken for the files.
    pub fn of(number: u8) -> Self {
        let all = Self::ALL.into_iter();
        let mut found = all.filter(|basis| *basis as u8 == number);
        found.next().unwrap_or_default()
    }

    /// The name under which it is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::LastInForce => "last_in_force",
            Self::ImplicitSources => "implicit_sources",
            Self::Fresh => "fresh_installation",
            Self::DefaultSettings => "default_settings",
        }
    }
}

/// What a trie holds for a prefix.
///
/// 16 bytes are the most that keep a node of a trie with IPv6 keys, and the allocator's own word, within 64 bytes: one cache line for
/// each step of a lookup (`struct lpm_trie_node`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct PrefixValue {
    /// The first two are a number of 64 bits, its lower half first: [`expires_at`](Self::expires_at), the low 16 bits replaced by the
    /// origins (the upper 8 of them) and the prefix length. Then [`id`](Self::id), and [`since`](Self::since).
    ///
    /// Words of 32 bits, for behind an IPv4 key the kernel aligns a value to 4 bytes. Numbers and no fields, for up to Linux 6.1 a trie
    /// that user space makes without BTF is not taken into a map of maps whose own type information has a struct for a value: the
    /// kernel notes "no timer in it" in two ways and compares them (`bpf_map_meta_equal`, `btf_find_timer`).
    pub words: [u32; 4],
}

/// The low bits of the first number, which hold no time.
const NO_TIME: u64 = 0xffff;

impl PrefixValue {
    /// The value of a prefix of `prefix_len` bits that comes from `origins` (a set of [`Origin`] bits). It matches until
    /// `expires_at` on the boot clock, or for ever with `None`.
    ///
    /// A lookup finds the longest prefix alone. So `expires_at` must be the latest of its own time and those of all prefixes around it:
    /// were it only its own, an expired entry would shut out what a wider one lets in.
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

    /// When the prefix stops to match: nanoseconds on the boot clock, in steps of 65,536. `None` if it does not.
    #[inline(always)]
    pub const fn expires_at(self) -> Option<u64> {
        match ((self.words[1] as u64) << 32 | self.words[0] as u64) & !NO_TIME {
            time if time == !NO_TIME => None,
            time => Some(time),
        }
    }

    /// The range's key in [`USAGE`]: its own in a generation, and kept from one to the next as long as the range stays.
    #[inline(always)]
    pub const fn id(self) -> u32 {
        self.words[2]
    }

    /// When the range came, in seconds on the boot clock: since then its packets are counted.
    pub const fn since(self) -> u32 {
        self.words[3]
    }

    /// The prefix's own length in bits: a lookup returns the value alone, and this tells which range matched.
    pub const fn prefix_len(self) -> u8 {
        self.words[0] as u8
    }

    /// Where the range comes from: a set of [`Origin`] bits.
    pub const fn origins(self) -> u8 {
        (self.words[0] >> 8) as u8
    }
}

const _: () = assert!(size_of::<PrefixValue>() == 16);

/// What one CPU saw of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Usage {
    /// Packets that passed because of it.
    pub packets: u64,
    /// When the last of them did, in nanoseconds of the monotonic clock, within some milliseconds
    /// (`bpf_ktime_get_coarse_ns`, Linux 5.11, commit d055126180564a57fe533728a4e93d0cb53d49b3); 0 if none.
    pub last_seen: u64,
}

const _: () = assert!(size_of::<Usage>() == 16);

/// Where an authorized range comes from, as a bit of [`PrefixValue::origins`].
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Node, Self::Outbound, Self::Cluster];

    /// The name under which it is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Node => "node",
            Self::Outbound => "outbound",
            Self::Cluster => "cluster",
        }
    }
}

/// One frame that was dropped, or would have been.
///
/// The program writes it whole, and only then moves [`ReportHead::written`]. A reader that finds the head less than a ring further
/// on after it read a record has read a whole one: the next to be written in its place had not been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Report {
    /// The how-manyth of its CPU, from 1 on; it stands at index `(sequence - 1) % REPORTS_PER_CPU`.
    pub sequence: u64,
    /// When, in nanoseconds of the monotonic clock, within some milliseconds.
    pub seen: u64,
    /// Source address, see [`FlowInfo::source`].
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source and destination port, in host order; zero if unknown.
    pub ports: [u16; 2],
    /// Number of the interface it came in on.
    pub ifindex: u32,
    /// Bytes of the frame, from the Ethernet header on.
    pub frame_len: u32,
    /// The verdict and reason: a [`Verdict::index`](crate::Verdict::index).
    pub verdict: u8,
    /// 4 or 6; 0 if the addresses are unknown.
    pub family: u8,
    /// 1 if the ports are known.
    pub has_ports: u8,
    /// Always zero.
    pub unused: u8,
}

impl Report {
    /// Of nothing.
    pub const EMPTY: Self = Self {
        sequence: 0,
        seen: 0,
        source: [0; 4],
        destination: [0; 4],
        ports: [0; 2],
        ifindex: 0,
        frame_len: 0,
        verdict: 0,
        family: 0,
        has_ports: 0,
        unused: 0,
    };

    /// Who sent it and where to, as far as that is known.
    pub const fn flow_info(&self) -> FlowInfo {
        FlowInfo {
            source: self.source,
            destination: self.destination,
            family: self.family,
            ports: self.ports,
            has_ports: self.has_ports == 1,
        }
    }
}

const _: () = assert!(size_of::<Report>() == 64, "one cache line");

/// How far one CPU is with its reports, and what it may still write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ReportHead {
    /// Reports written, ever.
    pub written: u64,
    /// Frames that were not reported because the budget was spent, ever.
    pub skipped: u64,
    /// The window that the budget is for: the monotonic clock in units of 2^[`REPORT_WINDOW_SHIFT`] ns.
    pub window: u64,
    /// Reports written since that window began.
    pub spent: u64,
    /// The kernel's tick in which the clock was last asked for the window.
    pub tick: u64,
}

const _: () = assert!(size_of::<ReportHead>() == 40);

/// Whom monitor mode let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct StrangerKey {
    /// Source address, see [`FlowInfo::source`](crate::FlowInfo::source).
    pub source: [u32; 4],
    /// 4 or 6.
    pub family: u32,
}

const _: () = assert!(size_of::<StrangerKey>() == 20);

/// What monitor mode saw of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stranger {
    /// Packets that enforce mode would have dropped. All CPUs add to it, each in one step: none is lost.
    pub packets: u64,
    /// When the first of them came, in nanoseconds of the monotonic clock, within some milliseconds.
    pub first_seen: u64,
    /// When the last of them came.
    pub last_seen: u64,
    /// The destination port of the last, in host order; 0 if it was not known.
    pub port: u16,
    /// The verdict and reason of the last: a [`Verdict::index`](crate::Verdict::index).
    pub verdict: u8,
    /// Always zero.
    pub unused: [u8; 5],
}

const _: () = assert!(size_of::<Stranger>() == 32);
