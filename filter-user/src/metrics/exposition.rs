//! Encodes a reading in Prometheus's text format.
//!
//! Every label has few values, fixed except for interface names. No label is a source address.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use filter_common::{
    Mode,
    layout::{Basis, Origin},
};
use jiff::Timestamp;
use prometheus::{
    Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use super::{Health, process::ProcessReading, reading::Reading};
use crate::{
    clock::Clocks,
    codes::Code,
    kernel::{
        bpf::{Family, RangeCounts},
        net::interface::XdpAttachMode,
    },
};

/// The modes, by their label values.
const MODES: [(Mode, &str); 3] = [
    (Mode::Enforce, "enforce"),
    (Mode::Monitor, "monitor"),
    (Mode::Off, "off"),
];

/// The metrics of one answer. Each answer has new ones, so that a series ends with its object.
struct Page {
    registry: Registry,
}

impl Page {
    fn add<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> Result<M> {
        let metric = metric.context("make metric")?;
        self.registry
            .register(Box::new(metric.clone()))
            .context("make metric")?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str, value: f64) -> Result<()> {
        self.add(Gauge::new(name, help))?.set(value);
        Ok(())
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> Result<()> {
        self.add(IntCounter::new(name, help))?.inc_by(value);
        Ok(())
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }
}

pub(super) fn render(
    reading: &Reading,
    range_counts: Option<&RangeCounts>,
    health: &Health,
) -> Result<String> {
    let page = Page {
        registry: Registry::new(),
    };
    counters(&page, reading)?;
    policy(&page, reading)?;
    let now = Clocks::now()?;
    if let Some(range_counts) = range_counts {
        ranges(&page, range_counts, now.boot)?;
    }
    interfaces(&page, reading, health)?;
    lists(&page, health, now.wall)?;
    warnings(&page, health)?;
    service(&page, reading, health)?;
    match ProcessReading::read() {
        Ok(read) => process(&page, &read)?,
        Err(error) => log::debug!("read process: {error:#}"),
    }
    TextEncoder::new()
        .encode_to_string(&page.registry.gather())
        .context("write metrics")
}

fn counters(page: &Page, reading: &Reading) -> Result<()> {
    let labels = ["interface", "verdict", "reason"];
    let packets = page.counters(
        "apifence_packets_total",
        "Packets by verdict and reason since the filter was attached.",
        &labels,
    )?;
    let bytes = page.counters(
        "apifence_bytes_total",
        "Bytes of these packets, from the Ethernet header on.",
        &labels,
    )?;
    for (interface, rows) in &reading.counters {
        for row in rows {
            let labels = [interface, row.verdict.label(), row.verdict.reason()];
            packets
                .with_label_values(&labels)
                .inc_by(row.counter.packets);
            bytes.with_label_values(&labels).inc_by(row.counter.bytes);
        }
    }
    if let Some(suppressed) = reading.suppressed_reports {
        page.counter(
            "apifence_reports_suppressed_total",
            "Dropped packets that the kernel counted without a report, since the filter was attached. `apifence events` and the log show the reported ones only.",
            suppressed,
        )?;
    }
    Ok(())
}

fn policy(page: &Page, reading: &Reading) -> Result<()> {
    page.gauge(
        "apifence_enforcing",
        "1 if packets from unauthorized sources are dropped; 0 if not, or if that cannot be read.",
        flag(reading.enforces()),
    )?;
    let Some(policy) = &reading.policy else {
        return Ok(());
    };
    let modes = page.gauges(
        "apifence_policy_mode",
        "1 for the mode in force, 0 for the others.",
        &["mode"],
    )?;
    for (mode, label) in MODES {
        modes
            .with_label_values(&[label])
            .set(flag(policy.mode == mode as u8));
    }
    let sources = page.gauges(
        "apifence_policy_source",
        "1 for the source of the policy in force, 0 for the others. Another source than `files` means that the files could not be used at the last start.",
        &["source"],
    )?;
    for basis in Basis::ALL {
        sources
            .with_label_values(&[basis.label()])
            .set(flag(policy.basis == basis));
    }
    page.gauge(
        "apifence_policy_generation",
        "Number of the policy in force. Numbers start at 1 and are never reused; a rollback brings the previous number back.",
        policy.generation as f64,
    )?;
    page.gauge(
        "apifence_policy_applied_timestamp_seconds",
        "Time when the policy in force was activated, in seconds since 1970.",
        policy.applied_at as f64 / 1e9,
    )?;
    page.gauge(
        "apifence_trial_seconds_left",
        "Seconds until the change on trial reverts without `apifence confirm`; 0 if no change is on trial.",
        policy.trial_left.unwrap_or_default() as f64 / 1e9,
    )?;
    if let (Some(_), Some((command, user))) = (policy.trial_left, &policy.by) {
        page.gauges(
            "apifence_trial_info",
            "1 while a change is on trial. The labels name the command and the user.",
            &["command", "user"],
        )?
        .with_label_values(&[command, user])
        .set(1.0);
    }
    page.gauges(
        "apifence_list_info",
        "Always 1. The label is the digest of all lists in force: nodes with equal lists have equal digests.",
        &["digest"],
    )?
    .with_label_values(&[&short(&policy.lists)])
    .set(1.0);
    page.gauge(
        "apifence_max_ranges",
        "The most ranges that all lists may have together: the setting `max_ranges`.",
        f64::from(policy.max_ranges),
    )
}

/// The start of a digest: enough to tell lists apart.
fn short(digest: &[u8; 32]) -> String {
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn ranges(page: &Page, range_counts: &RangeCounts, now: u64) -> Result<()> {
    let ranges = page.gauges(
        "apifence_authorized_ranges",
        "Ranges in force that have not expired. A range with several origins counts for each of them.",
        &["family", "origin"],
    )?;
    for family in Family::BOTH {
        for origin in Origin::ALL {
            let count = range_counts.count(family, origin, now);
            ranges
                .with_label_values(&[family.label(), origin.label()])
                .set(count as f64);
        }
    }
    Ok(())
}

fn interfaces(page: &Page, reading: &Reading, health: &Health) -> Result<()> {
    let attached = page.gauges(
        "apifence_attached",
        "1 if the filter sees the packets of the interface; 0, with the mode `none`, if the interface should be guarded and is not.",
        &["interface", "xdp_mode"],
    )?;
    // An interface may be in both: pinned without a program, and wanted.
    let mut modes: HashMap<&str, Option<XdpAttachMode>> = HashMap::new();
    modes.extend(reading.unguarded(health).map(|name| (name.as_str(), None)));
    modes.extend(
        reading
            .guards
            .iter()
            .map(|guard| (guard.interface.as_str(), guard.xdp_mode)),
    );
    for (interface, mode) in modes {
        let label = match mode {
            None => "none",
            // A single word, like the other labels.
            Some(XdpAttachMode::Several) => "several",
            Some(mode) => mode.label(),
        };
        attached
            .with_label_values(&[interface, label])
            .set(flag(mode.is_some()));
    }
    Ok(())
}

fn warnings(page: &Page, health: &Health) -> Result<()> {
    let warnings = page.gauges(
        "apifence_warnings",
        "Warnings of `apifence status` by code, checked once a minute. `apifence explain CODE` explains a code.",
        &["code", "severity", "acknowledged"],
    )?;
    for code in Code::ALL {
        let (number, severity) = (code.number(), code.severity().label());
        for acknowledged in [false, true] {
            let known = if acknowledged { "true" } else { "false" };
            let count = health.warnings.get(&(code, acknowledged));
            warnings
                .with_label_values(&[number.as_str(), severity, known])
                .set(count.copied().unwrap_or_default() as f64);
        }
    }
    Ok(())
}

fn lists(page: &Page, health: &Health, now: Timestamp) -> Result<()> {
    let usable = page.gauges(
        "apifence_list_usable",
        "1 if the file of the list can be used; 0 if its last good entries are in force.",
        &["list"],
    )?;
    let ranges = page.gauges(
        "apifence_list_ranges",
        "Ranges of the list, expired ones included.",
        &["list"],
    )?;
    let expired = page.gauges(
        "apifence_expired_ranges",
        "Ranges of the list that have expired and authorize no source.",
        &["list"],
    )?;
    let expiry = page.gauges(
        "apifence_range_expiry_timestamp_seconds",
        "Time when the next range of the list expires, in seconds since 1970. A list without such a range has no value.",
        &["list"],
    )?;
    for (name, list) in &health.lists {
        let labels = [name.as_str()];
        let (past, next) = list.expiry(now);
        expired.with_label_values(&labels).set(past as f64);
        if let Some(next) = next {
            let seconds = next.as_nanosecond() as f64 / 1e9;
            expiry.with_label_values(&labels).set(seconds);
        }
        usable.with_label_values(&labels).set(flag(list.usable));
        ranges.with_label_values(&labels).set(list.ranges as f64);
    }
    Ok(())
}

fn service(page: &Page, reading: &Reading, health: &Health) -> Result<()> {
    page.gauge(
        "apifence_ready",
        "1 if the node is guarded as its files say; `/readyz` names the problems.",
        flag(reading.problems(health).is_empty()),
    )?;
    page.gauge(
        "apifence_drift",
        "1 while the kernel differs from the files.",
        flag(health.drift.is_some()),
    )?;
    page.gauge(
        "apifence_last_reload_successful",
        "1 if the last attempt to put the files in force succeeded.",
        flag(health.reload_error.is_none()),
    )?;
    page.counter(
        "apifence_reload_failures_total",
        "Failed attempts to put the files in force, since the process started.",
        health.reload_failures,
    )?;
    page.gauges(
        "apifence_build_info",
        "Always 1. The label is the version of the running program.",
        &["version"],
    )?
    .with_label_values(&[env!("CARGO_PKG_VERSION")])
    .set(1.0);
    Ok(())
}

/// The usual metrics of a process.
fn process(page: &Page, process: &ProcessReading) -> Result<()> {
    page.gauge(
        "process_start_time_seconds",
        "Time when the process started, in seconds since 1970.",
        process.started,
    )?;
    page.add(Counter::new(
        "process_cpu_seconds_total",
        "CPU time of the process in user space and in the kernel, in seconds.",
    ))?
    .inc_by(process.cpu);
    page.gauge(
        "process_resident_memory_bytes",
        "Memory of the process in RAM, in bytes.",
        process.resident as f64,
    )?;
    page.gauge(
        "process_virtual_memory_bytes",
        "Address space of the process, in bytes.",
        process.virtual_memory as f64,
    )?;
    page.gauge(
        "process_open_fds",
        "Open file descriptors of the process.",
        process.open_files as f64,
    )
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
