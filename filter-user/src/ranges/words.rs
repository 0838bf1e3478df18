//! Words that stand for addresses in other tools, but not here.

use std::net::IpAddr;

use super::{
    InputError,
    meant::{LIKE, TypedRange, shown},
};

/// The first words of providers' names for their address lists.
const PROVIDERS: [&str; 13] = [
    "akamai",
    "amazon",
    "aws",
    "azure",
    "cloudflare",
    "cloudfront",
    "digitalocean",
    "fastly",
    "gcp",
    "github",
    "google",
    "hetzner",
    "oracle",
];

impl TypedRange<'_> {
    /// A text of letters.
    pub(super) fn word(self) -> Option<InputError> {
        let lower = self.0.to_ascii_lowercase();
        if let Some((_, rest)) = self.0.split_once("://") {
            let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
            return Some(self.is("is a URL", addresses_of(host)));
        }
        if is_mac(self.0) {
            return Some(self.is(
                "is a MAC address; routers do not forward those",
                "write the IP address of the host, or its network",
            ));
        }
        if let Some(refusal) = self.keyword(&lower) {
            return Some(refusal);
        }
        if lower.starts_with('@') {
            return Some(self.is(
                "is a preset, not a range",
                "presets work in `cluster_cidrs`; here, write CIDRs (`kubectl get nodes -o wide` shows addresses)",
            ));
        }
        let name = lower.split('/').next().unwrap_or_default();
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if !is_name {
            return None;
        }
        let ids = ["sg-", "pl-", "vpc-", "subnet-"]
            .iter()
            .any(|id| name.starts_with(id));
        let tld = name.rsplit('.').next().unwrap_or_default();
        let is_host = name.contains('.') && ["com", "net", "org", "io", "dev"].contains(&tld);
        if ids || !is_host && PROVIDERS.iter().any(|provider| name.starts_with(provider)) {
            return Some(self.is(
                "is a provider's name for addresses",
                "write the CIDRs that the provider publishes",
            ));
        }
        let hex = |part: &str| part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if name.contains(':') {
            return name.split(':').all(hex).then(|| {
                self.is(
                    "is not an IPv6 address",
                    "an IPv6 address has eight groups, or `::` instead of some: `2001:db8:aa::/48`",
                )
            });
        }
        if name.starts_with("0x") {
            return None;
        }
        Some(self.is("is a name, not an address", addresses_of(name)))
    }

    /// A word that other tools take for all sources, for none, or for this host.
    fn keyword(self, lower: &str) -> Option<InputError> {
        match lower {
            "*" | "any" | "all" | "everyone" | "everything" | "internet" | "any4" | "any6"
            | "*/0" => {
                Some(self.is(
                    "is not a range, but a word for every source",
                    "`0.0.0.0/0` and `::/0` allow every source; `apifence ranges clear` switches enforcement off",
                ))
            }
            "none" | "nobody" | "null" | "nil" => {
                Some(self.is(
                    "is not a range, but a word for no source",
                    "`0.0.0.0/32` alone allows only the implicit sources",
                ))
            }
            "disabled" | "off" => {
                Some(self.is("is not a range, but the off switch", "`apifence ranges clear` switches enforcement off; in a file, `disabled` has a line of its own"))
            }
            "localhost" | "ip6-localhost" | "ip6-loopback" | "localhost.localdomain" => {
                Some(self.is(
                    "is this host's loopback",
                    "leave it out: loopback traffic never passes the filter",
                ))
            }
            _ => None,
        }
    }
}

/// The hint for a host name.
fn addresses_of(host: &str) -> String {
    let is_plain = host.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if host.parse::<IpAddr>().is_ok() {
        format!("`{host}`")
    } else if is_plain {
        format!(
            "write the addresses: `getent ahosts {}` shows them",
            shown(host)
        )
    } else {
        LIKE.to_owned()
    }
}

/// Whether the text is a MAC address.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, count: usize, len: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let hex =
            |part: &&str| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        parts.len() == count && parts.iter().all(hex)
    };
    groups(':', 6, 2) || groups('-', 6, 2) || groups('.', 3, 4)
}
