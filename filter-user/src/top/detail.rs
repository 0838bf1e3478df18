//! All that is known about a row. Pure.

use filter_common::layout::Origin;
use jiff::Timestamp;

use super::{
    model::{Entry, Model},
    rows::{RowKey, host_or_range, short, source_name, xdp_mode},
    sources::Source,
};
use crate::{
    clock::to_second,
    config::join,
    ui::{number, visible::visible_in_line, when::relative},
    view::policy::origin_labels,
};

/// A label and its value.
pub(crate) type Fact = (&'static str, String);

/// The title and the facts; none if the row has gone.
pub(crate) fn detail(model: &Model, key: &RowKey) -> Option<(String, Vec<Fact>)> {
    let (title, facts) = match key {
        RowKey::Source(address) => {
            let source = model.sources.known.get(address)?;
            let title = format!("source {}", source_name(*address));
            (title, of_source(model, source))
        }
        RowKey::Entry(range) => {
            let entry = model.entries().find(|entry| entry.range() == *range)?;
            let title = format!("entry {}", host_or_range(range));
            (title, of_entry(model, &entry))
        }
        RowKey::Counter {
            ifindex,
            verdict,
            reason,
        } => {
            let title = format!("interface {}", model.interface(*ifindex));
            (title, of_counter(model, *ifindex, (verdict, reason))?)
        }
    };
    let visible = |(label, value): Fact| (label, visible_in_line(&value).into_owned());
    let facts = facts.into_iter().map(visible).collect();
    Some((visible_in_line(&title).into_owned(), facts))
}

fn of_source(model: &Model, source: &Source) -> Vec<Fact> {
    let last = &source.last;
    let unknown = || "unknown".to_owned();
    let from = last
        .ports
        .map_or_else(unknown, |[port, _]| port.to_string());
    let ports = match source.ports.is_empty() {
        true => unknown(),
        false => join(&source.ports),
    };
    let sampled = match model.sources.not_reported {
        0 => "no: every packet is counted here".to_owned(),
        more => format!(
            "yes: {} more packets of all sources are not shown",
            number::count(more)
        ),
    };
    vec![
        ("first seen", moment(model, source.first_seen)),
        ("last seen", moment(model, last.time)),
        (
            "packets",
            count(source.packets.total(), source.packets.rate(&model.times)),
        ),
        ("verdict", last.verdict.label().to_owned()),
        ("reason", last.verdict.reason().to_owned()),
        ("to ports", ports),
        ("from port", format!("{from} (last packet)")),
        (
            "to address",
            last.destination.map_or_else(unknown, |to| to.to_string()),
        ),
        ("interface", model.interface(last.ifindex)),
        ("sampled", sampled),
    ]
}

fn of_entry(model: &Model, entry: &Entry<'_>) -> Vec<Fact> {
    let used = entry.used;
    let expires = match used.expires {
        None => "never".to_owned(),
        Some(time) if time <= model.time => format!("{} (expired)", to_second(time)),
        Some(time) => format!("{} ({})", relative(time, model.time), to_second(time)),
    };
    let is_listed = used.prefix.origins & Origin::List as u8 != 0;
    let lists = match used.lists.is_empty() {
        false => join(&used.lists),
        true if is_listed => "unknown".to_owned(),
        true => "none".to_owned(),
    };
    let comment = used.comment.clone();
    vec![
        ("comment", comment.unwrap_or_else(|| "none".to_owned())),
        ("list", lists),
        ("origin", origin_labels(used.prefix.origins).join(", ")),
        ("expires", expires),
        ("last seen", moment(model, entry.last_seen)),
        (
            "packets",
            count(entry.packets.total(), entry.packets.rate(&model.times)),
        ),
    ]
}

fn of_counter(model: &Model, ifindex: u32, counter: (&str, &str)) -> Option<Vec<Fact>> {
    let mut interfaces = model.interfaces.iter();
    let one = interfaces.find(|one| one.guard.ifindex == ifindex)?;
    let mut facts = vec![("XDP", xdp_mode(one).to_owned())];
    if let Some(refused) = &one.guard.native_refused {
        facts.push(("native", refused.clone()));
    }
    let mut counters = one.counters.iter();
    let found = counters.find(|one| (one.row.verdict, one.row.reason) == counter);
    if let Some(found) = found {
        let (packets, bytes) = (&found.packets, &found.bytes);
        facts.extend([
            ("verdict", counter.0.to_owned()),
            ("reason", counter.1.to_owned()),
            (
                "packets",
                count(packets.total(), packets.rate(&model.times)),
            ),
            ("bytes", count(bytes.total(), bytes.rate(&model.times))),
        ]);
    }
    Some(facts)
}

fn count(total: u64, rate: f64) -> String {
    format!("{}, {}/s", number::count(total), short(rate))
}

/// A time, and how long ago that was.
fn moment(model: &Model, time: Timestamp) -> String {
    format!("{} ({})", relative(time, model.time), to_second(time))
}
