//! The checks.

use std::collections::BTreeSet;

use anyhow::{Error, Result};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    agent::agent,
    diagnosis::{Check, fail, ok, warn},
};
use crate::{
    change::first::foreign_claims,
    clock::Clocks,
    cluster::Root,
    codes::{Code, Severity},
    command::status::{Status, status},
    config::{Settings, join},
    context::Context,
    kernel::{net::rtnetlink, routes::Paths, version},
    policy::{Prefixes, Sources, compile},
    store::WatchLock,
    survey::{Client, ClientKind, Hook, Survey},
    ui::error::{InputErrors, UserError},
    view::policy::headline,
};

/// The node, and what is in force on it.
pub(super) struct Examination<'a> {
    context: &'a Context,
    root: &'a Root,
    pub(super) survey: Survey,
    /// What is in force; the error if that cannot be told.
    pub(super) status: Result<Status>,
    /// The settings in force, or those that `attach` would go by.
    settings: Settings,
    /// Who is let in, or would be.
    sources: Prefixes,
    now: Clocks,
}

/// How many foreign clients are named: anyone can be one of many.
const MAX_CLIENTS: usize = 20;

/// A failed check that an error explains.
fn failed(check: &'static str, error: &Error) -> Check {
    let hint = error
        .downcast_ref::<UserError>()
        .map(|error| error.hint.as_str());
    fail(
        check,
        format!("{error:#}"),
        hint.unwrap_or("`apifence status` shows what is in force"),
    )
}

impl<'a> Examination<'a> {
    /// Looks at the node.
    ///
    /// # Errors
    /// If rtnetlink does not answer.
    pub(super) fn new(context: &'a Context, root: &'a Root) -> Result<Self> {
        let now = Clocks::now()?;
        let status = context.pins.check().and_then(|()| status(context));
        let in_force = status
            .as_ref()
            .ok()
            .and_then(|status| status.settings.clone());
        let settings = context.settings(in_force.as_ref());
        let sources = match in_force {
            Some(_) => in_kernel(context, &now).unwrap_or_default(),
            None => in_files(context, &settings)?,
        };
        Ok(Self {
            survey: Survey::new(context, root)?,
            context,
            root,
            status,
            settings,
            sources,
            now,
        })
    }

