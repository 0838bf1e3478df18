//! The slot that is not in force: empty once a change is made, and never filled unless it is.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapInfo, lpm_trie::Key};
use filter_common::{
    PassReason, Verdict,
    layout::{
        BITMAPS_V4, BITMAPS_V6, LAYOUT_VERSION, POLICY, PREFILTER, PolicyRecord, SELECTOR, SLOTS,
        SOURCES_V4, SOURCES_V6,
    },
};
use serde_json::Value;
use tests::{
    cli::Apifence,
    loaded::{Filter, INTERFACE, add_interface},
    netns::Namespace,
    packets::V4,
    strace::{NO_LOG, strace},
    table::{self},
    wait::until,
};

const SHORT: [&str; 2] = ["192.0.2.1,2001:db8::1", "192.0.2.2,2001:db8::2"];

/// The pinned maps of both slots.
struct Slots {
    selector: Array<MapData, u32>,
    policy: Array<MapData, [u8; size_of::<PolicyRecord>()]>,
    sources_v4: ArrayOfMaps<MapData, MapData>,
    sources_v6: ArrayOfMaps<MapData, MapData>,
    /// The lines, and the bitmaps of both families.
    arrays: [ArrayOfMaps<MapData, MapData>; 3],
}

impl Slots {
    fn open(apifence: &Apifence) -> Result<Self> {
        let maps = apifence
            .bpffs()
            .join(format!("layout-{LAYOUT_VERSION}/maps"));
        let open = |name| MapData::from_pin(maps.join(name)).context(name);
        Ok(Self {
            selector: Map::Array(open(SELECTOR)?).try_into()?,
            policy: Map::Array(open(POLICY)?).try_into()?,
            sources_v4: Map::ArrayOfMaps(open(SOURCES_V4)?).try_into()?,
            sources_v6: Map::ArrayOfMaps(open(SOURCES_V6)?).try_into()?,
            arrays: [
                Map::ArrayOfMaps(open(PREFILTER)?).try_into()?,
                Map::ArrayOfMaps(open(BITMAPS_V4)?).try_into()?,
                Map::ArrayOfMaps(open(BITMAPS_V6)?).try_into()?,
            ],
        })
    }

    fn in_force(&self) -> Result<u32> {
        Ok(self.selector.get(&0, 0)? & (SLOTS - 1))
    }

    fn other(&self) -> Result<u32> {
        Ok(1 - self.in_force()?)
    }

    fn record(&self, slot: u32) -> Result<PolicyRecord> {
        Ok(bytemuck::pod_read_unaligned(&self.policy.get(&slot, 0)?))
    }

    fn v4(&self, slot: u32) -> Result<LpmTrie<MapData, [u8; 4], [u32; 4]>> {
        Ok(Map::LpmTrie(self.sources_v4.get(&slot, 0)?).try_into()?)
    }

    fn v6(&self, slot: u32) -> Result<LpmTrie<MapData, [u8; 16], [u32; 4]>> {
        Ok(Map::LpmTrie(self.sources_v6.get(&slot, 0)?).try_into()?)
    }

    /// Number of prefixes in `slot`.
    fn prefixes(&self, slot: u32) -> Result<usize> {
        Ok(self.v4(slot)?.keys().count() + self.v6(slot)?.keys().count())
    }

    /// The ids of all maps in `slot`.
    fn inner(&self, slot: u32) -> Result<BTreeSet<u32>> {
        let tries = [&self.sources_v4, &self.sources_v6].into_iter();
        let id = |maps: &ArrayOfMaps<MapData, MapData>| Ok(maps.get(&slot, 0)?.info()?.id());
        tries.chain(&self.arrays).map(id).collect()
    }

    /// Lengths of the arrays in `slot`.
    fn lengths(&self, slot: u32) -> Result<[u32; 3]> {
        let mut lengths = [0; 3];
        for (length, array) in lengths.iter_mut().zip(&self.arrays) {
            *length = array.get(&slot, 0)?.info()?.max_entries();
        }
        Ok(lengths)
    }

    /// The active slot holds a generation, and the other one nothing that could be activated or
    /// takes memory.
    fn are_ready(&self) -> Result<()> {
        let (current, other) = (self.in_force()?, self.other()?);
        let (have, spare) = (self.record(current)?, self.record(other)?);
        ensure!(have.generation > 0, "no generation in force");
        ensure!(
            spare.is_empty == 1 && spare.commits == 0 && have.is_empty == 0,
            "the other slot is not empty: {spare:?}"
        );
        let prefixes = self.prefixes(other)?;
        ensure!(prefixes == 0, "{prefixes} prefixes in the other slot");
        assert_eq!(self.lengths(other)?, EMPTY, "arrays in the other slot");
        Ok(())
    }
}

/// There is no array without an element.
const EMPTY: [u32; 3] = [1; 3];

