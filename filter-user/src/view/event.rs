//! A dropped packet as it is shown: a line, or an object.

use std::{collections::HashMap, fmt, net::IpAddr};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    kernel::{bpf::DropReport, net::rtnetlink},
    ui::log::serialize_milliseconds,
};

/// The names of interfaces, read again when an unknown ifindex appears.
#[derive(Default)]
pub(crate) struct InterfaceNames {
    known: HashMap<u32, String>,
}

impl InterfaceNames {
    /// Learns the names that `reports` need.
    pub(crate) fn learn(&mut self, reports: &[DropReport]) -> Result<()> {
        let unknown = |report: &DropReport| !self.known.contains_key(&report.ifindex);
        if reports.iter().any(unknown) {
            let interfaces = rtnetlink::interfaces()?;
            let all = interfaces.into_iter().map(|one| (one.ifindex, one.name));
            self.known.extend(all);
            // An interface that is gone keeps its number as its name, so it is not asked for again.
            for report in reports {
                let number = || format!("#{}", report.ifindex);
                self.known.entry(report.ifindex).or_insert_with(number);
            }
        }
        Ok(())
    }

    pub(crate) fn name(&self, ifindex: u32) -> &str {
        self.known.get(&ifindex).map_or("unknown", String::as_str)
    }
}

/// A packet that was dropped, or would have been.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Event {
    /// When it came: RFC 3339, UTC, three digits of the second.
    #[serde(serialize_with = "serialize_milliseconds")]
    #[cfg_attr(test, schemars(with = "crate::ui::json::Time"))]
    pub(crate) time: Timestamp,
    /// `drop`, or `would_drop` in monitor mode.
    verdict: &'static str,
    /// The reason for the verdict.
    reason: &'static str,
    /// The source address; null if it cannot be read. For a packet in a tunnel, that which was
    /// judged.
    source: Option<IpAddr>,
    /// The source port; null if it cannot be read.
    source_port: Option<u16>,
    /// The destination address; null if it cannot be read.
    destination: Option<IpAddr>,
    /// The destination port; null if it cannot be read.
    destination_port: Option<u16>,
    /// The name of the interface; `#` and its ifindex once it is gone.
    interface: String,
    /// Its ifindex.
    ifindex: u32,
    /// The length of the frame, in bytes.
    bytes: u32,
}

impl Event {
    pub(crate) fn new(refused: &DropReport, names: &InterfaceNames) -> Self {
        Self {
            time: milliseconds(refused.time),
            verdict: refused.verdict.label(),
            reason: refused.verdict.reason(),
            source: refused.source,
            source_port: refused.ports.map(|[source, _]| source),
            destination: refused.destination,
            destination_port: refused.ports.map(|[_, destination]| destination),
            interface: names.name(refused.ifindex).to_owned(),
            ifindex: refused.ifindex,
            bytes: refused.bytes,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} {} {} {} -> {} {} {} bytes",
            self.time,
            self.verdict,
            self.reason,
            FlowEnd(self.source, self.source_port),
            FlowEnd(self.destination, self.destination_port),
            self.interface,
            self.bytes
        )
    }
}

/// One end of a flow, as far as it is known.
struct FlowEnd(Option<IpAddr>, Option<u16>);

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).fmt(f),
            (Some(address), None) => address.fmt(f),
            (None, _) => f.write_str("unknown"),
        }
    }
}

/// The data path's clock has a resolution of milliseconds.
pub(crate) fn milliseconds(time: Timestamp) -> Timestamp {
    time.round(jiff::Unit::Millisecond).unwrap_or(time)
}
