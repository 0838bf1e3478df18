//! The ranges as they are shown: filtered, sorted, as a table.

use std::{cmp::Reverse, net::IpAddr};

use filter_common::layout::Origin;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{ListArgs, ListOrder},
    config::join,
    ranges::ListName,
    ui::{
        line::Line,
        number::{count, plural},
        page::{Page, Records, Screen},
        style::Ink,
        table::{Column, Table},
    },
    view::{
        policy::{Provisional, Trial},
        range::short,
    },
};

/// The authorized ranges.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListReport {
    /// `kernel`, or `file` where no filter is attached.
    pub(super) source: &'static str,
    /// False if the list is the off switch.
    pub(super) enforced: bool,
    /// The change on trial; null if there is none.
    pub(super) provisional: Option<Provisional>,
    /// The ranges.
    pub(super) ranges: Vec<ListRow>,
    /// The same, with its author.
    #[serde(skip)]
    pub(super) trial: Option<Trial>,
    /// Whether people see the implicit sources, too.
    #[serde(skip)]
    pub(super) all: bool,
    /// How many ranges the filters left out.
    #[serde(skip)]
    pub(super) left_out: usize,
}

/// An authorized range.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ListRow {
    /// The range.
    pub(super) range: IpNet,
    /// Why it is authorized: `list`, `outbound`, `cluster`, `node`, ...
    pub(super) origins: Vec<&'static str>,
    /// The lists that have it.
    pub(super) lists: Vec<ListName>,
    /// The names in `cluster_cidrs` that stand for it.
    pub(super) presets: Vec<&'static str>,
    /// The comment of its entry; null without one.
    pub(super) comment: Option<String>,
    /// When the entry expires: RFC 3339, UTC; null if it does not.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) expires: Option<Timestamp>,
    /// When its packets stop passing: RFC 3339, UTC; null if they do not, or if no filter is
    /// attached. Later than `expires` inside a range that lives longer.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) in_force_until: Option<Timestamp>,
    /// Packets that passed because of it; null if they are not counted.
    pub(super) packets: Option<u64>,
    /// The time of the last such packet: RFC 3339, UTC; null if there was none.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) last_seen: Option<Timestamp>,
    /// When the count of its packets began: RFC 3339, UTC; null if they are not counted.
    #[cfg_attr(test, schemars(with = "Option<crate::ui::json::Time>"))]
    pub(super) counted_since: Option<Timestamp>,
}

impl ListRow {
    /// Since when it is unused, as far as that is known.
    pub(super) fn unused_since(&self) -> Option<Timestamp> {
        self.last_seen.or(self.counted_since)
    }

    /// Whether a list has it.
    pub(super) fn is_listed(&self) -> bool {
        self.origins.contains(&Origin::List.label())
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|time| time <= now)
    }

    /// Whether it contains the address `pattern`, or has that text.
    fn matches(&self, pattern: &str) -> bool {
        if let Ok(address) = pattern.parse::<IpAddr>() {
            return self.range.contains(&address.to_canonical());
        }
        if let Ok(range) = pattern.parse::<IpNet>() {
            return self.range.contains(&range) || range.contains(&self.range);
        }
        let pattern = pattern.to_lowercase();
        let has_it = |text: &str| text.to_lowercase().contains(&pattern);
        has_it(&self.range.to_string())
            || self.comment.as_deref().is_some_and(has_it)
            || self.lists.iter().any(|name| has_it(name.as_str()))
            || self.presets.iter().any(|name| has_it(name))
    }

    /// When it expires, as a cell.
    fn expiry(&self, page: &Page) -> Line {
        match (self.expires, self.in_force_until) {
            (None, _) => Line::inked(Ink::Dim, "-"),
            (Some(time), Some(until)) if until <= page.now => {
                Line::inked(Ink::Bad, format!("expired {}", page.when(time)))
            }
            (Some(time), until) if until.is_none_or(|until| until > time) => {
                Line::from(page.when(time)).and_inked(Ink::Dim, " (inside a range that stays)")
            }
            (Some(time), _) => page.when(time).into(),
        }
    }

    /// Where it is from: the lists that have it, and other origins, with the names of its presets.
    fn from(&self) -> String {
        let mut from: Vec<String> = Vec::new();
        for origin in &self.origins {
            if *origin == Origin::List.label() && !self.lists.is_empty() {
                from.extend(self.lists.iter().map(ToString::to_string));
            } else if *origin == Origin::Cluster.label() && !self.presets.is_empty() {
                from.push(format!("{origin} {}", join(&self.presets)));
            } else {
                from.push((*origin).to_owned());
            }
        }
        from.join(", ")
    }
}

