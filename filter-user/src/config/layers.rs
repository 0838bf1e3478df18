//! All settings, each with the origin of its value: flag over environment over file over active
//! value over default.
//!
//! A new setting is a line in `settings!` and an argument in `cli.rs` whose id is the key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    ops::Deref,
    path::PathBuf,
};

use clap::{ArgMatches, parser::ValueSource};
use ipnet::IpNet;
use serde::Serialize;
use toml::{Spanned, de::DeValue};

use super::{
    Bounds, ClusterCidr, DEFAULT_BPFFS, DEFAULT_MAX_RANGES, DEFAULT_PORTS, DEFAULT_RANGES_FILE,
    DEFAULT_STATE_DIR, Guard, MetricsListen, OnCut, PolicyMode, Settings, Window, XdpMode,
    environment::{self, Environment},
    value::{Value, ValueErrors},
};
use crate::{
    codes::Acknowledgement,
    ranges::{InputError, ListName},
    ui::output::Output,
};

/// The settings that the config file alone can set: tables, which fit into no flag.
pub(super) const FILE_ONLY: [&str; 2] = ["lists", "guard"];

/// Declares [`Config`] from the settings: the field's name is the key, and the default follows `=`.
macro_rules! settings {
    ($($(#[$doc:meta])* $key:ident: $kind:ty = $default:expr;)*) => {
        /// Every setting.
        #[derive(Clone)]
        pub struct Config {
            $($(#[$doc])* pub $key: Setting<$kind>,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($key: Setting::new(stringify!($key), $default),)*
                }
            }
        }

        impl Config {
            fn iter(&self) -> impl Iterator<Item = &dyn AnySetting> {
                [$(&self.$key as &dyn AnySetting),*].into_iter()
            }

            /// The settings one by one, in display order.
            pub(super) fn iter_mut(&mut self) -> Vec<&mut dyn AnySetting> {
                vec![$(&mut self.$key),*]
            }
        }
    };
}

settings! {
    /// File that holds the authorized ranges.
    ranges_file: PathBuf = DEFAULT_RANGES_FILE.into();
    /// Directory in a bpffs for the pins.
    bpffs: PathBuf = DEFAULT_BPFFS.into();
    /// Directory for state that outlives a reboot, besides the files that people write.
    state_dir: PathBuf = DEFAULT_STATE_DIR.into();
    /// How data is written to stdout.
    output: Output = Output::Text;
    /// More messages.
    verbose: bool = false;
    /// Interfaces to guard; empty for those that hold the default routes.
    interfaces: Vec<String> = Vec::new();
    /// Protected TCP ports.
    ports: BTreeSet<u16> = DEFAULT_PORTS.into();
    /// Guarded destinations; empty for any.
    destinations: Vec<IpNet> = Vec::new();
    /// The action for packets from unauthorized sources.
    mode: PolicyMode = PolicyMode::Enforce;
    /// Where the program runs.
    xdp_mode: XdpMode = XdpMode::Auto;
    /// The cluster's egress addresses.
    outbound_ips: Vec<IpAddr> = Vec::new();
    /// The cluster's egress prefixes.
    outbound_ip_prefixes: Vec<IpNet> = Vec::new();
    /// The cluster's own CIDRs, and presets.
    cluster_cidrs: Vec<ClusterCidr> = Vec::new();
    /// Whether the node's own addresses are authorized.
    node_addresses: bool = true;
    /// The maximum number of ranges in the list.
    max_ranges: u32 = DEFAULT_MAX_RANGES;
    /// The address at which `run` serves its metrics.
    metrics_listen: MetricsListen = MetricsListen::default();
    /// Whether `run` detaches when it ends.
    detach_on_exit: bool = false;
    /// The action of `run` on an edit that would cut cluster nodes or administrators.
    on_cut: OnCut = OnCut::Trial;
    /// How long such an edit is on trial.
    on_cut_within: Window = Window::default();
    /// Acknowledged warnings.
    acknowledged_warnings: Vec<Acknowledgement> = Vec::new();
    /// The bounds of lists.
    lists: BTreeMap<ListName, Bounds> = BTreeMap::new();
    /// Ports with lists of their own.
    guard: Vec<Guard> = Vec::new();
}

impl Config {
    /// The settings as they are shown.
    pub fn rows(&self) -> Vec<SettingRow> {
        self.iter().map(AnySetting::row).collect()
    }

    /// Each key with the type of its value and its value, in display order.
    pub(super) fn kinds(&self) -> Vec<(&'static str, String, serde_json::Value)> {
        let kind = |setting: &dyn AnySetting| {
            let SettingRow { key, value, .. } = setting.row();
            (key, setting.kind(), value)
        };
        self.iter().map(kind).collect()
    }

    /// Whether the config file or the environment has an unreadable value for one of `keys`, and no
    /// higher layer overrides it.
    pub fn has_unreadable(&self, keys: &[&str]) -> bool {
        self.iter()
            .any(|setting| setting.is_unreadable() && keys.contains(&setting.row().key))
    }

    /// The settings if the file or the environment is broken: no part of the policy in it may be
    /// activated.
    #[must_use]
    pub fn without_policy(self) -> Self {
        let mut bare = Self::default();
        bare.mark_all_unreadable();
        Self {
            ranges_file: self.ranges_file,
            bpffs: self.bpffs,
            state_dir: self.state_dir,
            output: self.output,
            verbose: self.verbose,
            interfaces: self.interfaces,
            xdp_mode: self.xdp_mode,
            metrics_listen: self.metrics_listen,
            acknowledged_warnings: self.acknowledged_warnings,
            ..bare
        }
    }

    /// Applies flags and environment over the earlier layers. `matches` are those of the typed
    /// command; `command` describes all commands. The environment may also set a setting for which
    /// the command has no flag; if that value is unreadable, the setting is.
    pub fn read_typed(
        &mut self,
        command: &clap::Command,
        matches: &ArgMatches,
        environment: &Environment,
    ) -> TypedErrors {
        let mut errors = TypedErrors::default();
        let mut known = Vec::new();
        let typed = |setting: &&mut dyn AnySetting| !FILE_ONLY.contains(&setting.row().key);
        for setting in self.iter_mut().into_iter().filter(typed) {
            let key = setting.row().key;
            let argument = argument(command, key);
            known.push((argument, key));
            let has_flag = matches.try_contains_id(key).is_ok();
            if has_flag && matches.value_source(key) == Some(ValueSource::CommandLine) {
                let flag = argument.get_long().unwrap_or_default();
                let refusals = setting.take(matches, Origin::Flag(flag.to_owned()));
                errors.flags.extend(named(&format!("--{flag}"), refusals));
                continue;
            }
            let (name, refusals) = match environment.find(argument, key) {
                Ok(None) => continue,
                Err(refusal) => ("", vec![refusal]),
                Ok(Some((name, value))) => match environment::parse(argument, value) {
                    Err(refusal) => (name, vec![refusal]),
                    Ok(found) => {
                        let origin = Origin::Environment(name.to_owned());
                        (name, setting.take(&found, origin))
                    }
                },
            };
            if !refusals.is_empty() {
                setting.mark_unreadable();
            }
            let place = format!("environment {name}");
            errors.environment.extend(named(place.trim_end(), refusals));
        }
        errors.environment.extend(environment.unknown(&known));
        errors
    }

    /// The settings of a policy.
    pub fn settings(&self) -> Settings {
        Settings {
            ports: self.ports.value.clone(),
            guards: self.guard.value.clone(),
            destinations: sorted(self.destinations.iter().copied()),
            mode: *self.mode,
            node_addresses: *self.node_addresses,
            outbound: sorted(
                self.outbound_ips
                    .iter()
                    .copied()
                    .map(IpNet::from)
                    .chain(self.outbound_ip_prefixes.iter().copied()),
            ),
            outbound_ips: self.outbound_ips.value.clone(),
            cluster: sorted(self.cluster_cidrs.iter().copied()),
            max_ranges: *self.max_ranges,
            from_file: self.keys_of_file(),
            mode_waits: false,
        }
    }

    /// The keys that the config file sets, now or before it was removed.
    fn keys_of_file(&self) -> BTreeSet<String> {
        self.iter()
            .filter(|setting| setting.is_from_file())
            .map(|setting| setting.row().key.to_owned())
            .collect()
    }

    /// Keeps the value in `have`, the active settings, for each unset key. A key that the config
    /// file used to set is the default again. If `is_file` is false it keeps its value, too,
    /// because a missing file sets and resets nothing.
    pub fn keep(&mut self, have: &Settings, is_file: bool) {
        let is_address = |range: &IpNet| {
            have.outbound_ips
                .iter()
                .any(|ip| IpNet::from(*ip) == *range)
        };
        let prefixes = have.outbound.iter().copied();
        let prefixes = prefixes.filter(|range| !is_address(range)).collect();
        let place = (have, is_file);
        self.ports.keep(have.ports.clone(), place);
        self.guard.keep(have.guards.clone(), place);
        self.destinations.keep(have.destinations.clone(), place);
        if !(have.mode_waits && have.mode == PolicyMode::Monitor) {
            self.mode.keep(have.mode, place);
        }
        self.node_addresses.keep(have.node_addresses, place);
        self.outbound_ips.keep(have.outbound_ips.clone(), place);
        self.outbound_ip_prefixes.keep(prefixes, place);
        self.cluster_cidrs.keep(have.cluster.clone(), place);
        self.max_ranges.keep(have.max_ranges, place);
    }

    /// The effective settings over the active settings `have`: [`Config::keep`], then
    /// [`Config::settings`].
    pub fn over(&self, have: &Settings, is_file: bool) -> Settings {
        let mut config = self.clone();
        config.keep(have, is_file);
        config.settings()
    }
}

/// Sorted, so that the order of the sources makes no difference.
fn sorted<T: Ord>(ranges: impl Iterator<Item = T>) -> Vec<T> {
    ranges.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The faults of the command line and the environment, each with its hint.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TypedErrors {
    /// Faults of flags.
    pub flags: Vec<(String, String)>,
    /// Faults of the environment.
    pub environment: Vec<(String, String)>,
}

/// Each refusal, prefixed with its place.
fn named(place: &str, refusals: Vec<InputError>) -> impl Iterator<Item = (String, String)> {
    refusals
        .into_iter()
        .map(move |InputError { cause, hint }| (format!("{place}: {cause}"), hint))
}

/// The flag of the setting `key`, which also names the environment variable.
pub(super) fn argument<'a>(command: &'a clap::Command, key: &str) -> &'a clap::Arg {
    let commands = command.get_subcommands();
    let all = commands
        .filter(|command| command.get_name() == "config")
        .chain([command])
        .flat_map(clap::Command::get_arguments);
    let mut found = all.filter(|argument| argument.get_id() == key);
    found
        .next()
        .expect("`apifence config` has a flag for every setting")
}

/// A setting: its value, and the origin of it.
#[derive(Clone)]
pub struct Setting<T> {
    key: &'static str,
    value: T,
    origin: Origin,
    unreadable: bool,
}

impl<T> Setting<T> {
    const fn new(key: &'static str, default: T) -> Self {
        Self {
            key,
            value: default,
            origin: Origin::Default,
            unreadable: false,
        }
    }

    /// Sets the active `value` if no layer sets another.
    fn keep(&mut self, value: T, (have, is_file): (&Settings, bool)) {
        let from_file = have.from_file.contains(self.key);
        if self.origin == Origin::Default && !(from_file && is_file) {
            (self.value, self.origin) = (value, Origin::InForce { from_file });
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A setting of any type.
pub(super) trait AnySetting {
    /// Replaces the default by the file's value; returns the faults.
    fn read(&mut self, value: &Spanned<DeValue<'_>>, origin: Origin) -> ValueErrors;
    /// Replaces the earlier value by the typed one; returns the faults.
    fn take(&mut self, matches: &ArgMatches, origin: Origin) -> Vec<InputError>;
    /// Marks the value in the file or the environment as unreadable.
    fn mark_unreadable(&mut self);
    /// Whether an unreadable value applies, without an override from a higher layer.
    fn is_unreadable(&self) -> bool;
    /// Whether its value comes from the config file.
    fn is_from_file(&self) -> bool;
    /// The row for display.
    fn row(&self) -> SettingRow;
    /// The type of its value, in words.
    fn kind(&self) -> String;
}

impl<T: Value> AnySetting for Setting<T> {
    fn read(&mut self, value: &Spanned<DeValue<'_>>, origin: Origin) -> ValueErrors {
        match T::from_toml(self.key, value) {
            Ok(value) => {
                (self.value, self.origin) = (value, origin);
                ValueErrors::new()
            }
            Err(misfits) => {
                self.mark_unreadable();
                misfits
            }
        }
    }

    fn take(&mut self, matches: &ArgMatches, origin: Origin) -> Vec<InputError> {
        match T::from_args(matches, self.key) {
            Ok(value) => {
                (self.value, self.origin, self.unreadable) = (value, origin, false);
                Vec::new()
            }
            Err(refusals) => refusals,
        }
    }

    fn mark_unreadable(&mut self) {
        self.unreadable = true;
    }

    fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    fn is_from_file(&self) -> bool {
        matches!(
            self.origin,
            Origin::File { .. } | Origin::InForce { from_file: true }
        )
    }

    fn row(&self) -> SettingRow {
        SettingRow {
            key: self.key,
            value: self.value.json(),
            source: match self.origin {
                Origin::Default => "default",
                Origin::InForce { .. } => "in_force",
                Origin::File { .. } => "file",
                Origin::Environment(_) => "environment",
                Origin::Flag(_) => "flag",
            },
            origin: self.origin.to_string(),
        }
    }

    fn kind(&self) -> String {
        T::kind()
    }
}

/// A setting for display.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SettingRow {
    /// Its name in the config file.
    pub key: &'static str,
    /// Its value: text, a number, true or false, or a list or an object of these.
    pub value: serde_json::Value,
    /// The origin of the value: `default`, `in_force`, `file`, `environment` or `flag`.
    pub source: &'static str,
    /// The origin with the line, variable or flag, in words.
    pub origin: String,
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// No layer sets it.
    Default,
    /// No layer sets it now, and this value is active.
    InForce {
        /// Whether the config file set it.
        from_file: bool,
    },
    /// The config file.
    File {
        /// Its path.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// The flag of this name, without its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::InForce { .. } => f.write_str("in force"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}
