//! Guards every wanted interface from the moment it appears.
//!
//! It runs on its own thread, which waits only for the kernel. It takes no writer's lock, reads no
//! file and writes to no pipe. It holds the links, the maps and a verified program. Thus an
//! interface that comes back costs one system call, and removed pins do not open the port.

mod pinned;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

pub(crate) use self::state::{Shared, WantedInterfaces};
use self::{
    pinned::spare_descriptors,
    state::{Guard, HeldLink},
};
use super::{
    Request,
    alerts::{Alerts, sentence},
};
use crate::{
    change::{
        attach::{refuse_foreign, refuse_other_mode},
        upgrade::take_over,
        words::VERB,
    },
    config::XdpMode,
    kernel::{
        bpf::{Attachment, Counters, HeldMaps, Link, LogLines, Program},
        links::protected::follow_moved,
        net::{
            interface::{Interface, XdpAttachMode, other_name},
            link_type::LinkType,
            rtnetlink::{self, Change, Changes, is_link_local},
        },
    },
    metrics::Loop,
    store::WatchLock,
    ui::output::eprint,
};

/// How often the links are checked: the kernel sends no message when a link is detached by hand.
const PERIOD: Duration = Duration::from_millis(400);
/// Periods between two checks of the pins.
const PINS_CHECK: u64 = 30;
/// Periods from one look for new maps of other writers to the next.
const MAPS_CHECK: u64 = 10;
/// Periods between two lists of interfaces, to find changes that the kernel sent no message about.
const THOROUGH: u64 = 40;
/// Periods between two reads of the default routes.
const ROUTES: u64 = 150;
/// The pause before an interface that could not be guarded is tried again without an event.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Descriptors reserved for everything else: files, sockets, and the maps of a changing policy.
const RESERVED_DESCRIPTORS: u64 = 64;

/// The matters of alerts, besides interfaces by name.
const CHANGES: &str = "notices of changes";
const INTERFACES: &str = "list of interfaces";
const PINS: &str = "pins of the filter";
const PROGRAM: &str = "program";
const OTHERS: &str = "filter of another version";

/// Starts the thread, in the network namespace of the caller. The maps must be pinned, with a
/// policy in force. The thread keeps `lock`.
///
/// # Errors
/// If the maps cannot be opened, or the thread cannot be started.
pub(crate) fn start(shared: Shared, lock: WatchLock) -> Result<JoinHandle<()>> {
    let maps = HeldMaps::open(&shared.pins.maps())?;
    let counters = Counters::open(&shared.pins.maps())?;
    let guard = Guard {
        shared,
        lock,
        program: None,
        maps,
        counters,
        held: BTreeMap::new(),
        routes: None,
        known: BTreeMap::new(),
        missing: BTreeSet::new(),
        alerts: Alerts::default(),
        faults: BTreeMap::new(),
        retry: None,
        has_started: false,
        last_check: Instant::now(),
    };
    thread::Builder::new()
        .name("guard".to_owned())
        .spawn(move || guard.run())
        .context("start thread")
}

impl Guard {
    fn run(mut self) {
        // Guard the present interfaces first. Then verify the programs for every kind of interface
        // that may come. The verifier takes some tenths of a second, in which no kernel message is
        // read, so this belongs to the start.
        self.check(true);
        let verified = self
            .load()
            .and_then(|()| self.program.as_mut().map_or(Ok(()), Program::verify));
        self.record_result(PROGRAM, verified);
        self.has_started = true;
        let mut changes = None;
        let mut tick = 1_u64;
        let mut next = Instant::now() + PERIOD;
        loop {
            // Default routes matter only if no interface is named.
            if self.shared.wanted.has_changed().unwrap_or(true) || changes.is_none() {
                self.shared.wanted.mark_unchanged();
                changes = self.subscribe();
                self.routes = None;
                self.check(true);
            }
            let wait = next.saturating_duration_since(Instant::now());
            let messages = match &mut changes {
                Some(changes) => changes.wait(wait),
                None => {
                    thread::sleep(wait);
                    Vec::new()
                }
            };
            if self.shared.stop.has_changed().unwrap_or(true) {
                return;
            }
            let is_affected = self.is_affected(messages);
            let due = Instant::now() >= next;
            if due {
                next = Instant::now() + PERIOD;
                if tick.is_multiple_of(MAPS_CHECK) {
                    self.maps.follow();
                }
                if tick.is_multiple_of(ROUTES) {
                    self.routes = None;
                }
                if tick % PINS_CHECK == PINS_CHECK - 1 {
                    let pinned = self.pin_again();
                    self.record_result(PINS, pinned);
                }
            }
            if is_affected || due {
                self.check(is_affected || tick.is_multiple_of(THOROUGH));
            }
            tick += u64::from(due);
        }
    }