/// A filter on an interface without traffic.
fn attach(namespace: &Namespace) -> Result<(Apifence, Slots)> {
    add_interface(namespace)?;
    let apifence = Apifence::new(namespace)?;
    let interface = format!("--interface={INTERFACE}");
    let list = format!("--authorized-ip-ranges={}", SHORT[0]);
    apifence.ok(&["attach", &interface, "--max-ranges=100000", &list])?;
    let slots = Slots::open(&apifence)?;
    Ok((apifence, slots))
}

/// Hosts of which no two share 24 bits.
fn hosts(count: u32) -> Vec<[u8; 4]> {
    let host = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        [10 + a, b, c, 1]
    };
    (0..count).map(host).collect()
}

/// A file with these.
fn write(apifence: &Apifence, hosts: &[[u8; 4]]) -> Result<String> {
    let file = apifence.ranges_file().with_file_name("large");
    let line = |[a, b, c, d]: &[u8; 4]| format!("{a}.{b}.{c}.{d}\n");
    fs::write(&file, hosts.iter().map(line).collect::<String>())?;
    Ok(file.display().to_string())
}

fn set(apifence: &Apifence, hosts: &[[u8; 4]]) -> Result<()> {
    let file = write(apifence, hosts)?;
    apifence
        .ok(&["ranges", "set", "--from-file", &file])
        .map(drop)
}

fn judge(filter: &mut Filter, source: [u8; 4]) -> Result<Verdict> {
    let syn = V4::new(source.into(), table::NODE4).syn(40_000, 443);
    filter.judge(&syn.frame(), None)
}

#[test]
fn every_change_leaves_an_empty_slot() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let (apifence, slots) = attach(&namespace)?;
    slots.are_ready().context("attach")?;
    let trial = ["ranges", "set", SHORT[1], "--confirm-within", "1h"];
    for change in [
        &["ranges", "set", SHORT[1]][..],
        &["ranges", "add", "192.0.2.9"],
        &["ranges", "clear"],
        &["ranges", "set", SHORT[0]],
    ] {
        let before = slots.record(slots.in_force()?)?;
        apifence.ok(change)?;
        slots.are_ready().with_context(|| change.join(" "))?;
        let now = slots.record(slots.in_force()?)?;
        assert_eq!(now.generation, before.generation + 1);
        // Each entry keeps its id.
        ensure!(now.next_id >= before.next_id, "numbers are given out again");
    }
    for end in [&["confirm"][..], &["ranges", "rollback"]] {
        apifence.ok(&trial)?;
        let before = slots.record(slots.other()?)?;
        ensure!(
            before.generation > 0 && slots.prefixes(slots.other()?)? > 0,
            "what a trial goes back to was cleared"
        );
        apifence.ok(end)?;
        slots.are_ready().with_context(|| end.join(" "))?;
        apifence.ok(&["ranges", "set", SHORT[0]])?;
    }
    Ok(())
}

/// As a writer leaves it that dies while it fills the slot, or before it has emptied it.
#[test]
fn a_slot_that_is_not_empty_is_emptied_before_it_is_filled() -> Result<()> {
    const STALE: [u8; 4] = [203, 0, 113, 9];
    let namespace = Namespace::new("node")?;
    let (apifence, mut slots) = attach(&namespace)?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    let listed = PassReason::Authorized;
    for (round, generation) in [0, 1, 1 << 40].into_iter().enumerate() {
        let other = slots.other()?;
        let mut record = slots.record(other)?;
        (record.generation, record.is_empty) = (generation, 0);
        let mut bytes = [0; size_of::<PolicyRecord>()];
        bytes.copy_from_slice(bytemuck::bytes_of(&record));
        slots.policy.set(other, bytes, 0)?;
        slots
            .v4(other)?
            .insert(&Key::new(32, STALE), [u32::MAX; 4], 0)?;
        apifence.ok(&["ranges", "set", SHORT[round % 2], "--force"])?;
        assert_eq!(slots.in_force()?, other);
        let left = slots.v4(other)?.get(&Key::new(32, STALE), 0);
        ensure!(left.is_err(), "a stale prefix is in force: {generation}");
        ensure!(slots.record(other)?.generation > generation);
        let host = 1 + (round % 2) as u8;
        assert_eq!(
            judge(&mut filter, [192, 0, 2, host])?,
            Verdict::Pass(listed)
        );
        slots.are_ready()?;
    }
    Ok(())
}