impl ListReport {
    /// Leaves out ranges that `args` does not ask for, and sorts the others.
    pub(super) fn arrange(&mut self, args: &ListArgs, now: Timestamp) {
        let before = self.listed().count();
        if let Some(pattern) = &args.pattern {
            self.ranges.retain(|row| row.matches(pattern));
            // The answer to a question is shown, whatever its origin.
            self.all = true;
        }
        if args.expired {
            self.ranges.retain(|row| row.is_expired(now));
        }
        self.left_out += before - self.listed().count();
        match args.sort {
            ListOrder::Address => {}
            ListOrder::Used => self
                .ranges
                .sort_by_key(|row| Reverse((row.packets, row.last_seen))),
            ListOrder::Expires => self
                .ranges
                .sort_by_key(|row| (row.expires.is_none(), row.expires)),
            ListOrder::Comment => self
                .ranges
                .sort_by_key(|row| (row.comment.is_none(), row.comment.clone())),
        }
    }

    fn listed(&self) -> impl Iterator<Item = &ListRow> {
        self.ranges.iter().filter(|row| row.is_listed())
    }

    fn table(&self, page: &Page) -> Table {
        let mut names = self.ranges.iter().flat_map(|row| &row.lists);
        let is_default_alone = names.all(ListName::is_default);
        let mut table = Table::new([
            Column::text("range"),
            Column::text("from"),
            Column::text("expires"),
            Column::number("packets"),
            Column::text("last seen"),
            Column::text("counted since"),
            Column::comment("comment"),
        ]);
        for row in self.shown() {
            table.row([
                short(&row.range).into(),
                match is_default_alone && !self.all && !page.is_wide {
                    true => Line::default(),
                    false => row.from().into(),
                },
                row.expiry(page),
                row.packets
                    .map_or_else(Line::default, |packets| count(packets).into()),
                match (row.last_seen, row.packets) {
                    (Some(time), _) => page.when(time).into(),
                    (None, Some(_)) => Line::inked(Ink::Dim, "never"),
                    (None, None) => Line::default(),
                },
                match row.counted_since {
                    Some(time) if page.is_wide => page.when(time).into(),
                    _ => Line::default(),
                },
                row.comment.as_deref().unwrap_or_default().into(),
            ]);
        }
        table.without_empty_columns()
    }

    fn shown(&self) -> impl Iterator<Item = &ListRow> {
        let is_shown = |row: &&ListRow| self.all || row.is_listed();
        self.ranges.iter().filter(is_shown)
    }

    /// The last line: the numbers of ranges, and of those that are not shown.
    fn sum(&self, now: Timestamp) -> Line {
        let listed = self.listed().count();
        let expired = self.listed().filter(|row| row.is_expired(now)).count();
        let mut line = match self.left_out {
            0 => Line::from(plural(listed, "range")),
            more => {
                let all = plural(listed + more, "range");
                Line::from(format!("{} of {all}", count(listed as u64)))
            }
        };
        if expired > 0 {
            line = line.and_inked(Ink::Bad, format!(" ({} expired)", count(expired as u64)));
        }
        let others: Vec<String> = Origin::ALL
            .into_iter()
            .filter_map(|origin| {
                let rows = self.ranges.iter().filter(|row| !row.is_listed());
                let own = rows.filter(|row| row.origins.contains(&origin.label()));
                let number = own.count();
                (number > 0).then(|| format!("{} {}", count(number as u64), origin.label()))
            })
            .collect();
        if !others.is_empty() {
            line = line.and(format!(" + {} addresses", others.join(", ")));
            if !self.all {
                line = line.and_inked(Ink::Dim, " (--all)");
            }
        }
        line
    }
}

impl Screen for ListReport {
    fn show(&self, page: &mut Page) {
        if !self.enforced {
            let off = "enforcement is off: every source passes";
            page.line(Line::inked(Ink::Bad, off));
        }
        if let Some(trial) = &self.trial {
            page.line(trial.line());
        }
        if self.shown().next().is_some() {
            page.table(&self.table(page));
        }
        page.line(self.sum(page.now));
    }

    fn records(&self) -> Option<Records> {
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        let rows = self.ranges.iter().map(|row| {
            let packets = row.packets;
            vec![
                row.range.to_string(),
                row.origins.join(" "),
                row.lists
                    .iter()
                    .map(ListName::as_str)
                    .collect::<Vec<_>>()
                    .join(" "),
                time(row.expires),
                time(row.in_force_until),
                packets.map_or_else(String::new, |packets| packets.to_string()),
                time(row.last_seen),
                time(row.counted_since),
                row.comment.clone().unwrap_or_default(),
            ]
        });
        Some(Records {
            names: &[
                "range",
                "origins",
                "lists",
                "expires",
                "in_force_until",
                "packets",
                "last_seen",
                "counted_since",
                "comment",
            ],
            rows: rows.collect(),
        })
    }
}