    /// All checks, in the order in which they are to be put right.
    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.kernel()];
        checks.extend(self.config());
        checks.extend(self.lists());
        let lists = self.context.list_files();
        checks.extend(agent(&lists.of_kubernetes(), Timestamp::now()));
        checks.extend(self.filter());
        checks.extend(self.service());
        checks.extend(self.ports());
        checks.extend(self.claims());
        checks.extend(self.interfaces());
        checks.extend(self.networks());
        checks.extend(self.clients());
        checks.extend(self.warnings());
        let notes = self.survey.notes.iter();
        checks.extend(notes.map(|note| warn("node", note, "check whether you want that")));
        checks
    }

    fn kernel(&self) -> Check {
        let checked = version::refuse_old().and_then(|()| self.context.pins.check());
        match checked {
            Ok(()) => {
                let (release, bpffs) = (version::release(), self.context.pins.root().display());
                ok("kernel", format!("Linux {release}; pins in `{bpffs}`"))
            }
            Err(error) => failed("kernel", &error),
        }
    }

    fn config(&self) -> Vec<Check> {
        let file = &self.context.file;
        if !file.errors.is_empty() {
            let causes = InputErrors::new(file.errors.clone()).causes().into_iter();
            let fix = "`apifence config` shows the fix; the policy stays in force";
            return causes.map(|cause| fail("config", cause, fix)).collect();
        }
        vec![match file.exists {
            true => ok("config", format!("`{}` can be read", file.path)),
            false => warn(
                "config",
                format!(
                    "there is no config file `{}`: the defaults apply",
                    file.path
                ),
                "`apifence init` writes one",
            ),
        }]
    }

    fn lists(&self) -> Vec<Check> {
        let read = match self.context.read_lists() {
            Ok(read) => read,
            Err(error) => return vec![failed("lists", &error)],
        };
        let mut checks: Vec<Check> = read
            .faults
            .iter()
            .map(|(name, error)| {
                let fix = "fix its file; its last good entries stay in force";
                fail("lists", format!("list `{name}`: {error:#}"), fix)
            })
            .collect();
        if read.lists.is_empty() && checks.is_empty() {
            let file = self.context.global.ranges_file.display();
            checks.push(warn(
                "lists",
                format!("there is no list: `{file}` is missing"),
                "`apifence init` or `apifence ranges set CIDR,...` writes one",
            ));
        } else if checks.is_empty() {
            let names = join(read.lists.iter().map(|(name, _)| name.as_str()));
            let count = read.lists.entry_count();
            let noun = if count == 1 { "entry" } else { "entries" };
            checks.push(ok("lists", format!("{count} {noun} ({names})")));
        }
        checks
    }

    fn filter(&self) -> Vec<Check> {
        let status = match &self.status {
            Ok(status) => status,
            Err(error) => return vec![failed("filter", error)],
        };
        let ports = join(&self.settings.ports);
        let headline = headline(status.state, &ports);
        let mut checks = vec![match status.state {
            "enforcing" => ok("filter", headline),
            "monitoring" => warn(
                "filter",
                headline,
                "when every client is listed: `apifence enforce --confirm-within 5m`",
            ),
            "off" => warn(
                "filter",
                headline,
                "`apifence ranges set CIDR,...` switches it on",
            ),
            "detached" => warn(
                "filter",
                headline,
                "on a new node, `apifence init`; else `apifence attach --mode monitor`, which drops nothing",
            ),
            _ => fail("filter", headline, "`apifence status` shows more"),
        }];
        if let Some(provisional) = &status.provisional {
            let fix = "`apifence confirm` keeps it";
            checks.push(warn("filter", provisional.to_string(), fix));
        }
        let drift = status.drift.iter();
        let fix = "`apifence status` shows the reason and the fix";
        checks.extend(
            drift.map(|drift| fail("filter", format!("files and kernel differ: {drift}"), fix)),
        );
        checks
    }

    fn is_attached(&self) -> bool {
        self.status
            .as_ref()
            .is_ok_and(|status| status.state != "detached")
    }

    fn service(&self) -> Vec<Check> {
        if !self.is_attached() {
            return Vec::new();
        }
        let fix = "`systemctl enable --now apifence`";
        let mut checks = vec![match WatchLock::watcher(&self.context.pins.watch()) {
            Ok(Some(_)) => ok("service", "`apifence run` is up and follows the files"),
            Ok(None) => warn(
                "service",
                "`apifence run` is not up: edits, new addresses and new interfaces have no effect",
                fix,
            ),
            Err(error) => failed("service", &error),
        }];
        let wanted = "/etc/systemd/system/multi-user.target.wants/apifence.service";
        if self.root.has_unit("apifence.service") && !self.root.has(wanted) {
            let message = "the service is not enabled: after a reboot the ports are open";
            checks.push(warn("service", message, fix));
        }
        checks
    }

    /// Whether every port that leads to the API server is protected.
    fn ports(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if !self.survey.has_api_server() {
            return checks;
        }
        for port in &self.survey.ports {
            let (number, why) = (port.port, port.why.join("; "));
            checks.push(if self.settings.protects(number) {
                ok("port", format!("{number} is protected: {why}"))
            } else {
                let all = join(self.settings.ports.union(&self.survey.port_numbers()));
                fail(
                    "port",
                    format!("{number} is not protected: {why}"),
                    format!("`ports = [{all}]` in the config file"),
                )
            });
        }
        checks
    }

    /// Whether a protected port belongs to another program.
    fn claims(&self) -> Vec<Check> {
        let needed = self.survey.port_numbers();
        let others: BTreeSet<u16> = &self.settings.ports - &needed;
        let Ok(paths) = Paths::new() else {
            return Vec::new();
        };
        let guarded = match &self.status {
            Ok(status) => status.interfaces.iter().map(|one| one.ifindex).collect(),
            Err(_) => BTreeSet::new(),
        };
        let claims = foreign_claims(&paths, &others, &self.settings, false, &guarded);
        let rest = join(
            self.settings
                .ports
                .iter()
                .filter(|port| !claims.iter().any(|(claimed, _)| claimed == *port)),
        );
        let claims = claims.into_iter().map(|(_, why)| {
            fail(
                "port",
                format!("{why}; this port is protected: its clients need entries in the list"),
                format!("`ports = [{rest}]` in the config file"),
            )
        });
        claims.collect()
    }

    fn interfaces(&self) -> Vec<Check> {
        let is_attached = self.is_attached();
        let interfaces = self.survey.interfaces.iter();
        let check = interfaces.map(|interface| {
            let line = interface.line();
            if is_attached && !interface.is_guarded && interface.can_be_guarded() {
                let fix = format!(
                    "add it to `interfaces` in the config file, or run `apifence attach --interface {}`",
                    interface.name
                );
                return fail("interface", format!("{line}; no filter"), fix);
            }
            match &interface.hook {
                Hook::Native => ok("interface", line),
                Hook::Generic(_) | Hook::Unclear(_) => warn(
                    "interface",
                    line,
                    "generic XDP works, but drops cost more CPU time: `apifence explain W11`",
                ),
                Hook::Foreign(_, fix) | Hook::Refused(_, fix) => fail("interface", line, fix),
            }
        });
        check.collect()
    }

    fn is_authorized(&self, range: &IpNet) -> bool {
        self.sources.cover(range, self.now.wall)
    }

    /// Whether the cluster's own networks are let in.
    fn networks(&self) -> Vec<Check> {
        if self.survey.kubelet.is_none() && !self.survey.has_api_server() {
            return Vec::new();
        }
        let names: Vec<String> = self
            .settings
            .cluster
            .iter()
            .map(ToString::to_string)
            .collect();
        let missing: Vec<String> = self
            .survey
            .networks()
            .into_iter()
            .filter(|network| network.is_proposed)
            .filter(|network| match network.value.parse() {
                Ok(range) => !self.is_authorized(&range),
                Err(_) => !names.contains(&network.value),
            })
            .map(|network| format!("{} ({})", network.value, network.why))
            .collect();
        if missing.is_empty() {
            return vec![ok("cluster", "all nodes and pods found here are allowed")];
        }
        let fix = "set `cluster_cidrs` in the config file; `apifence init --print` prints the line";
        let missing = missing.into_iter();
        missing
            .map(|one| warn("cluster", format!("not allowed: {one}"), fix))
            .collect()
    }

    /// Whether those who are connected now are let in.
    fn clients(&self) -> Vec<Check> {
        let out = |client: &&Client| !self.is_authorized(&IpNet::from(client.address));
        let clients = self.survey.clients.iter();
        let (foreign, known): (Vec<&Client>, Vec<&Client>) = clients
            .clone()
            .filter(out)
            .partition(|client| client.is_foreign());
        let more = foreign.len().saturating_sub(MAX_CLIENTS);
        let foreign = foreign.into_iter().take(MAX_CLIENTS);
        let mut checks: Vec<Check> = known.into_iter().chain(foreign).map(left_out).collect();
        if more > 0 {
            checks.push(warn(
                "client",
                format!("{more} more connected clients are not allowed"),
                "`apifence suggest` lists them",
            ));
        }
        if let Some(ssh) = self.survey.ssh
            && !self.is_authorized(&IpNet::from(ssh))
            && !checks
                .iter()
                .any(|check| check.message.starts_with(&format!("{ssh} ")))
        {
            checks.push(warn(
                "client",
                format!("{ssh}, the address of your SSH session, is not allowed"),
                "run `apifence ranges add me` if you use `kubectl` from there",
            ));
        }
        if checks.is_empty() && clients.len() > 0 {
            checks.push(ok(
                "client",
                format!("all {} connected clients are allowed", clients.len()),
            ));
        }
        checks
    }

    /// The warnings of `status`, but those that another check has.
    fn warnings(&self) -> Vec<Check> {
        let Ok(status) = &self.status else {
            return Vec::new();
        };
        let here = |code: Code| {
            matches!(code, Code::GenericXdp)
                || (code == Code::UnguardedListener && self.is_attached())
        };
        let told = status.warnings.iter().filter(|one| !here(one.code));
        let told = told.map(|warning| {
            let message = format!("{} [{}]", warning.message, warning.code);
            match warning.code.severity() {
                Severity::Info => ok("warning", message),
                Severity::Warning if warning.code.can_be_acknowledged() => {
                    warn("warning", message, &warning.hint)
                }
                Severity::Warning => fail("warning", message, &warning.hint),
            }
        });
        told.collect()
    }
}