    /// Subscribes to the kernel's messages. Without them the periodic checks find changes later.
    fn subscribe(&mut self) -> Option<Changes> {
        let routes = self.shared.wanted.borrow().names.is_empty();
        let (changes, result) = match Changes::open(routes) {
            Ok(changes) => (Some(changes), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.record_result(CHANGES, result);
        changes
    }

    /// Whether a change may concern the wanted interfaces: pods' devices come and go all the time.
    /// Changes of addresses go to the follower.
    fn is_affected(&mut self, messages: Vec<Change>) -> bool {
        let mut is_affected = false;
        let mut addresses = false;
        {
            let names = &self.shared.wanted.borrow().names;
            for change in messages {
                match change {
                    Change::Interface { ifindex, name } => {
                        is_affected |= names.contains(&name)
                            || self.held.contains_key(&ifindex)
                            || self.held.values().any(|held| held.name == name);
                    }
                    Change::DefaultRoute => {
                        self.routes = None;
                        is_affected = true;
                    }
                    // Unguarded devices have link-local addresses, too, which do not matter.
                    Change::Address { ifindex, address } => {
                        addresses |= self.held.contains_key(&ifindex) || !is_link_local(address);
                    }
                    Change::Lost => {
                        self.routes = None;
                        (is_affected, addresses) = (true, true);
                    }
                }
            }
        }
        if addresses {
            // A send fails only when the process ends.
            let _ = self.shared.follower.send(Request::Addresses);
        }
        is_affected
    }

    /// Checks every link, and guards interfaces that lost theirs, or all if `thorough`.
    fn check(&mut self, thorough: bool) {
        self.shared.heartbeats.beat(Loop::Guard);
        let before = self.held.len();
        let pins = &self.shared.pins;
        let (mut open, last_check) = (Vec::new(), self.last_check);
        self.last_check = Instant::now();
        self.held.retain(|ifindex, held| {
            let attachment = match &held.link {
                Some(link) => link.attachment(),
                None => Attachment::read(&pins.link(*ifindex)),
            };
            let holds = attachment.is_ok_and(|attachment| attachment.ifindex == *ifindex);
            if !holds {
                open.push(*ifindex);
            }
            holds
        });
        let lost = self.held.len() < before;
        let due = self.retry.is_some_and(|time| Instant::now() >= time);
        if thorough || lost || due {
            let done = self.reconcile();
            for held in open.iter().filter_map(|ifindex| self.held.get(ifindex)) {
                eprint(format_args!(
                    "warning: another process detached the filter from `{}`: attached it again; the ports were open there for at most {} ms",
                    held.name,
                    last_check.elapsed().as_millis()
                ));
            }
            let waits = done.is_err() || !self.shared.health.borrow().refused.is_empty();
            self.retry = waits.then(|| Instant::now() + RETRY_PAUSE);
            self.record_result(INTERFACES, done);
        }
    }

    /// Guards every wanted interface that is unguarded, each independently of the others.
    fn reconcile(&mut self) -> Result<()> {
        let mut interfaces = rtnetlink::interfaces()?;
        let others = self.shared.pins.other_links().unwrap_or_default();
        if !others.is_empty() {
            let result = self.take_over(&interfaces);
            self.record_result(OTHERS, result);
            interfaces = rtnetlink::interfaces()?;
        }
        let WantedInterfaces { names, xdp_mode } = self.shared.wanted.borrow().clone();
        let wanted = self.wanted(&interfaces, &names)?;
        // It is tried again at the next turn; nothing else waits for it.
        let _ = follow_moved(&self.shared.pins, &mut self.counters, &interfaces);
        self.remove_stale_pins(&interfaces);
        let (new, mut refused) = self.attach_all(&wanted, xdp_mode);
        self.alerts.retain(|matter| {
            refused.contains_key(matter) || [CHANGES, INTERFACES, PINS, OTHERS].contains(&matter)
        });
        let present: BTreeSet<&String> = wanted.iter().map(|interface| &interface.name).collect();
        for name in &names {
            if present.contains(name) {
                self.missing.remove(name);
            } else {
                refused.insert(name.clone(), "it does not exist".to_owned());
                self.report_missing(name, &interfaces);
            }
        }
        let all = if names.is_empty() {
            present.into_iter().cloned().collect()
        } else {
            names
        };
        self.publish(all, refused);
        if !new.is_empty() {
            self.report_guarded(&new);
        }
        self.counters.count_ports(&interfaces)
    }

    /// Those of the present `interfaces` to guard: the ones of `names`, or without names those with
    /// the default routes and those that are guarded.
    fn wanted<'a>(
        &mut self,
        interfaces: &'a [Interface],
        names: &[String],
    ) -> Result<Vec<&'a Interface>> {
        if !names.is_empty() {
            let wanted = |interface: &&Interface| names.contains(&interface.name);
            return Ok(interfaces.iter().filter(wanted).collect());
        }
        if self.routes.is_none() {
            self.routes = Some(rtnetlink::default_route_interfaces()?);
        }
        let pinned = self.shared.pins.interfaces().unwrap_or_default();
        let wanted = |interface: &&Interface| {
            let ifindex = interface.ifindex;
            let routes = self.routes.as_ref();
            let is_filtered = matches!(interface.link_type, LinkType::Filtered(_));
            is_filtered && routes.is_some_and(|routes| routes.contains(&ifindex))
                || self.held.contains_key(&ifindex)
                || pinned.contains(&ifindex)
        };
        Ok(interfaces.iter().filter(wanted).collect())
    }

