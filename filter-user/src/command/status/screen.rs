//! The text of `apifence status`: the state first, then what it consists of, then its problems.

use std::collections::BTreeSet;

use super::{Status, prospect::Prospect};
use crate::{
    codes::Code,
    config::{Settings, join},
    ui::{
        line::Line,
        number::{count, plural},
        page::{Page, Screen},
        style::Ink,
    },
    warnings::Warning,
};

/// The width of the labels.
const LABEL: usize = 13;
/// How many warnings of one kind are shown.
const MAX_SHOWN: usize = 4;

impl Screen for Status {
    fn show(&self, page: &mut Page) {
        page.line(self.title());
        if let Some(prospect) = &self.if_attached {
            self.show_prospect(page, prospect);
        } else {
            self.show_trial(page);
            self.show_interfaces(page);
            if self.settings.is_some() {
                self.show_policy(page);
            }
        }
        self.show_service(page);
        self.show_files(page);
        self.show_warnings(page);
        if let Some(prospect) = &self.if_attached {
            item(page, "next", Line::inked(Ink::Hint, prospect.next));
        }
    }
}

/// A line of the screen: what it is about, and `line`.
fn item(page: &mut Page, label: &str, line: impl Into<Line>) {
    let label = Line::inked(Ink::Dim, format!("  {label:<LABEL$}"));
    page.indented(label.and_line(line.into()), LABEL + 2);
}

impl Status {
    /// The state, and what it means for packets.
    fn title(&self) -> Line {
        let ports = self.settings.as_ref().map(Settings::protected);
        let ports = join(ports.unwrap_or_default());
        let guarded = self.interfaces.iter().filter(|guard| guard.guarded);
        let on = join(guarded.map(|guard| &guard.interface));
        let place = format!("   TCP {ports} on {on}: ");
        let traffic = self.traffic.unwrap_or_default();
        let allowed = traffic.words(traffic.authorized, "allowed");
        match self.state {
            "enforcing" => {
                let dropped = traffic.words(traffic.dropped, "dropped");
                Line::inked(Ink::Good, "● enforcing").and(format!("{place}{dropped}, {allowed}"))
            }
            "monitoring" => {
                let would = traffic.words(traffic.would_drop, "would be dropped");
                Line::inked(Ink::Caution, "◐ monitoring")
                    .and(format!("{place}nothing is dropped; {would}, {allowed}"))
            }
            "off" => Line::inked(Ink::Bad, "○ OPEN").and(format!(
                "{place}enforcement is switched off, every source passes"
            )),
            "unknown" => Line::inked(Ink::Bad, "○ unknown")
                .and("   a filter is attached, and its policy cannot be read"),
            _ => {
                let ports = self
                    .if_attached
                    .as_ref()
                    .map(|prospect| join(&prospect.ports));
                let ports =
                    ports.map_or_else(|| "the ports".to_owned(), |ports| format!("TCP {ports}"));
                Line::inked(Ink::Bad, "○ not attached")
                    .and(format!(": {ports} are open to everyone"))
            }
        }
    }

    fn show_trial(&self, page: &mut Page) {
        if let Some(trial) = &self.provisional {
            item(page, "trial", trial.line());
        }
    }

    /// The interfaces with a filter, and those that a warning is about.
    fn show_interfaces(&self, page: &mut Page) {
        let guards = self.interfaces.iter().map(|guard| {
            let hook = guard.xdp_mode.map_or("-", |mode| mode.label());
            let state = match guard.guarded {
                true => Line::inked(Ink::Good, "guarded"),
                false => Line::inked(Ink::Bad, "NOT GUARDED"),
            };
            let state = match &guard.native_refused {
                Some(why) => state.and(format!(" ({why})")),
                None => state,
            };
            (guard.interface.as_str(), hook, state)
        });
        let mut rows: Vec<(&str, &str, Line)> = guards.collect();
        for warning in &self.warnings {
            let Some(name) = &warning.interface else {
                continue;
            };
            if rows.iter().all(|(shown, ..)| shown != name) {
                let why = Line::inked(Ink::Caution, "not guarded").and(format!(
                    " ({}, {})",
                    warning.code.name(),
                    warning.code
                ));
                rows.push((name, "-", why));
            }
        }
        let width = rows.iter().map(|(name, ..)| name.chars().count()).max();
        let width = width.unwrap_or_default();
        for (number, (name, hook, state)) in rows.into_iter().enumerate() {
            let label = if number == 0 { "interfaces" } else { "" };
            let line = Line::from(format!("{name:<width$}   {hook:<7}   "));
            item(page, label, line.and_line(state));
        }
    }

    /// The policy in force.
    fn show_policy(&self, page: &mut Page) {
        for guard in &self.guards {
            item(page, "guard", guard);
        }
        if !self.destinations.is_empty() {
            item(page, "destinations", join(&self.destinations));
        }
        item(page, "ranges", self.counted());
        if self.lists.iter().any(|list| !list.name.is_default()) {
            item(page, "lists", join(&self.lists));
        }
        if !self.cluster.is_empty() {
            item(page, "cluster", join(&self.cluster));
        }
        let at = self.applied_at.as_deref().and_then(|at| at.parse().ok());
        let at = at.map_or_else(|| "at an unknown time".to_owned(), |at| page.when(at));
        let mut line = Line::from(at);
        if let Some(by) = &self.applied_by {
            line = line.and(", by ").and_inked(Ink::Strong, by.verb());
            if let Some(user) = by.person() {
                line = line.and(format!(" ({user})"));
            }
        }
        let generation = format!(", generation {}", count(self.generation));
        item(page, "changed", line.and(generation));
    }