/// The result for a client that is connected and not let in.
fn left_out(client: &Client) -> Check {
    let Client { address, why, .. } = client;
    let message = format!("{address} is connected, but not allowed: {why}");
    let add = format!("`apifence ranges add {address}`");
    match client.kind {
        _ if client.is_foreign() => warn("client", message, add + " if it is yours"),
        ClientKind::Administrator => fail("client", message, add),
        _ => fail("client", message, "`cluster_cidrs` in the config file"),
    }
}

/// Who is let in by the policy in force.
fn in_kernel(context: &Context, now: &Clocks) -> Result<Prefixes> {
    let maps = context.attached_maps()?;
    maps.read_consistent(|slot| maps.sources(slot, now))
}

/// Who would be let in by the files.
fn in_files(context: &Context, settings: &Settings) -> Result<Prefixes> {
    let lists = context
        .read_lists()
        .map(|read| read.lists)
        .unwrap_or_default();
    let sources = Sources {
        node: rtnetlink::addresses()?
            .into_iter()
            .map(|(_, own)| IpNet::from(own))
            .collect(),
        outbound: settings.outbound.clone(),
        cluster: settings.cluster_ranges(&context.read_cluster(settings.cluster_files()).lists),
    };
    Ok(compile(lists.union().entries(), &sources))
}