    /// Attaches the program where it is missing; returns the new interfaces, and by name the error
    /// for those that could not be guarded.
    fn attach_all(
        &mut self,
        wanted: &[&Interface],
        xdp_mode: XdpMode,
    ) -> (Vec<(u32, String)>, BTreeMap<String, String>) {
        let mut refused = BTreeMap::new();
        let mut new = Vec::new();
        for interface in wanted {
            if let Some(held) = self.held.get_mut(&interface.ifindex) {
                held.name.clone_from(&interface.name);
                continue;
            }
            match self.attach(interface, xdp_mode) {
                Ok(()) => new.push((interface.ifindex, interface.name.clone())),
                Err(error) => {
                    self.alerts.raise(&interface.name, &error);
                    refused.insert(interface.name.clone(), sentence(&error));
                }
            }
        }
        (new, refused)
    }

    /// Reports once that no interface has this name.
    fn report_missing(&mut self, name: &str, interfaces: &[Interface]) {
        if self.missing.insert(name.to_owned()) {
            let other = other_name(name, interfaces);
            let what = other.unwrap_or_else(|| "it is guarded as soon as it appears".into());
            eprint(format_args!("interface `{name}` does not exist: {what}"));
        }
    }

    /// Publishes the state of the interfaces, and notifies the follower if it changed.
    fn publish(&self, all: Vec<String>, refused: BTreeMap<String, String>) {
        let guarded = self.held.keys().copied().collect();
        let drift = refused.iter().map(|(name, why)| format!("`{name}`: {why}"));
        let drift = drift.reduce(|one, other| format!("{one}; {other}"));
        let started = self.has_started;
        let first = started && !self.shared.health.borrow().started;
        let changed = self.shared.health.send_if_modified(|health| {
            let before = health.clone();
            health.interfaces = all;
            health.guarded = guarded;
            health.drift = drift;
            health.refused = refused;
            health.started = started;
            *health != before
        });
        if changed {
            let _ = self.shared.follower.send(if first {
                Request::Tried
            } else {
                Request::Guarded
            });
        }
    }