    /// The numbers of ranges by origin.
    fn counted(&self) -> Line {
        let of = |origin: &str| self.origins.get(origin).copied().unwrap_or_default();
        let listed = count(of("list") as u64);
        let mut line = Line::from(format!("{listed} of {}", count(self.max_ranges.into())));
        if self.expired > 0 {
            let expired = format!(" ({} expired)", count(self.expired as u64));
            line = line.and_inked(Ink::Caution, expired);
        }
        let others = self.origins.iter().filter(|(origin, _)| **origin != "list");
        for (origin, number) in others {
            line = line.and(format!(", {} {origin}", count(*number as u64)));
        }
        line
    }

    fn show_service(&self, page: &mut Page) {
        let service = &self.service;
        if !service.running {
            let nothing = Line::inked(Ink::Dim, "not running");
            let line = match self.if_attached {
                Some(_) => nothing,
                None => nothing.and(": edited files are not applied"),
            };
            return item(page, "service", line);
        }
        let mut line = Line::inked(Ink::Good, "running");
        if let Some(pid) = service.pid {
            line = line.and(format!(", pid {pid}"));
        }
        if let Some(since) = service.since {
            line = line.and(format!(", started {}", page.when(since)));
        }
        if let Some(listen) = &service.metrics_listen {
            line = line.and(format!("; metrics {listen}"));
        }
        item(page, "service", line);
    }

    /// The files, and how the kernel differs from them.
    fn show_files(&self, page: &mut Page) {
        let files = match &self.config_file {
            Some(config) => format!("{}, {config}", self.ranges_file),
            None => self.ranges_file.clone(),
        };
        let is_attached = self.if_attached.is_none();
        let line = match self.drift.is_empty() {
            true if is_attached => Line::inked(Ink::Good, "in sync").and(format!(" ({files})")),
            true => Line::from(files),
            false => Line::inked(Ink::Caution, "drift").and(format!(" ({files})")),
        };
        item(page, "files", line);
        for drift in &self.drift {
            item(page, "", Line::inked(Ink::Caution, drift));
        }
    }

    fn show_prospect(&self, page: &mut Page, prospect: &Prospect) {
        let each = prospect.interfaces.iter().map(|one| {
            let hook = match one.hook {
                Some("unknown") => ", native XDP if the driver takes it".to_owned(),
                Some(hook) => format!(", {hook} XDP"),
                None => String::new(),
            };
            match &one.driver {
                Some(driver) => format!("{} ({driver}{hook})", one.name),
                None => one.name.clone(),
            }
        });
        let interfaces: Vec<String> = each.collect();
        match interfaces.is_empty() {
            true => item(
                page,
                "would guard",
                "no interface: none holds a default route",
            ),
            false => item(page, "would guard", join(interfaces)),
        }
        for one in &self.interfaces {
            let line = format!(
                "{}: its link is pinned, and it is not guarded",
                one.interface
            );
            item(page, "", Line::inked(Ink::Caution, line));
        }
        let each = prospect.listeners.iter();
        let listeners: Vec<String> = each
            .map(|one| format!("{} on {}", one.program, one.port))
            .collect();
        match listeners.is_empty() {
            true => item(page, "listening", Line::inked(Ink::Dim, "no program")),
            false => item(page, "listening", join(listeners)),
        }
        let ranges = prospect.ranges.map_or_else(
            || "no list yet".to_owned(),
            |ranges| format!("{} in the files", count(ranges as u64)),
        );
        item(page, "ranges", ranges);
    }

    /// Acknowledged warnings, and many of one kind, are only counted.
    fn show_warnings(&self, page: &mut Page) {
        let is_shown = |warning: &&Warning| self.verbose || !warning.acknowledged;
        let shown: Vec<&Warning> = self.warnings.iter().filter(is_shown).collect();
        if !shown.is_empty() {
            let title = plural(shown.len(), "warning");
            page.line(Line::inked(Ink::Caution, title));
        }
        for same in shown.chunk_by(|one, other| one.code == other.code) {
            let most = if self.verbose { same.len() } else { MAX_SHOWN };
            for warning in same.iter().take(most) {
                show_warning(page, warning);
            }
            if let more @ 1.. = same.len().saturating_sub(most) {
                detail(page, format!("{more} more like this (`-v` shows them)"));
            }
            if let Some(first) = same.first() {
                let explain = format!("apifence explain {}", first.code);
                detail(page, Line::inked(Ink::Hint, explain));
            }
        }
        let known = self.warnings.iter().filter(|one| one.acknowledged);
        let known: Vec<Code> = known.map(|one| one.code).collect();
        if !self.verbose && !known.is_empty() {
            let codes: BTreeSet<Code> = known.iter().copied().collect();
            page.line(Line::inked(
                Ink::Dim,
                format!(
                    "{}: {} (`-v` shows them)",
                    plural(known.len(), "acknowledged warning"),
                    join(codes)
                ),
            ));
        }
    }
}

fn show_warning(page: &mut Page, warning: &Warning) {
    let known = match (warning.acknowledged, warning.code.severity().label()) {
        (true, _) => " (acknowledged)".to_owned(),
        (false, "warning") => String::new(),
        (false, severity) => format!(" ({severity})"),
    };
    let code = Line::inked(Ink::Caution, format!("  {}{known}  ", warning.code));
    page.indented(code.and(&warning.message), 7);
    detail(
        page,
        Line::inked(Ink::Dim, format!("hint: {}", warning.hint)),
    );
}

/// A line under a warning.
fn detail(page: &mut Page, line: impl Into<Line>) {
    page.indented(Line::from("       ").and_line(line.into()), 7);
}