#[test]
fn a_long_list_has_arrays_of_its_own_and_gives_everything_back() -> Result<()> {
    // Each host takes a line.
    const HOSTS: u32 = 70_000;
    let namespace = Namespace::new("node")?;
    let (apifence, slots) = attach(&namespace)?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    for slot in 0..SLOTS {
        assert_eq!(slots.lengths(slot)?, EMPTY, "a short list is in the header");
    }
    let long = hosts(HOSTS);
    set(&apifence, &long)?;
    slots.are_ready()?;
    let current = slots.in_force()?;
    let [lines, v4, v6] = slots.lengths(current)?;
    ensure!(
        lines > HOSTS / 2 && v4 > 1 && v6 == 1,
        "{lines}, {v4}, {v6}"
    );
    for host in long.iter().step_by(999) {
        let [a, b, c, d] = *host;
        assert_eq!(
            judge(&mut filter, *host)?,
            Verdict::Pass(PassReason::Authorized)
        );
        let verdict = judge(&mut filter, [a, b, c, d + 1])?;
        ensure!(!Verdict::is_pass(verdict.index()), "{verdict:?}");
    }

    let before = slots.inner(current)?;
    set(&apifence, &long[..1])?;
    slots.are_ready()?;
    assert_eq!(slots.lengths(slots.in_force()?)?, EMPTY);
    let gone = || Ok(!before.iter().any(|id| MapInfo::from_id(*id).is_ok()));
    until("the long list's maps are freed", gone)?;
    let verdict = judge(&mut filter, long[long.len() - 1])?;
    ensure!(
        verdict != Verdict::Pass(PassReason::Authorized),
        "{verdict:?}"
    );
    Ok(())
}

/// Makes each system call of a thread the last one, whichever thread reaches it first.
#[test]
fn a_writer_killed_between_two_maps_leaves_one_list_in_force() -> Result<()> {
    let namespace = Namespace::new("node")?;
    let (apifence, slots) = attach(&namespace)?;
    let mut filter = Filter::open(&apifence, namespace.ifindex(INTERFACE)?)?;
    // Too many lines for the header.
    let long = hosts(5_000);
    let (first, last) = ([192, 0, 2, 1], long[long.len() - 1]);
    let file = write(&apifence, &long)?;
    let lists = [
        ["ranges", "set", SHORT[0]].to_vec(),
        ["ranges", "set", "--from-file", &file].to_vec(),
    ];
    let mut met = BTreeSet::new();
    for (from, to) in [(0, 1), (1, 0)] {
        for call in 1.. {
            // The next writer finds every map.
            for list in [&["ranges", "set", SHORT[1]], &lists[from][..]] {
                apifence.ok(list)?;
                slots
                    .are_ready()
                    .with_context(|| format!("before call {call}"))?;
            }
            let kill = format!("inject=bpf:signal=SIGKILL:when={call}");
            let strace = strace(NO_LOG, &["trace=bpf", &kill]);
            let ran = apifence.run_by(strace, &lists[to])?;
            if ran.code == Some(0) {
                break;
            }
            let mut passes = |host| Ok::<_, anyhow::Error>(judge(&mut filter, host)?.index());
            let listed = Verdict::Pass(PassReason::Authorized).index();
            let now = [passes(first)? == listed, passes(last)? == listed];
            ensure!(now[0] != now[1], "call {call}: both lists or none: {ran}");
            met.insert((from, now[from]));
            // A writer that changes nothing itself completes the started change.
            apifence.ok(&["ranges", "set", SHORT[1], "--dry-run"])?;
            let status = apifence.json(&["status"])?;
            ensure!(
                status["state"] == "enforcing" && status["drift"] == serde_json::json!([]),
                "call {call}: {status:#}"
            );
        }
    }
    assert_eq!(met.len(), 4, "killed too early or too late: {met:?}");
    Ok(())
}

/// The slot that a reader has chosen is emptied during its read as soon as a change is in force;
/// this reader is slow.
#[test]
fn a_reader_during_a_change_reads_one_list() -> Result<()> {
    const READS: usize = 40;
    let namespace = Namespace::new("node")?;
    let (apifence, _) = attach(&namespace)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<usize> {
            for changes in 0.. {
                if done.load(Ordering::Relaxed) {
                    return Ok(changes);
                }
                apifence.ok(&["ranges", "set", SHORT[changes % 2]])?;
                // Without the pause the reader would never finish.
                thread::sleep(Duration::from_millis(100));
            }
            unreachable!("there is no last number")
        });
        let read = || -> Result<Value> {
            let strace = strace(NO_LOG, &["trace=bpf", "inject=bpf:delay_exit=2000"]);
            let ran = apifence.run_by(strace, &["-o", "json", "ranges", "list"])?;
            ensure!(ran.code == Some(0), "{ran}");
            Ok(serde_json::from_str(&ran.stdout)?)
        };
        let reads = (0..READS).try_for_each(|_| {
            let shown = read()?;
            let rows = shown["ranges"].as_array().context("no ranges")?;
            let found: Vec<&str> = rows
                .iter()
                .filter_map(|row| row["range"].as_str())
                .collect();
            let is = |host| {
                found
                    == [
                        format!("192.0.2.{host}/32"),
                        format!("2001:db8::{host}/128"),
                    ]
            };
            ensure!(is(1) || is(2), "{found:?}");
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        let changes = writer.join().expect("the writer does not panic")?;
        reads?;
        ensure!(changes > READS / 4, "{changes} changes");
        Ok(())
    })
}