    /// Reports the newly guarded interfaces and their XDP modes.
    fn report_guarded(&mut self, new: &[(u32, String)]) {
        let now = rtnetlink::interfaces().unwrap_or_default();
        for (ifindex, name) in new {
            let found = now.iter().find(|interface| interface.ifindex == *ifindex);
            let xdp_mode = found
                .and_then(|interface| interface.xdp)
                .map(|xdp| xdp.place);
            // If the former interface of this name lives on under another name, this one is new.
            let former = self.known.insert(name.clone(), *ifindex);
            let is_elsewhere = |former: u32| {
                former != *ifindex && now.iter().any(|interface| interface.ifindex == former)
            };
            let again = match former {
                Some(former) if !is_elsewhere(former) => " again",
                _ => "",
            };
            eprint(format_args!(
                "guarding `{name}`{again} ({} XDP)",
                xdp_mode.map_or("no", XdpAttachMode::label)
            ));
            if xdp_mode == Some(XdpAttachMode::Generic) {
                let held = self.held.get(ifindex);
                if let Some(refused) = held.and_then(|held| held.link.as_ref()?.refusal()) {
                    eprint(format_args!("note: `{name}`: {refused}"));
                }
            }
        }
    }

    /// Attaches the program to an interface, or replaces our own program there.
    fn attach(&mut self, interface: &Interface, mode: XdpMode) -> Result<()> {
        let (name, ifindex) = (&interface.name, interface.ifindex);
        let pin = self.shared.pins.link(ifindex);
        let link_header = interface.link_header(VERB)?;
        refuse_foreign(&self.shared.pins, interface)?;
        refuse_other_mode(interface, mode)?;
        self.load()?;
        let program = self.program.as_mut().context("load program: none is")?;
        self.counters.claim(ifindex)?;
        let (link, is_pinned) = if interface.xdp.is_some() {
            // The program is ours, or it would have been refused.
            (Link::open(&pin)?.replace(program, link_header, name)?, true)
        } else {
            // Traffic is affected from here on.
            let link = Link::create(program, link_header, name, ifindex, mode)?;
            // The old pin is of a former interface, or of a link that was detached by hand.
            let _ = fs::remove_file(&pin);
            let pins = &self.shared.pins;
            let pinned = pins
                .prepare()
                .and_then(|()| pins.prepare_interface(ifindex));
            // This process holds the link, which guards the port; `pin_again` reports the fault.
            let is_pinned = pinned.and_then(|()| link.pin(&pin)).is_ok();
            (link, is_pinned)
        };
        let name = name.clone();
        // With scarce descriptors the pin alone holds the link; another interface may need one.
        let link = (!is_pinned || spare_descriptors() >= RESERVED_DESCRIPTORS).then_some(link);
        let held = HeldLink {
            name,
            link,
            is_pinned,
        };
        self.held.insert(ifindex, held);
        Ok(())
    }

    /// Takes over the filters of a binary with another layout version.
    fn take_over(&mut self, interfaces: &[Interface]) -> Result<()> {
        self.load()?;
        let program = self.program.as_mut().context("load program: none is")?;
        let pins = &self.shared.pins;
        take_over(pins, program, &mut self.counters, interfaces)
    }

    /// Loads and verifies the program, if that is still to be done.
    fn load(&mut self) -> Result<()> {
        if self.program.is_none() {
            let log = self.shared.log.as_ref();
            let mut program = Program::load(&self.shared.pins.maps(), log.is_some())?;
            if let Some(log) = log {
                // The receiver ends only with the process.
                let _ = log.send(LogLines::open(&mut program)?);
            }
            self.program = Some(program);
        }
        Ok(())
    }

    fn record_result(&mut self, matter: &'static str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.alerts.clear(matter, &format!("{matter}: in order"));
                self.faults.remove(matter);
            }
            Err(error) => {
                self.alerts.raise(matter, &error);
                self.faults.insert(matter, sentence(&error));
            }
        }
        let faults: Vec<&str> = self.faults.values().map(String::as_str).collect();
        let fault = faults.join("; ");
        self.shared.health.send_if_modified(|health| {
            let differs = health.fault != fault;
            health.fault = fault;
            differs
        });
    }
}
