//! What `cluster_cidrs` holds: CIDRs, and presets: names that stand for ranges.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Settings, nearest};
use crate::ranges::{InputError, ListName, Lists, parse_range};

/// A name that stands for ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// The health checks of Google Cloud's load balancers.
    GcpHealthChecks,
    /// The health probe of Azure's load balancers.
    AzureProbe,
    /// The addresses of the cluster's nodes, from the file `@nodes` in the state directory.
    Nodes,
    /// The cluster's pod ranges, from the file `@pods` in the state directory.
    Pods,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::GcpHealthChecks,
        Self::AzureProbe,
        Self::Nodes,
        Self::Pods,
    ];

    /// Its name in `cluster_cidrs`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GcpHealthChecks => "@gcp-health-checks",
            Self::AzureProbe => "@azure-probe",
            Self::Nodes => ListName::NODES,
            Self::Pods => ListName::PODS,
        }
    }

    /// The file that it comes from; `None` if it is fixed.
    pub fn file(self) -> Option<ListName> {
        ListName::of_cluster(self.name())
    }

    /// The ranges that it stands for. `files` are those in the state directory.
    pub fn ranges(self, files: &Lists) -> Vec<IpNet> {
        if let Some(name) = self.file() {
            let entries = files.get(&name).into_iter().flat_map(|file| file.entries());
            return entries.map(|entry| entry.range).collect();
        }
        let fixed = self.fixed().iter();
        fixed
            .map(|range| range.parse().expect("a preset is in order"))
            .collect()
    }

    /// The ranges that a vendor publishes; none if it comes from a file.
    ///
    /// - Google Cloud, *Health checks overview* and *Firewall rules*, the probe ranges of all load
    ///   balancers, external passthrough ones included:
    ///   <https://docs.cloud.google.com/load-balancing/docs/health-check-concepts>,
    ///   <https://docs.cloud.google.com/load-balancing/docs/firewall-rules>.
    /// - Azure, *What is IP address 168.63.129.16?*: in all regions, and it does not change. Only
    ///   the platform can send from it:
    ///   <https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>.
    const fn fixed(self) -> &'static [&'static str] {
        match self {
            Self::GcpHealthChecks => &[
                "35.191.0.0/16",
                "130.211.0.0/22",
                "209.85.152.0/22",
                "209.85.204.0/22",
                "2600:1901:8001::/48",
                "2600:2d00:1:1::/64",
                "2600:2d00:1:b029::/64",
            ],
            Self::AzureProbe => &["168.63.129.16/32"],
            Self::Nodes | Self::Pods => &[],
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value of `cluster_cidrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(inline))]
#[serde(into = "String", try_from = "String")]
pub enum ClusterCidr {
    /// A CIDR.
    Range(IpNet),
    /// A name. Its ranges are looked up whenever a policy is compiled.
    Preset(Preset),
}

impl ClusterCidr {
    /// Parses a value as typed.
    ///
    /// # Errors
    /// If it is neither a CIDR nor a known name; the hint lists the names.
    pub fn parse(text: &str) -> Result<Self, InputError> {
        let known = |name: &str| Preset::ALL.into_iter().find(|known| known.name() == name);
        if let Some(preset) = known(text) {
            return Ok(Self::Preset(preset));
        }
        if !text.starts_with('@') {
            return parse_range(text).map(Self::Range).map_err(|refusal| {
                match known(&format!("@{text}")) {
                    Some(preset) => InputError {
                        hint: format!("`{preset}`"),
                        ..refusal
                    },
                    None => refusal,
                }
            });
        }
        let names = Preset::ALL.map(Preset::name);
        let meant = nearest(text, &names).map(|name| format!("did you mean `{name}`? "));
        Err(InputError {
            cause: format!("unknown preset `{text}`"),
            hint: format!(
                "{}the presets are `{}`",
                meant.unwrap_or_default(),
                names.join("`, `")
            ),
        })
    }

    /// The ranges that it stands for. `files` are those in the state directory.
    pub fn ranges(self, files: &Lists) -> Vec<IpNet> {
        match self {
            Self::Range(range) => vec![range],
            Self::Preset(preset) => preset.ranges(files),
        }
    }

    /// Its file in the state directory, if it has one.
    pub fn file(self) -> Option<ListName> {
        match self {
            Self::Range(_) => None,
            Self::Preset(preset) => preset.file(),
        }
    }
}

impl fmt::Display for ClusterCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Preset(preset) => preset.fmt(f),
        }
    }
}

impl From<ClusterCidr> for String {
    fn from(cidr: ClusterCidr) -> Self {
        cidr.to_string()
    }
}

impl FromStr for ClusterCidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).map_err(|refusal| refusal.cause)
    }
}

impl TryFrom<String> for ClusterCidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Settings {
    /// The files in the state directory that the settings name.
    pub fn cluster_files(&self) -> BTreeSet<ListName> {
        let files = self.cluster.iter().filter_map(|cidr| cidr.file());
        files.collect()
    }

    /// The ranges of the cluster. `files` are those in the state directory.
    pub fn cluster_ranges(&self, files: &Lists) -> Vec<IpNet> {
        let all = self.cluster.iter().flat_map(|cidr| cidr.ranges(files));
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a node or a pod is authorized: by a CIDR, or by a file with a range. The probes of
    /// load balancers are neither.
    pub fn knows_cluster(&self, files: &Lists) -> bool {
        self.cluster.iter().any(|cidr| match cidr {
            ClusterCidr::Range(_) => true,
            ClusterCidr::Preset(preset) => {
                preset.file().is_some() && !preset.ranges(files).is_empty()
            }
        })
    }

    /// The ranges that names stand for, each with the names.
    pub fn presets(&self, files: &Lists) -> HashMap<IpNet, Vec<&'static str>> {
        let mut found: HashMap<IpNet, Vec<&'static str>> = HashMap::new();
        for cidr in &self.cluster {
            let ClusterCidr::Preset(preset) = cidr else {
                continue;
            };
            for range in preset.ranges(files) {
                let names = found.entry(range).or_default();
                // A file may have a range twice.
                if names.last() != Some(&preset.name()) {
                    names.push(preset.name());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, ranges::RangesFile};

    fn files(nodes: &str) -> Lists {
        let mut files = Lists::default();
        let name = Preset::Nodes.file().expect("it has a file");
        files.insert(name, RangesFile::parse(nodes).expect("ranges"));
        files
    }

    #[test]
    fn a_value_is_a_cidr_or_a_known_name() {
        for text in ["10.0.0.0/8", "@nodes", "@pods", "@azure-probe"] {
            let cidr = ClusterCidr::parse(text).expect(text);
            assert_eq!(cidr.to_string(), text);
            let json = serde_json::to_string(&cidr).expect("JSON");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(
                serde_json::from_str::<ClusterCidr>(&json).expect(text),
                cidr
            );
        }
        let names = "the presets are `@gcp-health-checks`, `@azure-probe`, `@nodes`, `@pods`";
        for (text, hint) in [
            ("@node", format!("did you mean `@nodes`? {names}")),
            ("@Pods", format!("did you mean `@pods`? {names}")),
            (
                "@gcp-healthchecks",
                format!("did you mean `@gcp-health-checks`? {names}"),
            ),
            ("@", format!("did you mean `@pods`? {names}")),
            ("@xyz", names.to_owned()),
            ("nodes", "`@nodes`".to_owned()),
            (
                "10.0.0.1/8",
                "`10.0.0.0/8`, or `10.0.0.1/32` for one host".to_owned(),
            ),
        ] {
            let refusal = ClusterCidr::parse(text).expect_err(text);
            assert_eq!(refusal.hint, hint, "{text}: {}", refusal.cause);
        }
    }

    #[test]
    fn fixed_presets_have_ranges_of_their_vendors() {
        for preset in Preset::ALL {
            let ranges = preset.ranges(&Lists::default());
            assert_eq!(ranges.is_empty(), preset.file().is_some(), "{preset}");
            for range in ranges {
                assert_eq!(parse_range(&range.to_string()), Ok(range));
            }
        }
    }

    #[test]
    fn ranges_are_looked_up_in_the_files() {
        let mut settings = Config::default().settings();
        settings.cluster = ["@nodes", "@azure-probe", "192.0.2.1/32"]
            .map(|text| text.parse().expect("a value"))
            .to_vec();
        let files = files("192.0.2.1\n2001:db8::1\n192.0.2.1\n");
        let ranges: Vec<String> = settings
            .cluster_ranges(&files)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            ranges,
            ["168.63.129.16/32", "192.0.2.1/32", "2001:db8::1/128"]
        );
        let presets = settings.presets(&files);
        let range = "192.0.2.1/32".parse().expect("a range");
        assert_eq!(presets.get(&range), Some(&vec!["@nodes"]));
        assert_eq!(presets.len(), 3);
        assert_eq!(settings.cluster_files().len(), 1);
    }

    #[test]
    fn probes_and_empty_files_name_no_node() {
        let mut settings = Config::default().settings();
        let none = Lists::default();
        assert!(!settings.knows_cluster(&none));
        settings.cluster = vec![
            ClusterCidr::Preset(Preset::GcpHealthChecks),
            ClusterCidr::Preset(Preset::Nodes),
        ];
        assert!(!settings.knows_cluster(&none));
        assert!(!settings.knows_cluster(&files("empty\n")));
        assert!(settings.knows_cluster(&files("192.0.2.1\n")));
    }
}
